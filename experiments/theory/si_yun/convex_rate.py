"""Theorem 3.3: on convex functions the mean squared gradient falls like 1/sqrt(T)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from sam_jax.theory import descent, finite_sums, step_sizes
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="Convex, deterministic: mean ||grad f||^2 = O(1/T + 1/sqrt(T))",
    source="Si and Yun 2023, Theorem 3.3 and Table 1",
    statement="""On smooth convex functions SAM with a constant radius and the step
size min{sqrt(Delta/(beta^3 rho^2 T)), 1/(2 beta)} makes the mean of ||grad f(x_t)||^2
over t < T fall like 1/sqrt(T) (as recalled). Derived, for every eta <= 1/(2 beta):
**(1/T) sum ||grad f(x_t)||^2 <= (4/3) (Delta/(eta T) + beta^3 eta rho^2 / 2)**.""",
    recipe="""Logistic regression with 10 random examples in 5 dimensions, each with
both labels, so that f is convex, not strongly, and its minimum log 2 is at 0; rho =
0.5, start with norm 4, T from 100 to 100,000 (10,000 in the short form).""",
    criterion="""The bound holds at every checkpoint of every run, and the mean falls
with T at least as fast as T^-0.45. With eta = 1/(2 beta) kept at the largest T the mean
is above (4/3) Delta/(eta T), so that no bound without the second part could hold.""",
)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` has smaller horizons."""
    features = np.random.default_rng(0).normal(size=(10, 5))
    problem = finite_sums.logistic(
        np.r_[features, features], np.r_[np.ones(10), -np.ones(10)]
    )
    start, rho, beta = np.full(5, 4 / np.sqrt(5)), 0.5, problem.smoothness
    gap = float(problem.value(jnp.asarray(start))) - np.log(2)
    horizons = np.geomspace(100, 1e4 if quick else 1e5, 5 if quick else 7)
    horizons = horizons.round().astype(int)
    checkpoints = np.union1d(descent.geometric(horizons[-1])[1:], horizons)
    known = step_sizes.Constants(0.0, beta)
    etas = np.array([si_yun.convex(known, rho, gap, int(t)) for t in horizons])
    largest = 1 / (2 * beta)

    @jax.jit
    @jax.vmap
    def descend(eta: jax.Array) -> descent.Trace:
        tx = optax.chain(sam_jax.sam(rho), optax.sgd(eta))
        return descent.descend(
            tx,
            descent.exact(problem),
            start,
            checkpoints,
            record=lambda x: (),
            mean_of=lambda x: jnp.sum(problem.gradient(x) ** 2),
        )

    *means, kept = np.asarray(descend(jnp.asarray([*etas, largest])).means)
    means = np.stack(means)
    rule = step_sizes.Rule(rho, etas[:, None])
    bounds = si_yun.convex_bound(known, rule, gap, checkpoints)
    at_end = np.searchsorted(checkpoints, horizons)
    final, final_bound = (m[np.arange(len(etas)), at_end] for m in (means, bounds))
    slope = np.polyfit(np.log(horizons), np.log(final), 1)[0]

    picture, (left, right) = pictures.panels(2)
    left.plot(horizons, final, "o-", label=f"measured, slope {slope:.2f}")
    pictures.bound(left, horizons, final_bound, "bound")
    pictures.log_log(left, "horizon T", "mean ||grad f||^2", "eta(T) by the rule")
    right.plot(checkpoints, means[-1], label=f"T = {horizons[-1]:,}")
    pictures.bound(right, checkpoints, bounds[-1], "bound")
    pictures.log_log(right, "iteration t", "mean ||grad f||^2 so far", "one run")
    pictures.legends([left, right])
    return claims.Outcome(
        checks=[
            claims.at_most(f"mean at T = {horizons[-1]:,}", final[-1], final_bound[-1]),
            claims.at_most("mean against its bound", means, bounds),
            claims.at_most("exponent of the mean in T", slope, -0.45),
            claims.at_least(
                "mean with eta = 1/(2 beta) over (4/3) Delta/(eta T)",
                kept[-1] / (4 / 3 * gap / (largest * horizons[-1])),
                1.0,
            ),
        ],
        picture=picture,
        data={
            "horizon": horizons,
            "eta": etas,
            "mean": final,
            "bound": final_bound,
            "checkpoint": checkpoints,
            "longest_run": means[-1],
        },
    )
