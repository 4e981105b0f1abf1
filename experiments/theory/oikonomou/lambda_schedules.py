"""Schedules of lambda: what is left of SAM's bias, and of its stall."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sam_jax
from experiments.theory import claims, pictures
from experiments.theory.oikonomou import _chains
from sam_jax.theory import descent, finite_sums, problems, sampling
from sam_jax.theory.step_sizes import unified

CLAIM = claims.Claim(
    title="lambda_t = 1/t ends like USAM, 1 - 1/t like SAM, biased and stalled",
    source="Oikonomou and Loizou 2025, section 4 (schedules); closed forms: ours",
    statement="""The paper proposes lambda_t = 1/t and 1 - 1/t, t from 1, in experiments
only. Derived: on three skewed parabolas with single samples a constant lambda has the
bias **-lambda rho / (3 (1 + rho (1 - lambda)))** and a variance in closed form; 1/t has
those of lambda = 0, 1 - 1/t those of lambda = 1. With full gradients on a non-convex
function 1/t ends in a minimum, 1 - 1/t and lambda >= 0.65 stop where the *perturbed*
point is critical, and the gradient is not zero.""",
    recipe="""f_i = (x - b_i)^2 / 2, b = (-1, -1, 2), rho = 0.3, gamma = 0.02, start 1,
3,000 steps, 2,000 chains (quick: 250), averages over the second half. Then the
sinusoid that stalls SAM with beta = 1, rho = 0.5, step size 0.2, start 0.02, 20,000
steps.""",
    criterion="""Means within four standard errors, mean gaps within four and 1 %; both
schedules end as said, those that stall with ||grad f|| > 0.01 beta rho and a gradient
below 0.001 beta rho at the perturbed point; the first displacements are rho and
rho ||g||.""",
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


def run(quick: bool) -> claims.Outcome:
    """Runs the claim."""
    chains, steps = (250 if quick else 2_000), 3_000
    rule, centers = unified.Rule(0.3, 0.02), [-1.0, -1.0, 2.0]
    problem = finite_sums.parabolas(centers, start=1.0)
    checkpoints = np.r_[0, np.arange(steps // 2, steps + 1, 50)]
    trace = _chains.descend(
        _scheduled(descent.same_sample(problem, sampling.uniform(3))),
        [(*parts, rule) for parts in LAMS.values()],
        problem.start,
        checkpoints,
        record=lambda x: x[0],
        chains=chains,
    )
    late = np.asarray(trace.recorded)[:, :, 1:]
    means, gaps = late.mean((1, 2)), (late**2).mean((1, 2)) / 2
    spreads = [(late.mean(2)).std(1), (late**2 / 2).mean(2).std(1)]
    limits = [
        unified.parabolas_limit(centers, ENDS.get(name, parts[0]), rule)
        for name, parts in LAMS.items()
    ]
    mean_limits = np.array([limit.mean for limit in limits])
    gap_limits = np.array([limit.gap for limit in limits])
    mean_error, gap_error = (4 * spread / np.sqrt(chains) for spread in spreads)

    rho = 0.5
    wave = problems.sinusoid(1.0, rho, 0.02)
    ends = np.asarray(
        _chains.descend(
            _scheduled(descent.exact(wave)),
            [(*parts, unified.Rule(rho, 0.2)) for parts in STALLS.values()],
            wave.start,
            WAVE_STEPS,
            record=lambda x: x[0],
        ).recorded
    )[:, 0]
    last = dict(zip(STALLS, ends[:, -1], strict=True))
    stalled = np.array(
        [_slopes(wave, rho, last[name], lam) for name, lam in STALLED.items()]
    )
    minima = np.array([last["0"], last["1/t"]])

    picture, (left, right) = pictures.panels(2)
    places = np.arange(len(LAMS))
    left.plot(places, gaps, "o", label="measured")
    left.plot(places, gap_limits, "k_", markersize=14, label="closed form")
    left.set_xticks(places, list(LAMS))
    pictures.linear(left, "lambda", "mean f(x) - f*", "parabolas, single samples")
    for name in ("0", "1/t", "0.75", "1", "1-1/t"):
        curve = ends[list(STALLS).index(name)]
        style = ":" if "t" in name else "-"
        right.plot(WAVE_STEPS[1:], curve[1:] / rho, style, label=f"lambda = {name}")
    pictures.bound(right, None, -0.3, "minimum")
    right.set_xscale("log")
    right.set_ylim(-0.35, 0.55)
    pictures.linear(right, "iteration", "x / rho", "sinusoid, full gradients")
    pictures.legends([left])
    pictures.legends([right], loc="upper right", ncols=2)
    return claims.Outcome(
        checks=[
            claims.at_most(
                "|mean gap - closed form| / (4 s.e. + 1 %), all lambda and schedules",
                np.abs(gaps - gap_limits) / (gap_error + 0.01 * gap_limits),
                1.0,
            ),
            claims.at_most(
                "|mean of x - closed form| / (4 s.e.), all lambda and schedules",
                np.abs(means - mean_limits) / mean_error,
                1.0,
            ),
            claims.close(
                "mean of x, lambda = 1",
                means[4],
                mean_limits[4],
                atol=float(mean_error[4]),
            ),
            claims.close(
                "sinusoid, x / rho, lambda = 0 and 1/t", minima / rho, -0.3, atol=1e-4
            ),
            claims.at_least(
                "sinusoid, |f'(x)| / (beta rho), 1 - 1/t and lambda >= 0.65",
                stalled[:, 0] / rho,
                0.01,
            ),
            claims.at_most(
                "the same at the perturbed point", stalled[:, 1] / rho, 1e-3
            ),
            claims.close(
                "displacement at ||g|| = 4, rho = 0.1, 1/t and t = 1, 2, 4",
                _displacements("1/t"),
                [0.1, 0.25, 0.325],
                rtol=1e-6,
            ),
            claims.close(
                "the same, 1 - 1/t",
                _displacements("1-1/t"),
                [0.4, 0.25, 0.175],
                rtol=1e-6,
            ),
        ],
        picture=picture,
        data={
            "lam": list(LAMS),
            "mean": means,
            "predicted_mean": mean_limits,
            "gap": gaps,
            "predicted_gap": gap_limits,
            "sinusoid_lam": list(STALLS),
            "sinusoid_steps": WAVE_STEPS,
            "sinusoid_x": ends / rho,
        },
    )


def _scheduled(oracle: descent.Oracle) -> _chains.Program:
    """Settings ``(constant part, 1/t part, rule)``."""
    decay = sam_jax.schedules.one_over_t()

    def program(level: Any, share: Any, rule: unified.Rule):
        return _chains.chain(lambda count: level + share * decay(count), rule), oracle

    return program


def _slopes(
    problem: problems.Problem, rho: float, x: float, lam: float
) -> tuple[float, float]:
    """|f'| at x and at the point to which Unified SAM perturbs it."""
    slope = problem.gradient(jnp.array([x]))[0]
    perturbed = x + rho * (1 - lam + lam / jnp.abs(slope)) * slope
    there = problem.gradient(perturbed[None])[0]
    return float(jnp.abs(slope)), float(jnp.abs(there))


def _displacements(lam: str) -> list[float]:
    """Lengths of the perturbation at t = 1, 2 and 4 where the gradient is 4."""
    tx = sam_jax.unified_sam(0.1, lam=lam)
    slope = jax.grad(lambda x: 4 * jnp.sum(x))
    x = jnp.zeros(1)
    state, seen = tx.init(x), []
    for _ in range(4):
        _, state = tx.update(slope(x), state, x, grad_fn=slope)
        seen.append(float(sam_jax.diagnostics(state)["perturbation_norm"]))
    return [seen[0], seen[1], seen[3]]
