"""Importance sampling as in the released code: not a stochastic gradient of f."""

import numpy as np

from experiments.theory import claims, pictures
from experiments.theory.oikonomou import _chains
from sam_jax.theory import descent, finite_sums, sampling
from sam_jax.theory.step_sizes import unified

CLAIM = claims.Claim(
    title="Released importance sampling obeys the theory",
    source="Oikonomou and Loizou 2025, Figure 3 (released code)",
    statement="""The released code draws component i with p_i = L_i / sum L and uses its
gradient as it is. If that were the paper's importance sampling, the decreasing rule of
Theorem 3.5 would converge to the minimizer of f like 1/t.""",
    recipe="""f_i(x) = L_i (x - b_i)^2 / 2 with L = (1, 2, 9), b = (3, -3, 0.5), start
5; rho_t, gamma_t of Theorem 3.5, 30,000 steps (quick: 6,000), lambda = 0, 0.5, 1, 256
chains; weights 1 / (n p_i) and none.""",
    criterion="""The mean of the drawn gradient at the minimizer is 0, and the last mean
gap is below the theorem's bound.""",
    refuted="""Without the weights 1 / (n p_i) the drawn gradient is one of
sum p_i f_i, another function; the iterates converge, like 1/t, but to *its* minimizer.
With the weights both checks hold, as the last rows show.""",
)

LAMS = (0.0, 0.5, 1.0)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim."""
    curvatures, centers = np.array([1.0, 2.0, 9.0]), np.array([3.0, -3.0, 0.5])
    problem = finite_sums.parabolas(centers.tolist(), curvatures.tolist(), start=5.0)
    scheme = sampling.importance(problem.component_smoothness)
    (drawn,) = _chains.tables([scheme])
    plain = drawn._replace(weights=np.ones_like(drawn.weights))
    known = unified.constants(
        problem, scheme, sampling.sampled_smoothness(scheme, problem)
    )
    checkpoints = descent.geometric(6_000 if quick else 30_000)
    settings = [
        (lam, unified.default(known, lam), table)
        for table in (plain, drawn)
        for lam in LAMS
    ]
    trace = _chains.descend(
        _chains.sampled(problem, _chains.decreasing_chain(known.mu)),
        settings,
        problem.start,
        checkpoints,
        record=problem.gap,
        chains=256,
    )
    released, weighted = np.split(np.asarray(trace.recorded).mean(1), 2)
    bounds = np.array(
        [
            unified.decreasing_bound(
                known, lam, rule, _chains.first_gap(problem), checkpoints
            )
            for lam, rule, _ in settings[:3]
        ]
    )
    minimizer = float((curvatures * centers).sum() / curvatures.sum())
    pulls = curvatures * (minimizer - centers)
    p = scheme.probabilities
    biased = float((p * curvatures * centers).sum() / (p * curvatures).sum())
    limit = problem.smoothness * (biased - minimizer) ** 2 / 2

    picture, (panel,) = pictures.panels(1, width=5.5)
    shown = checkpoints > 0
    for i, lam in enumerate(LAMS):
        color = pictures.COLORS[i]
        panel.plot(
            checkpoints[shown],
            released[i, shown],
            color=color,
            label=f"released, lambda = {lam:g}",
        )
        panel.plot(
            checkpoints[shown],
            weighted[i, shown],
            ":",
            color=color,
            label=f"reweighted, lambda = {lam:g}",
        )
    pictures.bound(panel, checkpoints[shown], bounds[2, shown], "bound, lambda = 1")
    panel.axhline(limit, color="black", linewidth=0.8, label="f(x_p) - f*, the bias")
    pictures.log_log(panel, "iteration", "mean f(x) - f*")
    panel.set_ylim(1e-5, 1e5)
    pictures.legends([panel], ncols=2, loc="upper right")
    return claims.Outcome(
        checks=[
            claims.at_most("last gap, released form", released[:, -1], bounds[:, -1]),
            claims.close(
                "mean of the drawn gradient at x*, released form",
                float(p @ pulls),
                0.0,
                atol=1e-12,
            ),
            claims.close(
                "last gap, released form: that of x_p", released[:, -1], limit, rtol=0.1
            ),
            claims.at_most("gap, reweighted, all steps", weighted, bounds),
            claims.close(
                "mean of the drawn gradient at x*, reweighted",
                float(p @ (pulls / (p * p.size))),
                0.0,
                atol=1e-12,
            ),
        ],
        picture=picture,
        data={
            "lam": LAMS,
            "steps": checkpoints,
            "released": released,
            "reweighted": weighted,
            "bound": bounds,
            "biased_limit": limit,
        },
    )
