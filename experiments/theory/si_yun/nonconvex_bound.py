"""Theorem 3.4: deterministic, non-convex: O(1/T) and a floor of order rho^2."""

import dataclasses

import jax
import numpy as np

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import descent, finite_sums, problems, step_sizes
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="Non-convex, deterministic: mean ||grad f||^2 <= O(1/T) + beta^2 rho^2",
    source="Si and Yun 2023, Theorem 3.4 and Table 1",
    statement=r"""For every $\beta$-smooth function bounded from below and
$\eta \le 1/\beta$ (unverified, and derived):

$$
\frac1T \sum_{t<T} \|\nabla f(x_t)\|^2 \le \frac{2 \Delta}{\eta T} + \beta^2 \rho^2.
$$""",
    recipe="""Three non-convex functions: log(1 + r^2) residuals in 4 dimensions,
z^2/(1 + z^2) residuals of 12 examples in 4, and the stalling sinusoid of radius rho =
0.3; rho = 0.03, 0.1, 0.3, 1 and eta = 1/beta, 0.3/beta; 3,000 steps (1,000 in the short
form).""",
    criterion="""The bound holds at every checkpoint of every run. On the sinusoid with
the radius 0.3 for which it is made, the mean stays above 0.0273 beta^2 rho^2, so the
bound needs its floor.""",
)

RHOS = (0.03, 0.1, 0.3, 1.0)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes fewer steps."""
    chosen = _problems()
    problem, names = list(chosen.values()), list(chosen)
    checkpoints = descent.geometric(1_000 if quick else 3_000, 40)[1:]
    which, share, rho = np.meshgrid(range(3), [1.0, 0.3], RHOS, indexing="ij")
    known = [step_sizes.Constants(0.0, p.smoothness) for p in problem]
    eta = share * np.array([si_yun.nonconvex(k) for k in known])[which]

    def descend(index: jax.Array, rho: jax.Array, eta: jax.Array) -> jax.Array:
        member = runs.one_of(problem, index)
        squared, method = member.squared_gradient, sam_jax.sam(rho)
        return runs.descend(member, method, eta, checkpoints, mean_of=squared).means

    found = runs.each(descend, which, rho, eta).reshape(3, 8, -1)
    bound = np.array(
        [
            [
                si_yun.nonconvex_bound(
                    known[i],
                    step_sizes.Rule(*rule),
                    runs.first_gap(problem[i]),
                    checkpoints,
                )
                for rule in zip(rho[i].flat, eta[i].flat, strict=True)
            ]
            for i in range(3)
        ]
    )
    means, bounds = (dict(zip(names, a, strict=True)) for a in (found, bound))
    stall = 0.3**2 * float(si_yun.stall_gradient()) ** 2
    data = {"checkpoint": checkpoints, "rho": rho.ravel(), "eta": eta.ravel()}
    data |= {"mean": means, "bound": bounds}
    checks = claims.Checks()
    checks.at_most("mean ||grad f||^2: its bound", found, bound)
    for name in names:
        checks.at_most(f"mean, {name}", means[name], bounds[name])
    checks.at_least("mean, sinusoid, rho = 0.3", means["sinusoid"][2], stall)
    picture = pictures.row(
        data
        | {"mean": {name: of[:4] for name, of in means.items()}}
        | {"bound": {name: of[:4] for name, of in bounds.items()}},
        {name: f"{name}, eta = 1/beta" for name in names},
        "checkpoint",
        "mean",
        "bound",
        by="rho",
        label="mean ||grad f||^2",
    )
    return claims.Outcome(checks, picture, data)


def _problems() -> dict[str, problems.Problem]:
    generator = np.random.default_rng(1)
    wave = problems.sinusoid(1.0, 0.3, 0.02)
    return {
        "log residuals": problems.log_residuals(
            generator.normal(size=(4, 4)), generator.normal(size=4), np.full(4, 2.0)
        ),
        "bounded residuals": finite_sums.bounded_residuals(
            generator.normal(size=(12, 4)), generator.normal(size=12)
        ),
        # On the line, but all three run in one compiled call.
        "sinusoid": dataclasses.replace(
            wave, value=lambda x: wave.value(x[:1]), start=np.r_[wave.start, 0, 0, 0]
        ),
    }
