"""Theorem 4.1: stochastic SAM reaches a neighbourhood of size rho^2 at the rate 1/T."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from experiments.theory import claims, pictures
from experiments.theory.si_yun import _chains
from sam_jax.theory import descent, finite_sums, step_sizes
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="Strongly convex, stochastic: E f(x_T) - f* <= O~(1/T) + O(rho^2)",
    source="Si and Yun 2023, Theorems 4.1, 4.2 and Table 1",
    statement="""With the step size of the rule stochastic SAM reaches a neighbourhood
of the optimum, O~(exp(-T) + [sigma^2 - beta^2 rho^2]_+/T) + O(rho^2), in both forms,
n-SAM and m-SAM (as recalled). Derived, for mu-PL functions and eta <= 1/beta: **E
f(x_T) - f* <= (1 - mu eta)^T Delta + beta^2 rho^2 max(1, 2 beta eta)/(2 mu) + beta eta
sigma^2/mu**.
The floor is real for m-SAM: a rho^2/18 on parabolas with the centers (-1, -1, 2).""",
    recipe="""Those parabolas, a = 1, rho = 0.3, start 1; sigma^2 = 2 exactly; T from
100 to 10,000 (3,000 in the short form), eta(T) by the rule; 200 chains of m-SAM, n-SAM
and SGD (100).""",
    criterion="""Mean gaps plus 3 standard errors are below the bound at every
checkpoint; at the largest T m-SAM is within 4 standard errors of its closed form, above
the floor, n-SAM and SGD below it.""",
)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` has smaller horizons and fewer chains."""
    problem, rho = finite_sums.parabolas([-1.0, -1.0, 2.0]), 0.3
    gap = float(problem.gap(jnp.asarray(problem.start)))
    known = step_sizes.Constants(1.0, 1.0, variance=2.0)
    horizons = np.geomspace(100, 3_000 if quick else 10_000, 5).round().astype(int)
    checkpoints = np.union1d(descent.geometric(horizons[-1], 40)[1:], horizons)
    at_end = np.searchsorted(checkpoints, horizons)

    def etas(radius: float) -> np.ndarray:
        return np.array(
            [
                si_yun.stochastic_strongly_convex(known, radius, gap, int(t))
                for t in horizons
            ]
        )

    radii = {"m-SAM": rho, "SGD": 0.0, "n-SAM": rho}
    estimate, _ = _chains.sam_chains(
        problem,
        problem.start,
        np.repeat([0.0, 0.0, 1.0], len(horizons)),
        np.repeat(list(radii.values()), len(horizons)),
        np.concatenate([etas(radius) for radius in radii.values()]),
        checkpoints,
        chains=100 if quick else 200,
        record=problem.gap,
    )
    mean, error = (
        dict(zip(radii, a.reshape(3, len(horizons), -1), strict=True)) for a in estimate
    )
    bound = {
        name: si_yun.stochastic_strongly_convex_bound(
            known, step_sizes.Rule(radius, etas(radius)[:, None]), gap, checkpoints
        )
        for name, radius in radii.items()
    }
    mean_x, variance = si_yun.stationary_moments(
        etas(rho)[-1], centers=[-1.0, -1.0, 2.0], curvatures=[1.0] * 3, rho=rho
    )
    floor = rho**2 / 18

    def final(values: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        return values[name][np.arange(5), at_end]

    picture, (left, right) = pictures.panels(2)
    for i, name in enumerate(mean):
        left.errorbar(
            horizons,
            final(mean, name),
            3 * final(error, name),
            fmt="os^"[i] + "-",
            label=name,
        )
        right.plot(checkpoints, mean[name][-1], label=name)
    pictures.bound(left, horizons, final(bound, "m-SAM"), "bound")
    pictures.bound(right, checkpoints, bound["m-SAM"][-1], "bound")
    for panel in (left, right):
        panel.axhline(floor, color="k", ls=":", lw=1, label="a rho^2/18")
    pictures.log_log(left, "horizon T", "E f(x_T) - f*", "eta(T) by the rule")
    title = f"the run with T = {horizons[-1]:,}"
    pictures.log_log(right, "iteration t", "E f(x_t) - f*", title)
    pictures.legends([left], loc="lower left")
    return claims.Outcome(
        checks=[
            claims.close(
                f"gap of m-SAM at T = {horizons[-1]:,}",
                final(mean, "m-SAM")[-1],
                (mean_x**2 + variance) / 2,
                atol=4 * float(final(error, "m-SAM")[-1]),
            ),
            *[
                claims.at_most(
                    f"gap + 3 s.e., {name}", mean[name] + 3 * error[name], bound[name]
                )
                for name in mean
            ],
            claims.at_least(
                "gap of m-SAM at the largest T", final(mean, "m-SAM")[-1], floor
            ),
            *[
                claims.at_most(
                    f"gap of {name} at the largest T", final(mean, name)[-1], floor
                )
                for name in ("SGD", "n-SAM")
            ],
        ],
        picture=picture,
        data={
            "horizon": horizons,
            "checkpoint": checkpoints,
            "mean": mean,
            "standard_error": error,
            "bound": bound,
        },
    )
