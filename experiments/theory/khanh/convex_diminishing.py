"""Theorem 3.2: diminishing step sizes, constant radius, convex functions."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax import schedules
from sam_jax.theory import descent, finite_sums, problems
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="Convex functions: diminishing step sizes allow a constant radius",
    source="Khanh et al. 2024, Theorem 3.2",
    statement=r"""Let $f$ be convex with Lipschitz gradient, $\sum t_k = \infty$,
$\sum t_k^2 < \infty$ and $\sup \rho_k < \infty$. Then $\liminf \|\nabla f(x_k)\| = 0$,
and with a bounded level set $f(x_k) \to \min f$. Derived, by summing the descent
inequality for $L t_k \le 1$:

$$
\min_{k \le N} \|\nabla f(x_k)\|^2 \le
\frac{2 (f(x_1) - f^*) + L^3 \rho^2 \sum t_k^2}{\sum t_k},
$$

which tends to 0. A constant step size leaves SAM at its 2-cycle.""",
    recipe="""A quadratic (1, 2); the valley (x_1 + x_2 - 1)^2/2 with unbounded level
sets; |x|^4, flat; logistic regression on separable data, which has no minimum.
rho = 0.1; t_1 = 1/L, times 1/k, k^-0.5001 and 1/(m log m), m = floor(k/5) + 2
("Diminish 1, 2, 3", here per step); 10^5 steps; constant t for contrast.""",
    criterion="""The smallest recorded squared gradient norm obeys the derived bound at
every checkpoint. On the three functions with a minimum the last gap is at most 0.1 of
the first (ours; the partial sums of Diminish 3 grow like log log). With k^-0.5001 SAM
on the quadratic follows the cycle t_k rho l/(2 - t_k l) of its current step size to 1 %
(ours). With constant t the distance on the quadratic stays t rho l/(2 - t l), and the
smallest squared gradient norm exceeds the bound without its rho term.""",
)

RADIUS = 0.1
NAMES = ("1/k", "k^-0.5001", "1/(m log m)", "constant")


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes 10^4 steps."""
    count = 10_000 if quick else 100_000
    checkpoints, chosen = descent.geometric(count), _problems()
    found = _descend(chosen, checkpoints)
    unit = [
        np.asarray(schedule(jnp.arange(count)))
        for schedule in (
            schedules.power_decay(1.0, 1.0),
            schedules.power_decay(1.0, 0.5001),
            schedules.log_decay(1.0),
        )
    ]
    shares, bounds = [], {}
    for name, problem in chosen.items():
        for i, share in enumerate(unit):
            t = share / problem.smoothness
            total, squares = (np.cumsum(s)[checkpoints[1:] - 1] for s in (t, t**2))
            error = problem.smoothness**3 * RADIUS**2 * squares
            bounds[name, i] = (2 * found[name]["gap"][i, 0] + error) / total
            # Gradients at x_1 .. x_N: the last iterate itself is not among them.
            smallest = np.minimum.accumulate(found[name]["squared"][i])[:-1]
            shares.append((smallest / bounds[name, i]).max())
    falls = [
        found[name]["gap"][:3, -1] / found[name]["gap"][:3, 0]
        for name in ("quadratic", "valley", "|x|^4")
    ]
    distance = np.linalg.norm(found["quadratic"]["x"], axis=-1)[:, -1]
    momentary = khanh.two_cycle(unit[1][count - 1] / 2, RADIUS, 2.0)
    data = {"steps": checkpoints, "schedules": NAMES}
    data["curves"] = {
        name: {"gap": recorded["gap"], "squared_gradient": recorded["squared"]}
        for name, recorded in found.items()
    }
    norms = {name: np.sqrt(recorded["squared"]) for name, recorded in found.items()}
    # Of k^-0.5001.
    bound = {name: np.sqrt(np.r_[np.nan, bounds[name, 1]]) for name in chosen}
    checks = claims.Checks()
    checks.at_most("min ||grad f||^2 / bound, diminishing t", shares, 1.0)
    checks.at_most("last gap / first gap, with a minimum", falls, 0.1)
    checks.close("k^-0.5001, quadratic: distance", distance[1], momentary, rtol=0.01)
    checks += _constant(found["quadratic"], distance[3], count)
    picture = pictures.row(
        {"k": checkpoints + 1, "||grad f||": norms, "t": NAMES, "bound": bound},
        list(chosen),
        "k",
        "||grad f||",
        "bound",
        by="t",
        ylim=(1e-6, 30),
        width=2.9,
    )
    return claims.Outcome(checks, picture, data)


def _constant(
    recorded: Mapping[str, np.ndarray], distance: float, count: int
) -> list[claims.Check]:
    """SAM with t = 1/L on the quadratic: its cycle, and a bound without rho."""
    t, L, of = 0.5, 2.0, "constant t, quadratic: "
    of_gap = 2 * recorded["gap"][3, 0] / (t * count)
    share = recorded["squared"][3].min() / of_gap
    cycle = khanh.two_cycle(t, RADIUS, L)
    return [
        claims.close(f"{of}distance", distance, cycle, rtol=1e-6),
        claims.at_least(f"{of}min ||grad f||^2 / bound without rho", share, 1.0),
    ]


def _descend(
    chosen: Mapping[str, problems.Problem], checkpoints: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """Of each problem what was recorded, [schedule, checkpoint, ..]."""

    def one(problem: problems.Problem, schedule: optax.Schedule) -> Any:
        def measure(x: jax.Array) -> dict[str, jax.Array]:
            squared = problem.squared_gradient(x)
            return {"x": x, "gap": problem.gap(x), "squared": squared}

        method = sam_jax.sam(RADIUS)
        return runs.descend(problem, method, schedule, checkpoints, measure).recorded

    def all_four(problem: problems.Problem) -> Any:
        first = 1 / problem.smoothness
        powers = jax.vmap(lambda p: one(problem, schedules.power_decay(first, p)))(
            jnp.array([1.0, 0.5001, 0.0])
        )
        slow = one(problem, schedules.log_decay(first))
        return jax.tree.map(lambda a, b: jnp.stack([a[0], a[1], b, a[2]]), powers, slow)

    return runs.once(lambda: {name: all_four(p) for name, p in chosen.items()})


def _problems() -> dict[str, problems.Problem]:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(20, 3))
    valley = problems.Problem(
        value=lambda x: (jnp.sum(x) - 1) ** 2 / 2,
        start=np.array([2.0, 1.0]),
        smoothness=2.0,
        minimum=0.0,
        convex=True,
    )
    # L holds up to 1.2, where the perturbed points are.
    flat = dataclasses.replace(problems.power(4.0, start=1.2), start=np.array([1.0]))
    return {
        "quadratic": problems.quadratic([1.0, 2.0], [1.0, 1.0]),
        "valley": valley,
        "|x|^4": flat,
        "logistic": finite_sums.logistic(features, np.sign(features[:, 0])),
    }
