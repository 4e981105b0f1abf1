"""The plateau of full-gradient Unified SAM in closed form, far below the bound."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.theory import claims, pictures
from experiments.theory.oikonomou import _chains
from sam_jax.theory import descent, problems
from sam_jax.theory.step_sizes import unified

CLAIM = claims.Claim(
    title="On a quadratic Unified SAM ends in a 2-cycle of O((gamma lambda rho)^2)",
    source="ours, on Oikonomou and Loizou 2025, Corollary 3.4",
    statement="""Derived: on a quadratic with full gradients the gap ends at
**(L/2) c^2, c = gamma L rho lambda / (2 - gamma L (1 + L rho (1 - lambda)))**. This is
of second order in lambda rho; the term of the corollary, N =
(L / mu) lambda^2 rho (1 + 2 gamma L^2 rho), is of first order in rho and lies above.
A cycle along a lower eigenvector exists too: a run whose top coordinate underflows to
zero on the way stays in that one.""",
    recipe="""Eigenvalues 0.1 and 10, 12,000 steps. From (0.1, 0.1) with rho*/2 and
gamma*, lambda = 0, 0.5, 1; from (1, 1) the same; from (0, 0.1) lambda = 0.25, 0.5, 1,
rho = s rho*, gamma = r gamma*(rho) for s = 0.1, 0.5, 0.9 and r = 0.5, 1.""",
    criterion="""The last gap is the closed form to 1e-6 wherever lambda > 0 and N is
not below it; lambda = 0 ends below 1e-25; from (1, 1) lambda = 0.5 ends in the cycle of
the lower eigenvector.""",
)

LAMS, SHARES, FRACTIONS = (0.25, 0.5, 1.0), (0.1, 0.5, 0.9), (0.5, 1.0)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    problem = problems.quadratic([0.1, 10.0], [0.1, 0.1])
    known = unified.deterministic(problem)
    checkpoints = descent.geometric(12_000, 80)

    def rule(lam: float, share: float, fraction: float) -> unified.Rule:
        rho = share * unified.largest_radius(known, lam)
        return unified.Rule(rho, fraction * unified.largest_step_size(known, lam, rho))

    usual = [(lam, unified.default(known, lam)) for lam in (0.0, 0.5, 1.0)]
    grid = [(s[0], rule(*s)) for s in itertools.product(LAMS, SHARES, FRACTIONS)]
    starts = [problem.start, np.ones(2), np.array([0.0, 0.1])]
    runs = [(start, s) for start in starts[:2] for s in usual]
    runs += [(starts[2], s) for s in grid]

    @jax.jit
    @jax.vmap
    def descend(start: jax.Array, setting: tuple[jax.Array, unified.Rule]) -> jax.Array:
        return descent.descend(
            _chains.chain(*setting),
            descent.exact(problem),
            start,
            checkpoints,
            record=problem.gap,
        ).recorded

    gaps = np.asarray(descend(*jax.tree.map(lambda *v: jnp.asarray(v), *runs)))
    near, far, ends = gaps[:3], gaps[3:6], gaps[6:, -1]
    plateaus = np.array([unified.two_cycle(known.L, *setting) for setting in grid])
    floors = np.array([unified.floor(known, *setting) for setting in grid])
    predicted = [unified.two_cycle(known.L, *setting) for setting in usual]

    picture, (left, right) = pictures.panels(2)
    for (lam, _), curve, plateau in zip(usual, near, predicted, strict=True):
        left.plot(checkpoints[1:], curve[1:], label=f"lambda = {lam:g}")
        if lam:
            pictures.bound(left, None, plateau, "closed form" if lam == 1 else "")
    left.plot(checkpoints[1:], far[1, 1:], ":", label="lambda = 0.5 from (1, 1)")
    left.set_ylim(1e-19, 30)
    pictures.log_log(left, "iteration", "f(x) - f*", "rho = rho*/2, gamma = gamma*")
    right.plot(plateaus, ends, "o", label="measured")
    right.plot(plateaus, floors, "s", label="N of the theorem")
    pictures.bound(right, np.sort(plateaus), np.sort(plateaus), "closed form")
    pictures.log_log(right, "(L/2) c^2", "f(x) - f*", "12,000 steps, all settings")
    pictures.legends([left], loc="lower left")
    pictures.legends([right])
    return claims.Outcome(
        checks=[
            claims.close("gap, lambda = 1", near[2, -1], predicted[2], rtol=1e-6),
            claims.close("gap, lambda = 0.5", near[1, -1], predicted[1], rtol=1e-6),
            claims.close(
                "gap / closed form, all of the grid", ends / plateaus, 1.0, rtol=1e-6
            ),
            claims.at_most("gap, lambda = 0", near[0, -1], 1e-25),
            claims.at_most("closed form against N", plateaus, floors),
            claims.close(
                "gap from (1, 1), lambda = 0.5: the other cycle",
                far[1, -1],
                unified.two_cycle(known.mu, *usual[1]),
                rtol=1e-6,
            ),
        ],
        picture=picture,
        data={
            "steps": checkpoints,
            "gap": near,
            "gap_from_ones": far,
            "predicted": predicted,
            "grid": grid,
            "grid_last_gap": ends,
            "grid_predicted": plateaus,
            "grid_floor": floors,
        },
    )
