"""Remark G.2: convergence with a radius that does not tend to 0."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from sam_jax import schedules
from sam_jax.theory import descent, problems

CLAIM = claims.Claim(
    title="SAM converges although its radius keeps returning to C",
    source="Khanh et al. 2024, Remark G.2",
    statement="""Condition (11) does not make rho_k tend to 0: with t_k = 1/k,
**rho_k = C on the perfect squares**, C < 2/L, and C/k^p otherwise,
sum t_k rho_k < inf although limsup rho_k = C. The gradient still tends to 0 (Corollary
3.5).""",
    recipe="""p = 1: partial sums over 10^6 terms; SAM on (xy - 1)^2 and on the saddle
(x^2 - y^2)/2 + y^4/4, C = 1/L, t_k = 2/(k + 2L), 10^5 steps, the gradient after each
step at a square and just before it.""",
    criterion="""The sum is C (pi^2/3 - pi^4/90) up to its tail (ours: sum over squares
1/n^2, over all others 1/k^2); rho = C at k = 10^6. The gradient norm after the last
squares is below 1e-3 of the first and at most 2 t_k L^2 C (ours: what a step with an
error L C from a stationary point leaves is t_k L C, times L). Contrast: in the last
half of the steps its median is at least ten times that of SAM with C/k on the squares,
too.""",
)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes 10^4 steps."""
    count = 10_000 if quick else 100_000
    squares = np.arange(2, int(count**0.5) + 1) ** 2
    # After k - 1 and k updates, k a square: before and after a step with radius C.
    checkpoints = np.unique(np.r_[0, squares - 1, squares])
    chosen = {"(xy - 1)^2": problems.hyperbola(), "saddle": problems.saddle()}

    @jax.jit
    def gradients() -> tuple[dict[str, jax.Array], ...]:
        def run(problem: problems.Problem, radius: optax.Schedule) -> jax.Array:
            return descent.descend(
                optax.chain(sam_jax.sam(radius), optax.sgd(_steps(problem))),
                descent.exact(problem),
                problem.start,
                checkpoints,
                record=lambda x: jnp.linalg.norm(problem.gradient(x)),
            ).recorded

        return tuple(
            {name: run(p, decay(1 / p.smoothness, 1.0)) for name, p in chosen.items()}
            for decay in (schedules.perfect_squares, schedules.power_decay)
        )

    norms, plain = jax.tree.map(np.asarray, gradients())
    after = np.isin(checkpoints, squares)
    late = after & (checkpoints >= count / 2)
    kept = [np.median(norms[name][late] / plain[name][late]) for name in chosen]
    ceilings = {
        name: 2
        * np.asarray(_steps(problem)(checkpoints[late] - 1))
        * problem.smoothness
        for name, problem in chosen.items()
    }
    k = np.arange(1, 10**6 + 1)
    radii = np.asarray(schedules.perfect_squares(1.0, 1.0)(jnp.asarray(k - 1)))
    sums = np.cumsum(radii / k)
    limit = np.pi**2 / 3 - np.pi**4 / 90
    # Beyond K: squares less than 1/(sqrt(K) - 1), others less than 1/K.
    tail = 1 / (10**3 - 1) + 1e-6

    picture, (left, right) = pictures.panels(2)
    seen = np.unique(np.r_[descent.geometric(10**6, 120)[1:], np.arange(1, 33) ** 2])
    left.plot(seen, radii[seen - 1], ".", label="rho_k / C")
    left.plot(seen, sums[seen - 1], label="sum of t_i rho_i / C")
    pictures.bound(left, None, limit, "its limit")
    left.set_ylim(1e-7, 20)
    pictures.log_log(left, "iteration k", "", "radius and condition (11)")
    for name, norm in norms.items():
        right.plot(checkpoints[after], norm[after], label=f"{name}, after squares")
    quiet = norms["(xy - 1)^2"][~after]
    right.plot(checkpoints[~after][1:], quiet[1:], ":", label="(xy - 1)^2, before")
    pictures.log_log(right, "iteration k", "||grad f||", "SAM")
    pictures.legends([left, right], loc="lower left")
    return claims.Outcome(
        checks=[
            claims.at_most(
                "last gradient norm / first, after a square",
                [norm[late][-1] / norm[0] for norm in norms.values()],
                1e-3,
            ),
            claims.at_most(
                "gradient norm after late squares / (2 t_k L^2 C)",
                [norms[name][late] / ceilings[name] for name in chosen],
                1.0,
            ),
            claims.at_least(
                "gradient norm after late squares, of that with C/k", kept, 10.0
            ),
            claims.close("sum of t_k rho_k / C", sums[-1], limit, atol=tail),
            claims.close("rho_k / C at k = 10^6", radii[-1], 1.0, atol=0),
            claims.at_most("rho_k / C at k = 10^6 - 1", radii[-2], 1.01e-6),
        ],
        picture=picture,
        data={
            "steps": checkpoints,
            "gradient": norms,
            "k": seen,
            "radius": radii[seen - 1],
            "sums": sums[seen - 1],
            "limit": limit,
        },
    )


def _steps(problem: problems.Problem) -> optax.Schedule:
    """2/(k + 2L): L t_k < 1 in every step, and fast enough for these curvatures."""
    decay = schedules.power_decay(2.0, 1.0)
    shift = int(np.ceil(2 * problem.smoothness))
    return lambda count: decay(count + shift)
