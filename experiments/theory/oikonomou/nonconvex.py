"""Theorem 3.7: the non-convex inequality and the rule for a target."""

import jax.numpy as jnp
import numpy as np

from experiments.theory import claims, pictures
from experiments.theory.oikonomou import _chains
from sam_jax.theory import descent, finite_sums, sampling
from sam_jax.theory.step_sizes import unified

CLAIM = claims.Claim(
    title="On non-convex sums the least gradient norm obeys Theorem 3.7",
    source="Oikonomou and Loizou 2025, Theorem 3.7 (in a derived form)",
    statement="""For smooth components, without convexity or PL (derived, with explicit
constants): the least E||grad f(x_t)||^2 over t < T is at most
2 (1 + 2AQ)^T (f(x_0) - f^inf) / (gamma T) + 2CQ / gamma
+ 2 L rho lambda^2 (1 + 2 gamma L^2 rho). With the theorem's rho, gamma and T for a
target epsilon the least E||grad f|| is at most epsilon.""",
    recipe="""f_i(x) = phi(a_i . x - b_i), phi(z) = z^2 / (1 + z^2), n = 20, d = 3,
lambda = 0, 0.5, 1. Inequality: uniform single samples, T = 500 and 3,000,
rho = 1 / (4 L sqrt(T)), gamma = 0.3 / (L sqrt(T)), 200 chains. Rule: independent
sampling with p = 0.99, epsilon = 0.3 and 0.15 (quick: 0.3), 8 chains.""",
    criterion="""The least mean of the squared norm over the checkpoints, plus four
standard errors, is not above the right-hand side; the least mean norm is at most
epsilon. (A minimum over checkpoints is never below that over all steps. Both are upper
bounds with much room here, which SGD meets too: what they exclude is divergence.)""",
)

LAMS, HORIZONS = (0.0, 0.5, 1.0), (500, 3000)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim."""
    problem = _bounded()
    first = _chains.first_gap(problem)  # f^inf >= 0, the bound that is used

    def squared_norm(x):
        return jnp.sum(problem.gradient(x) ** 2)

    single = sampling.uniform(problem.size)
    known = unified.constants(problem, single)
    settings = []
    for steps in HORIZONS:
        root = known.L * steps**0.5
        settings += [(lam, unified.Rule(0.25 / root, 0.3 / root)) for lam in LAMS]
    checkpoints = descent.geometric(HORIZONS[-1], 80)
    trace = _chains.descend(
        _chains.constant(descent.same_sample(problem, single)),
        settings,
        problem.start,
        checkpoints,
        record=squared_norm,
        chains=50 if quick else 200,
    )
    norms = np.asarray(trace.recorded)  # [s, chains, checkpoints]
    means = norms.mean(1)
    highs = means + 4 * norms.std(1) / np.sqrt(norms.shape[1])
    horizons = np.repeat(HORIZONS, len(LAMS))
    least = np.array(
        [high[checkpoints < t].min() for high, t in zip(highs, horizons, strict=True)]
    )
    right = np.array(
        [
            unified.nonconvex_bound(known, lam, rule, first, [t])[0]
            for (lam, rule), t in zip(settings, horizons, strict=True)
        ]
    )

    large = sampling.Independent(np.full(problem.size, 0.99))
    batch = unified.constants(problem, large)
    targets = [(e, lam) for e in ((0.3,) if quick else (0.3, 0.15)) for lam in LAMS]
    plans = [unified.nonconvex(batch, lam, first, e) for e, lam in targets]
    marks = descent.geometric(max(plan.steps for plan in plans), 80)
    planned = _chains.descend(
        _chains.constant(descent.same_sample(problem, large)),
        [
            (lam, unified.Rule(plan.rho, plan.gamma))
            for (_, lam), plan in zip(targets, plans, strict=True)
        ],
        problem.start,
        marks,
        record=lambda x: jnp.sqrt(squared_norm(x)),
        chains=8,
    )
    reached = np.asarray(planned.recorded).mean(1)
    best = np.array(
        [
            curve[marks <= plan.steps].min()
            for curve, plan in zip(reached, plans, strict=True)
        ]
    )

    picture, (left, right_panel) = pictures.panels(2)
    for i, lam in enumerate(LAMS):
        left.plot(checkpoints[1:], means[3 + i, 1:], label=f"lambda = {lam:g}")
    tail, (lam, rule) = checkpoints[1:], settings[-1]
    pictures.bound(
        left,
        tail,
        unified.nonconvex_bound(known, lam, rule, first, tail),
        "right-hand side, lambda = 1",
    )
    pictures.log_log(left, "T", "mean ||grad f||^2", "inequality, rule for T = 3,000")
    for i, lam in enumerate(LAMS):
        kept = (marks > 0) & (marks <= plans[i].steps)
        right_panel.plot(marks[kept], reached[i, kept], label=f"lambda = {lam:g}")
    pictures.bound(right_panel, None, 0.3, "epsilon")
    pictures.log_log(right_panel, "iteration", "mean ||grad f||", "rule for a target")
    left.set_ylim(0.05, 3e5)
    pictures.legends([left], loc="upper right")
    pictures.legends([right_panel], loc="lower left")
    epsilons = np.array([e for e, _ in targets])
    return claims.Outcome(
        checks=[
            claims.at_most("least mean of ||grad f||^2, all settings", least, right),
            claims.at_most("least mean of ||grad f||, all targets", best, epsilons),
            claims.at_least(
                "||grad f(x_0)||: the target is not met at once",
                float(np.sqrt(means[0, 0])),
                epsilons.max(),
            ),
        ],
        picture=picture,
        data={
            "lam": LAMS,
            "settings": settings,
            "steps": checkpoints,
            "mean_squared_norm": means,
            "least": least,
            "right_hand_side": right,
            "targets": targets,
            "plans": plans,
            "planned_steps": marks,
            "planned_norm": reached,
            "best": best,
        },
    )


def _bounded() -> finite_sums.FiniteSum:
    generator = np.random.default_rng(4)
    matrix = generator.normal(size=(20, 3))
    target = matrix @ np.array([0.5, -0.3, 0.2]) + 0.1 * generator.normal(size=20)
    return finite_sums.bounded_residuals(matrix, target)
