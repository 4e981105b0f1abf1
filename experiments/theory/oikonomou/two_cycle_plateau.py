"""The plateau of full-gradient Unified SAM in closed form, far below the bound."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import descent, problems
from sam_jax.theory.step_sizes import unified

CLAIM = claims.Claim(
    title="On a quadratic Unified SAM ends in a 2-cycle of O((gamma lambda rho)^2)",
    source="ours, on Oikonomou and Loizou 2025, Corollary 3.4",
    statement=r"""Derived: on a quadratic with full gradients the gap ends at

$$
\frac L2 c^2, \qquad
c = \frac{\gamma L \rho \lambda}{2 - \gamma L (1 + L \rho (1 - \lambda))}.
$$

This is of second order in $\lambda \rho$. The term of the corollary,
$N = (L / \mu) \lambda^2 \rho (1 + 2 \gamma L^2 \rho)$, is of first order in $\rho$ and
larger. A cycle along a lower eigenvector also exists: a run whose top coordinate
underflows to zero on the way stays in it.""",
    recipe="""Eigenvalues 0.1 and 10, 12,000 steps. From (0.1, 0.1) with rho*/2 and
gamma*, lambda = 0, 0.5, 1; from (1, 1) the same; from (0, 0.1) lambda = 0.25, 0.5, 1,
rho = s rho*, gamma = r gamma*(rho) for s = 0.1, 0.5, 0.9 and r = 0.5, 1.""",
    criterion="""Wherever lambda > 0 the last gap is the closed form to 1e-6, and N is
not below it; but from (1, 1) lambda = 0.5 ends in the cycle of the lower eigenvector.
lambda = 0 ends below 1e-25.""",
)

LAMS, SHARES, FRACTIONS = (0.25, 0.5, 1.0), (0.1, 0.5, 0.9), (0.5, 1.0)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    problem = problems.quadratic([0.1, 10.0], [0.1, 0.1])
    known, checkpoints = unified.deterministic(problem), descent.geometric(12_000, 80)

    def rule(lam: float, share: float, fraction: float) -> unified.Rule:
        rho = share * unified.largest_radius(known, lam)
        return unified.Rule(rho, fraction * unified.largest_step_size(known, lam, rho))

    usual = [(lam, unified.default(known, lam)) for lam in (0.0, 0.5, 1.0)]
    grid = [(s[0], rule(*s)) for s in itertools.product(LAMS, SHARES, FRACTIONS)]
    starts = [problem.start] * 3 + [np.ones(2)] * 3 + [np.array([0.0, 0.1])] * len(grid)

    def descend(i: jax.Array, lam: jax.Array, rho: jax.Array, gamma: jax.Array):
        method = sam_jax.unified_sam(rho, lam=lam)
        start = jnp.asarray(np.stack(starts))[i]
        return runs.descend(
            problem, method, gamma, checkpoints, problem.gap, start=start
        ).recorded

    flat = np.array([(lam, *rule) for lam, rule in usual * 2 + grid]).T
    gaps = runs.each(descend, np.arange(len(starts)), *flat)
    near, far, ends = gaps[:3], gaps[3:6], gaps[6:, -1]
    plateaus = np.array([unified.two_cycle(known.L, *setting) for setting in grid])
    floors = np.array([unified.floor(known, *setting) for setting in grid])
    predicted = [unified.two_cycle(known.L, *setting) for setting in usual]
    lower = unified.two_cycle(known.mu, *usual[1])
    data = {"steps": checkpoints, "gap": near, "gap_from_ones": far}
    data |= {"predicted": predicted, "grid": grid, "grid_last_gap": ends}
    data |= {"grid_predicted": plateaus, "grid_floor": floors}
    checks = claims.Checks()
    checks.close("gap, lambda = 1", near[2, -1], predicted[2], rtol=1e-6)
    checks.close("gap, lambda = 0.5", near[1, -1], predicted[1], rtol=1e-6)
    checks.close("gap / closed form, all of the grid", ends / plateaus, 1.0, rtol=1e-6)
    checks.at_most("gap, lambda = 0", near[0, -1], 1e-25)
    checks.close("gap from (1, 1), lambda = 1", far[2, -1], predicted[2], rtol=1e-6)
    checks.at_most("gap from (1, 1), lambda = 0", far[0, -1], 1e-25)
    checks.at_most("closed form: N", plateaus, floors)
    checks.close(
        "gap from (1, 1), lambda = 0.5: the other cycle", far[1, -1], lower, rtol=1e-6
    )
    picture = pictures.draw(
        data | {"lambda": [0.0, 0.5, 1.0], "lambda = 0.5 from (1, 1)": far[1]},
        pictures.Panel(
            "steps",
            ("gap", "lambda = 0.5 from (1, 1)"),
            "predicted",
            by="lambda",
            ylim=(1e-19, 30),
        ),
        pictures.Panel("grid_predicted", ("grid_last_gap", "grid_floor")),
    )
    return claims.Outcome(checks, picture, data)
