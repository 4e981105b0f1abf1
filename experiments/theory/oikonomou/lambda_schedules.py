"""Schedules of lambda: the remaining bias, and the stall."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sam_jax
from experiments.theory import claims, pictures, runs
from experiments.theory.oikonomou import _chains
from sam_jax.theory import descent, finite_sums, problems, sampling
from sam_jax.theory.step_sizes import unified

CLAIM = claims.Claim(
    title="lambda_t = 1/t ends like USAM; 1 - 1/t ends like SAM, biased and stalled",
    source="Oikonomou and Loizou 2025, section 4 (schedules); closed forms: ours",
    statement=r"""The paper proposes $\lambda_t = 1/t$ and $1 - 1/t$, with $t$ from 1,
only in experiments. Derived: on three skewed parabolas with single samples a constant
$\lambda$ has the bias

$$
-\frac{\lambda \rho}{3 (1 + \rho (1 - \lambda))}
$$

and a variance in closed form. The schedule $1/t$ has the bias and variance of
$\lambda = 0$, and $1 - 1/t$ those of $\lambda = 1$. With full gradients on a non-convex
function, $1/t$ ends in a minimum. $1 - 1/t$ and $\lambda \ge 0.65$ stop where the
*perturbed* point is critical and the gradient is not zero.""",
    recipe="""f_i = (x - b_i)^2 / 2, b = (-1, -1, 2), rho = 0.3, gamma = 0.02, start 1,
3,000 steps, 2,000 chains (quick: 250), averages over the second half. Then the
sinusoid that stalls SAM with beta = 1, rho = 0.5, step size 0.2, start 0.02, 20,000
steps.""",
    criterion="""Means agree within four standard errors, mean gaps within four standard
errors and 1 %. Both schedules end as stated. Those that stall have
||grad f|| > 0.01 beta rho and a gradient below 0.001 beta rho at the perturbed point.
The first displacements are rho and rho ||g||.""",
)

# Constant and 1/t part of lambda_t, by name.
LAMS = {
    "0": (0.0, 0.0),
    "0.25": (0.25, 0.0),
    "0.5": (0.5, 0.0),
    "0.75": (0.75, 0.0),
    "1": (1.0, 0.0),
    "1/t": (0.0, 1.0),
    "1-1/t": (1.0, -1.0),
}
STALLS = LAMS | {"0.65": (0.65, 0.0), "0.9": (0.9, 0.0)}
WAVE_STEPS = descent.geometric(20_000)
# Where the sinusoid stops, by name: lambda at the last step.
STALLED = {"0.65": 0.65, "0.75": 0.75, "0.9": 0.9, "1": 1.0, "1-1/t": 1 - 1 / 20_000}
ENDS = {"0": 0.0, "1/t": 0.0, "1-1/t": 1.0}
RULE, CENTERS = unified.Rule(0.3, 0.02), [-1.0, -1.0, 2.0]
WAVE, WAVE_RULE = problems.sinusoid(1.0, 0.5, 0.02), unified.Rule(0.5, 0.2)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim."""
    chains, steps = (250 if quick else 2_000), 3_000
    problem = finite_sums.parabolas(CENTERS, start=1.0)
    late = _chains.descend(
        _scheduled(descent.same_sample(problem, sampling.uniform(3))),
        [(*parts, RULE) for parts in LAMS.values()],
        problem,
        np.r_[0, np.arange(steps // 2, steps + 1, 50)],
        lambda x: x[0],
        chains=chains,
    )[:, :, 1:]
    limits = [
        unified.parabolas_limit(CENTERS, ENDS.get(name, parts[0]), RULE)
        for name, parts in LAMS.items()
    ]
    (mean, mean_limit, mean_error), (gap, gap_limit, gap_error) = (
        (v.mean((1, 2)), np.array(limit), 4 * v.mean(2).std(1) / np.sqrt(chains))
        for v, limit in (
            (late, [limit.mean for limit in limits]),
            (late**2 / 2, [limit.gap for limit in limits]),
        )
    )
    ends = _chains.descend(
        _scheduled(descent.exact(WAVE)),
        [(*parts, WAVE_RULE) for parts in STALLS.values()],
        WAVE,
        WAVE_STEPS,
        lambda x: x[0],
    )[:, 0]
    last = dict(zip(STALLS, ends[:, -1], strict=True))
    here, there = np.array([_slopes(last[n], lam) for n, lam in STALLED.items()]).T
    data = {"lam": list(LAMS), "mean": mean, "predicted_mean": mean_limit}
    data |= {"gap": gap, "predicted_gap": gap_limit, "sinusoid_lam": list(STALLS)}
    data |= {"sinusoid_steps": WAVE_STEPS, "sinusoid_x": ends / WAVE_RULE.rho}
    off, tolerance = np.abs(gap - gap_limit), gap_error + 0.01 * gap_limit
    checks = claims.Checks()
    checks.at_most(
        "|mean gap - closed form| / (4 s.e. + 1 %), all lambda and schedules",
        off / tolerance,
        1.0,
    )
    checks.at_most(
        "|mean of x - closed form| / (4 s.e.), all lambda and schedules",
        np.abs(mean - mean_limit) / mean_error,
        1.0,
    )
    checks.close(
        "mean of x, lambda = 1", mean[4], mean_limit[4], atol=float(mean_error[4])
    )
    checks += _checks_of_wave(np.array([last["0"], last["1/t"]]), here, there)
    shown = {"lambda": list(LAMS), "mean f(x) - f*": gap, "closed form": gap_limit}
    shown |= {"iteration": WAVE_STEPS, "minimum": -0.3}
    shown["x / rho"] = dict(zip(STALLS, data["sinusoid_x"], strict=True))
    picture = pictures.draw(
        shown,
        pictures.Panel("lambda", "mean f(x) - f*", "closed form", "parabolas", log=""),
        pictures.Panel("iteration", "x / rho", "minimum", "sinusoid, lambda", log="x"),
    )
    return claims.Outcome(checks, picture, data)


def _checks_of_wave(
    minima: np.ndarray, here: np.ndarray, there: np.ndarray
) -> list[claims.Check]:
    """The ends of the runs, the slopes there, and the schedules' displacements."""
    rho, rising, falling = WAVE_RULE.rho, [0.1, 0.25, 0.325], [0.4, 0.25, 0.175]
    return [
        claims.close(
            "sinusoid, x / rho, lambda = 0 and 1/t", minima / rho, -0.3, atol=1e-4
        ),
        claims.at_least(
            "sinusoid, |f'(x)| / (beta rho), 1 - 1/t and lambda >= 0.65",
            here / rho,
            0.01,
        ),
        claims.at_most("the same slope at the perturbed point", there / rho, 1e-3),
        claims.close(
            "displacement at ||g|| = 4, rho = 0.1, 1/t and t = 1, 2, 4",
            _displacements("1/t"),
            rising,
            rtol=1e-6,
        ),
        claims.close(
            "the same displacement, 1 - 1/t",
            _displacements("1-1/t"),
            falling,
            rtol=1e-6,
        ),
    ]


def _scheduled(oracle: descent.Oracle) -> _chains.Program:
    """Settings ``(constant part, 1/t part, rule)``."""
    decay = sam_jax.schedules.one_over_t()

    def program(level: Any, share: Any, rule: unified.Rule):
        return _chains.chain(lambda count: level + share * decay(count), rule), oracle

    return program


def _slopes(x: float, lam: float) -> tuple[float, float]:
    """|f'| at x and at the point to which Unified SAM perturbs it."""
    slope = WAVE.gradient(jnp.array([x]))[0]
    perturbed = x + WAVE_RULE.rho * (1 - lam + lam / jnp.abs(slope)) * slope
    there = WAVE.gradient(perturbed[None])[0]
    return float(jnp.abs(slope)), float(jnp.abs(there))


def _displacements(lam: str) -> list[np.ndarray]:
    """Lengths of the perturbation at t = 1, 2 and 4 where the gradient is 4."""
    tx = sam_jax.unified_sam(0.1, lam=lam)
    slope = jax.grad(lambda x: 4 * jnp.sum(x))
    x = jnp.zeros(1)

    def lengths() -> list[jax.Array]:
        state, seen = tx.init(x), []
        for _ in range(4):
            _, state = tx.update(slope(x), state, x, grad_fn=slope)
            seen.append(sam_jax.diagnostics(state)["perturbation_norm"])
        return [seen[0], seen[1], seen[3]]

    return runs.once(lengths)
