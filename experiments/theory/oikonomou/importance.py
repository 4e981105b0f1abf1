"""Figure 3: uniform and importance sampling, reweighted and as released."""

import jax.numpy as jnp
import numpy as np

from experiments.theory import claims, pictures, runs
from experiments.theory.oikonomou import _chains, _figures
from sam_jax.theory import sampling
from sam_jax.theory.step_sizes import unified

CLAIM = claims.Claim(
    title="Importance sampling is faster than uniform sampling if it is reweighted",
    source="Oikonomou and Loizou 2025, Figure 3",
    statement=r"""Drawing component $i$ with $p_i = L_i / \sum_j L_j$ turns the constant
$A$ of the expected residual from the maximum of $L_i$ into the mean. This allows larger
steps: after the same number of steps the gap is smaller. The theory needs the gradient
reweighted by $1 / (n p_i)$. The released code draws with $p_i$ but omits the weights.
It therefore converges towards the minimizer of $\sum p_i f_i$, and the plateau in the
figure is this bias.""",
    recipe="""Ridge regression of the authors' code with its seed: n = d = 100, one
large eigenvalue, l2 = 3/n, single samples, 3e5 steps, lambda = 0, 0.5, 1, 5 chains
(quick: 1). rho*/2 and gamma* with A = max L_i or mean L_i; L stays max L_i, as in the
code.""",
    criterion="""Over the last third of the steps the mean gap of the reweighted form is
below half of that of uniform sampling, and its last gap is below half of the biased
limit f(x_p) - f*, computed exactly. The mean gap of the released form over the last
tenth is between 0.9 and 2 times that limit.""",
    survivors=dict.fromkeys(
        ("reversed", "removed"), "on sampling, which has the same effect on SGD"
    ),
)

LAMS = (0.0, 0.5, 1.0)
NAMES = ("uniform", "importance, reweighted", "importance, as released")


def run(quick: bool) -> claims.Outcome:
    """Runs the claim."""
    problem = _figures.figure_3()
    size, first = problem.size, runs.first_gap(problem)
    weighted = sampling.importance(problem.component_smoothness)
    even, drawn = _chains.tables([sampling.uniform(size), weighted])
    plain = drawn._replace(weights=np.full_like(drawn.weights, 1.0))
    by_maximum = unified.constants(problem, sampling.uniform(size))
    by_mean = unified.constants(problem, weighted)
    settings = [
        (lam, unified.default(known, lam), table)
        for known, table in [(by_maximum, even), (by_mean, drawn), (by_mean, plain)]
        for lam in LAMS
    ]
    checkpoints = np.linspace(0, 300_000, 121).astype(int)
    program, chains = _chains.sampled(problem), 1 if quick else 5
    found = _chains.descend(program, settings, problem, checkpoints, chains=chains)
    gaps = found.mean(1).reshape(3, len(LAMS), -1) / first
    limit = _biased_limit(weighted.probabilities) / first
    late = len(checkpoints) * 2 // 3
    last = gaps[2, :, -12:].mean(1)
    data = {"names": NAMES, "lam": LAMS, "rules": [rule for _, rule, _ in settings]}
    data |= {"steps": checkpoints, "relative_gap": gaps, "biased_limit": limit}
    checks = claims.Checks()
    checks.at_most(
        "gap of the reweighted form / of uniform sampling",
        gaps[1, :, late:].mean(1) / gaps[0, :, late:].mean(1),
        0.5,
    )
    checks.at_most(
        "last relative gap, reweighted: half the bias",
        gaps[1, :, -1],
        limit / 2,
    )
    checks.at_least("relative gap as released: 0.9 times the bias", last, 0.9 * limit)
    checks.at_most("relative gap as released: twice the bias", last, 2 * limit)
    picture = pictures.row(
        {"steps": checkpoints, "names": NAMES, "bias": np.full(3, limit)}
        | {"relative gap": np.moveaxis(gaps, 1, 0)},
        {i: f"lambda = {lam:g}" for i, lam in enumerate(LAMS)},
        "steps",
        "relative gap",
        "bias",
        by="names",
        log="y",
        ylim=(1e-6, 3),
    )
    return claims.Outcome(checks, picture, data)


def _biased_limit(probabilities: np.ndarray) -> float:
    """f(x_p) - f* at the minimizer x_p of sum p_i f_i."""
    matrix, target, _ = _figures.uneven()
    scaled = matrix * probabilities[:, None]
    hessian = scaled.T @ matrix + _figures.L2 * np.eye(len(target))
    biased = np.linalg.solve(hessian, scaled.T @ target)
    return float(_figures.figure_3().gap(jnp.asarray(biased)))
