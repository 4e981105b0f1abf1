"""Importance sampling as released does not use a stochastic gradient of f."""

import numpy as np

from experiments.theory import claims, mutations, pictures, runs
from experiments.theory.oikonomou import _chains
from sam_jax.theory import descent, finite_sums, sampling
from sam_jax.theory.step_sizes import unified

CLAIM = claims.Claim(
    title="Released importance sampling obeys the theory",
    source="Oikonomou and Loizou 2025, Figure 3 (released code)",
    statement=r"""The released code draws component $i$ with $p_i = L_i / \sum_j L_j$
and uses its gradient without a weight. If this were the paper's importance sampling,
the decreasing rule of Theorem 3.5 would converge to the minimizer of $f$ like
$1/t$.""",
    recipe="""f_i(x) = L_i (x - b_i)^2 / 2 with L = (1, 2, 9), b = (3, -3, 0.5), start
5; rho_t, gamma_t of Theorem 3.5, 30,000 steps (quick: 6,000), lambda = 0, 0.5, 1, 256
chains; weights 1 / (n p_i), and no weights.""",
    criterion="""The mean of the drawn gradient at the minimizer is 0, and the last mean
gap is below the theorem's bound.""",
    refuted="""The released code deviates from the paper, whose importance sampling has
the weights 1 / (n p_i). Without them the drawn gradient is a stochastic gradient of
sum p_i f_i, which is another function. The iterates converge like 1/t, but to *its*
minimizer. With the weights both checks hold, as the last rows show.""",
    survivors=dict.fromkeys(
        mutations.FACTORS, "on sampling, which has the same effect on SGD"
    ),
)

LAMS = (0.0, 0.5, 1.0)
CURVATURES, CENTERS = np.array([1.0, 2.0, 9.0]), np.array([3.0, -3.0, 0.5])


def run(quick: bool) -> claims.Outcome:
    """Runs the claim."""
    problem = finite_sums.parabolas(CENTERS.tolist(), CURVATURES.tolist(), start=5.0)
    scheme = sampling.importance(problem.component_smoothness)
    (drawn,) = _chains.tables([scheme])
    plain = drawn._replace(weights=np.ones_like(drawn.weights))
    known = unified.constants(
        problem, scheme, sampling.sampled_smoothness(scheme, problem)
    )
    checkpoints = descent.geometric(6_000 if quick else 30_000)
    rules = [(lam, unified.default(known, lam)) for lam in LAMS]
    gaps = _chains.descend(
        _chains.sampled(problem, _chains.decreasing_chain(known.mu)),
        [(*rule, table) for table in (plain, drawn) for rule in rules],
        problem,
        checkpoints,
        chains=256,
    )
    released, weighted = np.split(gaps.mean(1), 2)
    first = runs.first_gap(problem)
    bounds = np.array(
        [unified.decreasing_bound(known, *rule, first, checkpoints) for rule in rules]
    )
    minimizer = float((CURVATURES * CENTERS).sum() / CURVATURES.sum())
    pulls, p = CURVATURES * (minimizer - CENTERS), scheme.probabilities
    biased = float((p * CURVATURES * CENTERS).sum() / (p * CURVATURES).sum())
    limit = problem.smoothness * (biased - minimizer) ** 2 / 2
    drawn_mean = "mean of the drawn gradient at x*"
    data = {"lam": LAMS, "steps": checkpoints, "released": released}
    data |= {"reweighted": weighted, "bound": bounds, "biased_limit": limit}
    checks = claims.Checks()
    checks.at_most("last gap, released form", released[:, -1], bounds[:, -1])
    checks.close(f"{drawn_mean}, released form", float(p @ pulls), 0.0, atol=1e-12)
    checks.close(
        "last gap, released form: gap of x_p", released[:, -1], limit, rtol=0.1
    )
    checks.at_most("gap, reweighted, all steps", weighted, bounds)
    checks.close(
        f"{drawn_mean}, reweighted", float(p @ (pulls / (p * p.size))), 0.0, atol=1e-12
    )
    picture = pictures.draw(
        data | {"bound, lambda = 1": bounds[-1]},
        *(
            pictures.Panel(
                "steps", key, ("bound, lambda = 1", "biased_limit"), by="lam"
            )
            for key in ("released", "reweighted")
        ),
    )
    return claims.Outcome(checks, picture, data)
