"""Theorem 3.7: the non-convex inequality and the rule for a target."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.theory import claims, pictures, runs
from experiments.theory.oikonomou import _chains
from sam_jax.theory import descent, finite_sums, problems, sampling
from sam_jax.theory.step_sizes import unified

CLAIM = claims.Claim(
    title="On non-convex sums the smallest gradient norm obeys Theorem 3.7",
    source="Oikonomou and Loizou 2025, Theorem 3.7 (in a derived form)",
    statement=r"""For smooth components, without convexity or PL (derived, with explicit
constants), the smallest $\mathrm E\|\nabla f(x_t)\|^2$ over $t < T$ is at most

$$
\frac{2 (1 + 2AQ)^T (f(x_0) - f^{\inf})}{\gamma T} + \frac{2CQ}{\gamma}
+ 2 L \rho \lambda^2 (1 + 2 \gamma L^2 \rho).
$$

With the theorem's $\rho$, $\gamma$ and $T$ for a target $\epsilon$, the smallest
$\mathrm E\|\nabla f\|$ is at most $\epsilon$.""",
    recipe="""f_i(x) = phi(a_i . x - b_i), phi(z) = z^2 / (1 + z^2), n = 20, d = 3,
lambda = 0, 0.5, 1. Inequality: uniform single samples, T = 500 and 3,000,
rho = 1 / (4 L sqrt(T)), gamma = 0.3 / (L sqrt(T)), 200 chains. Rule: independent
sampling with p = 0.99, epsilon = 0.3 and 0.15 (quick: 0.3), 8 chains.""",
    criterion="""The smallest mean of the squared norm over the checkpoints, plus four
standard errors, is not above the right-hand side. The smallest mean norm is at most
epsilon. (A minimum over checkpoints is never below that over all steps. Both bounds are
far from tight here, and SGD meets them too: they exclude only divergence.) The stalling
sinusoid (L = 1, rho = 0.3, lambda = 1, gamma = 0.1, 2,000 full gradients) shows that
the last term is needed: the smallest squared norm is 27 (L rho)^2 / (100 pi^2) to 1e-6,
above the right-hand side without that term.""",
)

LAMS, HORIZONS = (0.0, 0.5, 1.0), (500, 3000)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim."""
    problem = _bounded()
    inequality, data = _inequality(problem, 50 if quick else 200)
    rule, more = _rule(problem, (0.3,) if quick else (0.3, 0.15))
    data |= more
    start = float(np.sqrt(data["mean_squared_norm"][0, 0]))
    largest = max(epsilon for epsilon, _ in data["targets"])
    marks = data["planned_steps"]
    within = marks <= np.array([plan.steps for plan in data["plans"]])[:, None]
    checks = claims.Checks()
    checks.append(inequality)
    checks.append(rule)
    checks.at_least("||grad f(x_0)||: the target is not met at once", start, largest)
    checks += _needed()
    picture = pictures.draw(
        data
        | {"mean ||grad f||^2": data["mean_squared_norm"][3:], "epsilon": 0.3}
        | {"mean ||grad f||": np.where(within, data["planned_norm"], np.nan)[:3]},
        pictures.Panel(
            "steps", "mean ||grad f||^2", title="rule for T = 3,000", by="lam"
        ),
        pictures.Panel(
            "planned_steps", "mean ||grad f||", "epsilon", "rule for a target", "lam"
        ),
    )
    return claims.Outcome(checks, picture, data)


def _inequality(
    problem: finite_sums.FiniteSum, chains: int
) -> tuple[claims.Check, dict[str, Any]]:
    """Checks of the smallest mean with the right-hand side, and the measured data."""
    first = runs.first_gap(problem)  # f^inf >= 0, the bound that is used
    single = sampling.uniform(problem.size)
    known = unified.constants(problem, single)
    roots = {steps: known.L * steps**0.5 for steps in HORIZONS}
    settings = [
        (lam, unified.Rule(0.25 / root, 0.3 / root))
        for root in roots.values()
        for lam in LAMS
    ]
    checkpoints = descent.geometric(HORIZONS[-1], 80)
    norms = _chains.descend(  # [s, chains, checkpoints]
        _chains.constant(descent.same_sample(problem, single)),
        settings,
        problem,
        checkpoints,
        problem.squared_gradient,
        chains=chains,
    )
    means = norms.mean(1)
    highs = means + 4 * norms.std(1) / np.sqrt(chains)
    least, right = [], []
    for (lam, rule), high, t in zip(
        settings, highs, np.repeat(HORIZONS, len(LAMS)), strict=True
    ):
        least.append(high[checkpoints < t].min())
        right += list(unified.nonconvex_bound(known, lam, rule, first, [t]))
    data = {"lam": LAMS, "settings": settings, "steps": checkpoints}
    data |= {"mean_squared_norm": means, "least": least, "right_hand_side": right}
    what = "smallest mean of ||grad f||^2, all settings"
    return claims.at_most(what, least, right), data


def _rule(
    problem: finite_sums.FiniteSum, epsilons: Sequence[float]
) -> tuple[claims.Check, dict[str, Any]]:
    """The norms that the rule for a target reaches, and its plans."""
    large = sampling.Independent(np.full(problem.size, 0.99))
    known, first = unified.constants(problem, large), runs.first_gap(problem)
    targets = [(e, lam) for e in epsilons for lam in LAMS]
    plans = [unified.nonconvex(known, lam, first, e) for e, lam in targets]
    marks = descent.geometric(max(plan.steps for plan in plans), 80)
    reached = _chains.descend(
        _chains.constant(descent.same_sample(problem, large)),
        [
            (lam, unified.Rule(plan.rho, plan.gamma))
            for (_, lam), plan in zip(targets, plans, strict=True)
        ],
        problem,
        marks,
        lambda x: jnp.sqrt(problem.squared_gradient(x)),
        chains=8,
    ).mean(1)
    best = [
        curve[marks <= plan.steps].min()
        for curve, plan in zip(reached, plans, strict=True)
    ]
    data = {"targets": targets, "plans": plans, "planned_steps": marks}
    data |= {"planned_norm": reached, "best": best}
    what, goals = "smallest mean of ||grad f||, all targets", [e for e, _ in targets]
    return claims.at_most(what, best, goals), data


def _bounded() -> finite_sums.FiniteSum:
    generator = np.random.default_rng(4)
    matrix = generator.normal(size=(20, 3))
    target = matrix @ np.array([0.5, -0.3, 0.2]) + 0.1 * generator.normal(size=20)
    return finite_sums.bounded_residuals(matrix, target)


def _needed() -> list[claims.Check]:
    """On the sinusoid the inequality would not hold without the term in lambda."""
    rho, gamma, steps = 0.3, 0.1, 2_000
    wave = problems.sinusoid(1.0, rho, 0.02)
    program, checkpoints = _chains.constant(descent.exact(wave)), np.arange(steps)
    least = _chains.descend(
        program,
        [(1.0, unified.Rule(rho, gamma))],
        wave,
        checkpoints,
        wave.squared_gradient,
    ).min()
    known, first = unified.deterministic(wave), runs.first_gap(wave)
    [without] = unified.nonconvex_bound(
        known, 1.0, unified.Rule(0.0, gamma), first, [steps]
    )
    stall, share = 27 / (100 * np.pi**2), least / rho**2
    what = "sinusoid, lambda = 1: smallest ||grad f||^2"
    return [
        claims.at_least(f"{what} over the bound without lambda", least / without, 1.0),
        claims.close(f"{what} / (L rho)^2", share, stall, rtol=1e-6),
    ]
