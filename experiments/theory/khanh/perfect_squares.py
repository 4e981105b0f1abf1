"""Remark G.2: convergence with a radius that does not tend to 0."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures, runs
from experiments.theory.khanh import _methods
from sam_jax import schedules
from sam_jax.theory import descent, problems

CLAIM = claims.Claim(
    title="SAM converges although its radius keeps returning to C",
    source="Khanh et al. 2024, Remark G.2",
    statement=r"""Condition (11) does not force $\rho_k$ to 0. With $t_k = 1/k$,
let $\rho_k = C < 2/L$ on the perfect squares and $C/k^p$ otherwise:
$\sum t_k \rho_k < \infty$ although $\limsup \rho_k = C$. The gradient still tends to 0
(Corollary 3.5).""",
    recipe="""p = 1: partial sums over 10^6 terms; SAM on (xy - 1)^2 and on the saddle
(x^2 - y^2)/2 + y^4/4, C = 1/L, t_k = 2/(k + 2L), 10^5 steps, the gradient after each
step at a square and just before it.""",
    criterion="""The sum is C (pi^2/3 - pi^4/90) up to its tail (ours: the sum of 1/n^2
over the squares and of 1/k^2 over all other k); rho = C at k = 10^6. The gradient norm
after the last squares is below 1e-3 of the first and at most 2 t_k L^2 C (ours: from a
stationary point, a step with the error L C moves x by t_k L C, and the gradient by at
most L times that). Contrast: in the last half of the steps its median is at least ten
times that of SAM with rho_k = C/k also on the squares. F-SAM, whose perturbations keep
their direction, has on the saddle, before the last square, at most 0.05 of its gradient
norm with rho_k = C, which violates (11).""",
    survivors={"tripled": "sum t_k rho_k stays finite; C < 2/L is not needed here"},
)

CHOSEN = {"(xy - 1)^2": problems.hyperbola(), "saddle": problems.saddle()}


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes 10^4 steps."""
    count = 10_000 if quick else 100_000
    squares = np.arange(2, int(count**0.5) + 1) ** 2
    # After k - 1 and k updates, k a square: before and after a step with radius C.
    checkpoints = np.unique(np.r_[0, squares - 1, squares])

    def gradient(
        problem: problems.Problem,
        decay: Callable[..., Any],
        make: _methods.Make = sam_jax.sam,
    ) -> jax.Array:
        return runs.descend(
            problem,
            make(decay(1 / problem.smoothness, 1.0)),
            _steps(problem),
            checkpoints,
            lambda x: jnp.linalg.norm(problem.gradient(x)),
        ).recorded

    squared, decaying = schedules.perfect_squares, schedules.power_decay
    norms, plain, friendly = runs.once(
        lambda: [
            {name: gradient(problem, squared) for name, problem in CHOSEN.items()},
            {name: gradient(problem, decaying) for name, problem in CHOSEN.items()},
            [
                gradient(CHOSEN["saddle"], decay, _methods.NORMALIZED["F-SAM"])
                for decay in (squared, lambda radius, power: radius)
            ],
        ]
    )
    share = friendly[0][-2] / friendly[1][-2]  # before the last square
    after = np.isin(checkpoints, squares)
    late = after & (checkpoints >= count / 2)
    kept = [np.median(norms[name][late] / plain[name][late]) for name in CHOSEN]
    falls = [norm[late][-1] / norm[0] for norm in norms.values()]
    shares = []
    for name, p in CHOSEN.items():
        ceiling = 2 * np.asarray(_steps(p)(checkpoints[late] - 1)) * p.smoothness
        shares.append(norms[name][late] / ceiling)
    of_schedule, more = _schedule()
    data = {"steps": checkpoints, "gradient": norms} | more
    checks = claims.Checks()
    checks.at_most("last gradient norm / first, after a square", falls, 1e-3)
    checks.at_most("gradient norm after late squares / (2 t_k L^2 C)", shares, 1.0)
    checks.at_least("gradient norm after late squares, of that with C/k", kept, 10.0)
    checks.at_most(
        "F-SAM, saddle: gradient norm before the last square, of that with C",
        share,
        0.05,
    )
    checks += of_schedule
    picture = pictures.draw(
        data,
        pictures.Panel("k", ("radius", "sums"), "limit", "rho_k / C and (11)"),
        pictures.Panel("steps", "gradient", title="SAM"),
    )
    return claims.Outcome(checks, picture, data)


def _schedule() -> tuple[list[claims.Check], dict[str, Any]]:
    """The radii themselves, and condition (11)."""
    k = np.arange(1, 10**6 + 1)
    radii = np.asarray(schedules.perfect_squares(1.0, 1.0)(jnp.asarray(k - 1)))
    sums, limit = np.cumsum(radii / k), np.pi**2 / 3 - np.pi**4 / 90
    # Beyond K: squares less than 1/(sqrt(K) - 1), others less than 1/K.
    tail = 1 / (10**3 - 1) + 1e-6
    seen = np.unique(np.r_[descent.geometric(10**6, 120)[1:], np.arange(1, 33) ** 2])
    data = {"k": seen, "radius": radii[seen - 1], "sums": sums[seen - 1]}
    return [
        claims.close("sum of t_k rho_k / C", sums[-1], limit, atol=tail),
        claims.close("rho_k / C at k = 10^6", radii[-1], 1.0, atol=0),
        claims.at_most("rho_k / C at k = 10^6 - 1", radii[-2], 1.01e-6),
    ], data | {"limit": limit}


def _steps(problem: problems.Problem) -> optax.Schedule:
    """2/(k + 2L): L t_k < 1 in every step, and fast enough for these curvatures."""
    decay = schedules.power_decay(2.0, 1.0)
    shift = int(np.ceil(2 * problem.smoothness))
    return lambda count: decay(count + shift)
