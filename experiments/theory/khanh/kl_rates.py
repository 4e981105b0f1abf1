"""Theorem 4.1 (v): polynomial rates at flat minima."""

import dataclasses

import jax
import numpy as np
import optax

from experiments.theory import claims, pictures
from experiments.theory.khanh import _methods
from sam_jax.theory import descent, problems
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="The flatter the minimum, the slower USAM and extragradient: KL rates",
    source="Khanh et al. 2024, Theorem 4.1 (v)",
    statement="""With step sizes bounded away from 0 and the KL function
phi(t) = M t^(1-q), q in (1/2, 1): ||x_k - x*|| and ||grad f(x_k)|| are
**O(k^-(1-q)/(2q-1))**, f(x_k) - f* is **O(k^-(2-2q)/(2q-1))**; for q <= 1/2 the
convergence is linear. f(x) = |x|^p has q = 1 - 1/p: the exponents are 1/(p - 2) and
2/(p - 2). That of the distance is attained; on |x|^p the gradient and the gap are
faster, (p - 1)/(p - 2) and p/(p - 2) (ours: x' = -t p x^(p-1)).""",
    recipe="""f(x) = |x|^p, p = 3, 4, 6, x_1 = 0.6, nu = 0.5, rho = nu/L,
t = (2 - 2nu - 0.1)/(L (1 + nu)^2), 10^5 steps; slopes over the last decade; p = 2 for
the linear rate.""",
    criterion="""Exponent of the distance within 1 % of the published one, those of
gradient and gap at least the published ones, and within 1 % of ours. For p = 2 the gap
falls by the same factor in every step, the square of 1 - 2t(1 + 2 rho) for USAM and of
1 - 2t(1 - 2 rho) for extragradient.""",
)
EXPONENTS = (3.0, 4.0, 6.0)
START, NU = 0.6, 0.5


def _problem(exponent: float) -> problems.Problem:
    # The perturbed points stay within radius 1, where L = p (p - 1).
    return dataclasses.replace(problems.power(exponent), start=np.array([START]))


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    checkpoints = descent.geometric(100_000)

    @jax.jit
    def descend():
        found = {}
        for name, make in _methods.UNNORMALIZED.items():
            for exponent in (2.0, *EXPONENTS):
                problem = _problem(exponent)
                t, rho = _coefficients(problem.smoothness)
                found[name, exponent] = descent.descend(
                    optax.chain(make(rho), optax.sgd(t)),
                    descent.exact(problem),
                    problem.start,
                    np.arange(21) if exponent == 2 else checkpoints,
                    record=lambda x, of=problem: {
                        "distance": abs(x[0]),
                        "gradient": abs(of.gradient(x)[0]),
                        "gap": of.gap(x),
                    },
                ).recorded
        return {f"{name}, p = {p:g}": recorded for (name, p), recorded in found.items()}

    found = jax.tree.map(np.asarray, descend())
    late = checkpoints >= checkpoints[-1] / 10
    slopes: dict[str, list[float]] = {"distance": [], "gradient": [], "gap": []}
    published: dict[str, list[float]] = {"distance": [], "gradient": [], "gap": []}
    ours: dict[str, list[float]] = {"distance": [], "gradient": [], "gap": []}
    picture, panels = pictures.panels(3, width=3.4)
    for exponent in EXPONENTS:
        rates = khanh.kl_rates(khanh.power_kl_exponent(exponent))
        for name in _methods.UNNORMALIZED:
            recorded = found[f"{name}, p = {exponent:g}"]
            for key, powers in zip(slopes, (1, exponent - 1, exponent), strict=True):
                fit = np.polyfit(
                    np.log(checkpoints[late]), np.log(recorded[key][late]), 1
                )
                slopes[key].append(-float(fit[0]))
                published[key].append(
                    dict(zip(slopes, rates, strict=True))[key],
                )
                ours[key].append(powers / (exponent - 2))
        for panel, key in zip(panels, slopes, strict=True):
            curve = found[f"USAM, p = {exponent:g}"][key]
            panel.plot(checkpoints[1:], curve[1:], label=f"USAM, p = {exponent:g}")
            slope = published[key][-1]
            text = "published exponents" if exponent == EXPONENTS[-1] else ""
            seen = checkpoints >= 100
            line = (checkpoints[seen] / checkpoints[seen][0]) ** -slope
            pictures.bound(panel, checkpoints[seen], curve[seen][0] * line, text)
    for panel, key in zip(panels, ("|x_k|", "|f'(x_k)|", "f(x_k)"), strict=True):
        pictures.log_log(panel, "iteration k", key, "f(x) = |x|^p")
    pictures.legends(panels[:1], loc="lower left")

    t, rho = _coefficients(_problem(2.0).smoothness)
    checks = [
        claims.close(
            f"p = {exponent:g}, {name}: exponent of the distance",
            slopes["distance"][i],
            published["distance"][i],
            rtol=0.01,
        )
        for i, (exponent, name) in enumerate(
            (p, name) for p in EXPONENTS for name in _methods.UNNORMALIZED
        )
    ]
    for key in ("gradient", "gap"):
        checks += [
            claims.at_least(f"exponent of the {key}", slopes[key], published[key]),
            claims.close(
                f"exponent of the {key}, ours", slopes[key], ours[key], rtol=0.01
            ),
        ]
    for name, sign in zip(_methods.UNNORMALIZED, (1, -1), strict=True):
        gap = found[f"{name}, p = 2"]["gap"]
        checks.append(
            claims.close(
                f"p = 2, {name}: factor of the gap",
                gap[1:] / gap[:-1],
                (1 - 2 * t * (1 + sign * 2 * rho)) ** 2,
                rtol=1e-9,
            )
        )
    return claims.Outcome(
        checks=checks,
        picture=picture,
        data={
            "steps": checkpoints,
            "curves": found,
            "slopes": slopes,
            "published": published,
            "ours": ours,
        },
    )


def _coefficients(smoothness: float) -> tuple[float, float]:
    return (
        khanh.relative_error_step_size(smoothness, NU, delta=0.1),
        khanh.unnormalized_radius(smoothness, NU),
    )
