"""Theorem 4.1 (v): polynomial rates at flat minima."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from matplotlib import figure

from experiments.theory import claims, pictures, runs
from experiments.theory.khanh import _methods
from sam_jax.theory import descent, problems
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="KL rates: USAM and extragradient are slower at flatter minima",
    source="Khanh et al. 2024, Theorem 4.1 (v)",
    statement=r"""With step sizes bounded away from 0 and the KL function
$\varphi(t) = M t^{1-q}$, $q \in (1/2, 1)$,

$$
\|x_k - x^*\|, \|\nabla f(x_k)\| = O\!\left(k^{-\frac{1-q}{2q-1}}\right), \qquad
f(x_k) - f^* = O\!\left(k^{-\frac{2-2q}{2q-1}}\right);
$$

for $q \le 1/2$ the convergence is linear. $f(x) = |x|^p$ has $q = 1 - 1/p$: the
exponents are $1/(p - 2)$ and $2/(p - 2)$. The exponent of the distance is attained. The
gradient and the gap decay faster on $|x|^p$, with the exponents $(p - 1)/(p - 2)$ and
$p/(p - 2)$ (ours: $x' = -t p x^{p-1}$).""",
    recipe="""f(x) = |x|^p, p = 3, 4, 6, x_1 = 0.6, nu = 0.5, rho = nu/L,
t = (2 - 2nu - 0.1)/(L (1 + nu)^2), 10^5 steps; slopes over the last decade; p = 2 for
the linear rate.""",
    criterion="""The exponent of the distance is within 1 % of the published one. Those
of the gradient and the gap are at least the published ones and within 1 % of ours. For
p = 2 the gap falls by the same factor in every step, the square of 1 - 2t(1 + 2 rho)
for USAM and of 1 - 2t(1 - 2 rho) for extragradient.""",
)

EXPONENTS, METHODS = (3.0, 4.0, 6.0), tuple(_methods.UNNORMALIZED)
NU = 0.5
KEYS = ("distance", "gradient", "gap")


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    checkpoints = descent.geometric(100_000)
    found = runs.once(
        lambda: {
            f"{name}, p = {p:g}": _descend(
                name, p, np.arange(21) if p == 2 else checkpoints
            )
            for name in METHODS
            for p in (2.0, *EXPONENTS)
        }
    )
    late = checkpoints >= checkpoints[-1] / 10
    slopes, published, ours = ({key: [] for key in KEYS} for _ in range(3))
    for p, name in itertools.product(EXPONENTS, METHODS):
        rates = khanh.kl_rates(khanh.power_kl_exponent(p))
        for key, rate, powers in zip(KEYS, rates, (1, p - 1, p), strict=True):
            curve = found[f"{name}, p = {p:g}"][key][late]
            fit = np.polyfit(np.log(checkpoints[late]), np.log(curve), 1)
            slopes[key].append(-float(fit[0]))
            published[key].append(rate)
            ours[key].append(powers / (p - 2))
    checks = claims.Checks()
    for i, (p, name) in enumerate(itertools.product(EXPONENTS, METHODS)):
        what = f"p = {p:g}, {name}: exponent of the distance"
        checks.close(what, slopes["distance"][i], published["distance"][i], rtol=0.01)
    for key in ("gradient", "gap"):
        what, slope = f"exponent of the {key}", slopes[key]
        checks.at_least(what, slope, published[key])
        checks.close(f"{what}, ours", slope, ours[key], rtol=0.01)
    t, rho = _coefficients(_problem(2.0).smoothness)
    for name, sign in zip(METHODS, (1, -1), strict=True):
        gap = found[f"{name}, p = 2"]["gap"]
        factor = (1 - 2 * t * (1 + sign * 2 * rho)) ** 2
        what = f"p = 2, {name}: factor of the gap"
        checks.close(what, gap[1:] / gap[:-1], factor, rtol=1e-9)
    data = {"steps": checkpoints, "curves": found, "slopes": slopes}
    data |= {"published": published, "ours": ours}
    return claims.Outcome(checks, _picture(data), data)


def _problem(exponent: float) -> problems.Problem:
    # The perturbed points stay within radius 1, where L = p (p - 1).
    return dataclasses.replace(problems.power(exponent), start=np.array([0.6]))


def _coefficients(smoothness: float) -> tuple[float, float]:
    return (
        khanh.relative_error_step_size(smoothness, NU, delta=0.1),
        khanh.unnormalized_radius(smoothness, NU),
    )


def _descend(name: str, exponent: float, checkpoints: np.ndarray) -> Any:
    problem = _problem(exponent)
    t, rho = _coefficients(problem.smoothness)

    def measure(x: jax.Array) -> dict[str, jax.Array]:
        slope = abs(problem.gradient(x)[0])
        return {"distance": abs(x[0]), "gradient": slope, "gap": problem.gap(x)}

    method = _methods.UNNORMALIZED[name](rho)
    return runs.descend(problem, method, t, checkpoints, measure).recorded


def _picture(data: Mapping[str, Any]) -> figure.Figure:
    """USAM's curves, and the published exponents' from 100 steps on."""
    steps = data["steps"]
    seen = np.where(steps >= 100, steps / 100.0, np.nan)
    first = int(np.argmax(steps >= 100))
    shown: dict[str, Any] = {"iteration k": steps, "curve": {}, "published": {}}
    for key in KEYS:
        of = {f"p = {p:g}": data["curves"][f"USAM, p = {p:g}"][key] for p in EXPONENTS}
        rates = data["published"][key][:: len(METHODS)]
        shown["curve"][key] = of
        shown["published"][key] = {
            label: curve[first] * (seen / seen[first]) ** -rate
            for (label, curve), rate in zip(of.items(), rates, strict=True)
        }
    names = zip(KEYS, ("|x_k|", "|f'(x_k)|", "f(x_k)"), strict=True)
    titles = {key: f"{label}, USAM" for key, label in names}
    return pictures.row(shown, titles, "iteration k", "curve", "published")
