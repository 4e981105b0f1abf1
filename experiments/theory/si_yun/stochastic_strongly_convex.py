"""Theorem 4.1: stochastic SAM reaches a neighbourhood of size rho^2 at the rate 1/T."""

import functools

import numpy as np

from experiments.theory import claims, pictures, runs
from sam_jax.theory import finite_sums, step_sizes
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="Strongly convex, stochastic: E f(x_T) - f* <= O~(1/T) + O(rho^2)",
    source="Si and Yun 2023, Theorems 4.1, 4.2 and Table 1",
    statement=r"""With the rule's step size, stochastic SAM in both forms, n-SAM and
m-SAM, reaches a neighbourhood of the optimum,
$\tilde O(e^{-T} + [\sigma^2 - \beta^2 \rho^2]_+/T) + O(\rho^2)$ (unverified). Derived,
for $\mu$-PL functions and $\eta \le 1/\beta$:

$$
\mathrm E f(x_T) - f^* \le (1 - \mu \eta)^T \Delta
+ \frac{\beta^2 \rho^2 \max(1, 2 \beta \eta)}{2 \mu} + \frac{\beta \eta \sigma^2}{\mu}.
$$

m-SAM does have a floor: $a \rho^2/18$ on parabolas with the centers $(-1, -1, 2)$.""",
    recipe="""These parabolas, a = 1, rho = 0.3, start 1; sigma^2 = 2 exactly; T from
100 to 10,000 (3,000 in the short form), eta(T) by the rule; 200 chains of m-SAM, n-SAM
and SGD (100).""",
    criterion="""Mean gaps plus 3 standard errors are below the bound at every
checkpoint. At the largest T the gap of m-SAM is within 4 standard errors of its closed
form and above the floor; n-SAM and SGD are below the floor.""",
)

RADII = {"m-SAM": 0.3, "SGD": 0.0, "n-SAM": 0.3}
CENTERS, FLOOR = [-1.0, -1.0, 2.0], 0.3**2 / 18
KNOWN = step_sizes.Constants(1.0, 1.0, variance=2.0)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` has smaller horizons and fewer chains."""
    problem = finite_sums.parabolas(CENTERS)
    gap = runs.first_gap(problem)
    horizons = runs.horizons(100, 3_000 if quick else 10_000, 5, 40)
    ends, checkpoints = horizons
    rule = functools.partial(si_yun.stochastic_strongly_convex, KNOWN)
    # [method, horizon]
    etas = np.array([[rule(r, gap, int(t)) for t in ends] for r in RADII.values()])
    radii = np.array(list(RADII.values()))[:, None]
    found = runs.sam_chains(
        problem,
        problem.start,
        np.array([0.0, 0.0, 1.0])[:, None],
        radii,
        etas,
        checkpoints,
        chains=100 if quick else 200,
        record=problem.gap,
    )
    bounds = [
        si_yun.stochastic_strongly_convex_bound(
            KNOWN, step_sizes.Rule(float(r[0]), eta[:, None]), gap, checkpoints
        )
        for r, eta in zip(radii, etas, strict=True)
    ]
    mean_x, variance = si_yun.stationary_moments(
        etas[0, -1], centers=CENTERS, curvatures=[1.0] * 3, rho=0.3
    )
    parts = {"mean": found.mean, "standard_error": found.error, "bound": bounds}
    data = {"horizon": ends, "checkpoint": checkpoints}
    data |= {key: dict(zip(RADII, of, strict=True)) for key, of in parts.items()}
    last, error = horizons.last(found.mean), horizons.last(found.error)
    closed, tolerance = (mean_x**2 + variance) / 2, 4 * float(error[0, -1])
    checks = claims.Checks()
    checks.close(
        f"gap of m-SAM at T = {ends[-1]:,}", last[0, -1], closed, atol=tolerance
    )
    for name, high, bound in zip(RADII, found.high, bounds, strict=True):
        checks.at_most(f"gap + 3 s.e., {name}", high, bound)
    checks.at_least("gap of m-SAM at the largest T", last[0, -1], FLOOR)
    for i, name in ((1, "SGD"), (2, "n-SAM")):
        checks.at_most(f"gap of {name} at the largest T", last[i, -1], FLOOR)
    picture = pictures.draw(
        data
        | {"E f(x_T) - f*": dict(zip(RADII, last, strict=True))}
        | {"E f(x_t) - f*": dict(zip(RADII, found.mean[:, -1], strict=True))}
        | {"bound of m-SAM": bounds[0][-1], "a rho^2/18": FLOOR},
        pictures.Panel("horizon", "E f(x_T) - f*", "a rho^2/18"),
        pictures.Panel("checkpoint", "E f(x_t) - f*", ("bound of m-SAM", "a rho^2/18")),
    )
    return claims.Outcome(checks, picture, data)
