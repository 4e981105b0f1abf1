"""Theorem 3.3: on convex functions the mean squared gradient falls like 1/sqrt(T)."""

import jax.numpy as jnp
import numpy as np

from experiments.theory import claims, pictures, runs
from sam_jax.theory import finite_sums, step_sizes
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="Convex, deterministic: mean ||grad f||^2 = O(1/T + 1/sqrt(T))",
    source="Si and Yun 2023, Theorem 3.3 and Table 1",
    statement=r"""On smooth convex functions SAM with a constant radius and the step
size $\min\left\{\sqrt{\Delta/(\beta^3 \rho^2 T)}, 1/(2\beta)\right\}$ makes the mean of
$\|\nabla f(x_t)\|^2$ over $t < T$ fall like $1/\sqrt T$ (unverified). Derived, for
every $\eta \le 1/(2\beta)$:

$$
\frac1T \sum_{t<T} \|\nabla f(x_t)\|^2 \le
\frac43 \left(\frac{\Delta}{\eta T} + \frac{\beta^3 \eta \rho^2}{2}\right).
$$""",
    recipe="""Logistic regression with 10 random examples in 5 dimensions, each with
both labels, so f is convex but not strongly convex, and its minimum log 2 is at 0;
rho = 0.5, start with norm 4, T from 100 to 100,000 (10,000 in the short form).""",
    criterion="""The bound holds at every checkpoint of every run, and the mean falls
with T at least as fast as T^-0.45. With eta = 1/(2 beta) kept at the largest T the mean
is above (4/3) Delta/(eta T), so the bound needs its second term.""",
    survivors={"tripled": "the rho^2 term of the bound is large enough for it"},
)

RHO = 0.5


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` has smaller horizons."""
    problem, start, gap = both_labels()
    beta = problem.smoothness
    horizons = runs.horizons(100, 1e4 if quick else 1e5, 5 if quick else 7)
    ends, checkpoints = horizons
    known = step_sizes.Constants(0.0, beta)
    etas = np.array([si_yun.convex(known, RHO, gap, int(t)) for t in ends])
    largest = 1 / (2 * beta)

    squared = problem.squared_gradient
    found = runs.sam(
        problem, RHO, [*etas, largest], checkpoints, mean_of=squared, start=start
    )
    means, kept = found.means[:-1], found.means[-1]
    rule = step_sizes.Rule(RHO, etas[:, None])
    bounds = si_yun.convex_bound(known, rule, gap, checkpoints)
    final, bound = horizons.last(means), horizons.last(bounds)
    slope = np.polyfit(np.log(ends), np.log(final), 1)[0]
    share = kept[-1] / (4 / 3 * gap / (largest * ends[-1]))
    data = {"horizon": ends, "eta": etas, "mean": final, "bound": bound}
    data |= {"checkpoint": checkpoints, "longest_run": means[-1]}
    checks = claims.Checks()
    checks.at_most(f"mean at T = {ends[-1]:,}", final[-1], bound[-1])
    checks.at_most("mean, all runs: its bound", means, bounds)
    checks.at_most("exponent of the mean in T", slope, -0.45)
    checks.at_least("mean with eta = 1/(2 beta) over (4/3) Delta/(eta T)", share, 1.0)
    picture = pictures.draw(
        data,
        pictures.Panel("horizon", "mean", "bound", "mean ||grad f||^2, eta(T)"),
        pictures.Panel("checkpoint", "longest_run", title="so far, one run"),
    )
    return claims.Outcome(checks, picture, data)


def both_labels() -> tuple[finite_sums.FiniteSum, np.ndarray, float]:
    """Ten examples, each with both labels, a start and its gap; the minimum is at 0."""
    features = np.random.default_rng(0).normal(size=(10, 5))
    labels = np.r_[np.ones(10), -np.ones(10)]
    problem = finite_sums.logistic(np.r_[features, features], labels)
    start = np.full(5, 4 / np.sqrt(5))
    return problem, start, float(problem.value(jnp.asarray(start))) - np.log(2)
