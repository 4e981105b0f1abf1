"""Example 3.1 with the interval and the bound of its published proof."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import figure

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import descent
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="Example 3.1 with the published interval of step sizes",
    source="Khanh et al. 2024, Example 3.1, proof in Appendix A.1",
    statement=r"""On a quadratic with eigenvalues $s$ (smallest) and $l$ (largest), SAM
with a step size $t \in \left(\frac1s - \frac1{s + l}, \frac1s\right)$ that starts at a
distance in $\left(0, \frac{t \rho s}{1 - t s}\right)$ from the minimizer stays within
that distance and does not converge.""",
    recipe="""f(x) = (x_1^2 + r x_2^2) / 2, rho = 0.1, r = l/s; t in the middle of the
published interval, for r < 2 also in the middle of its part up to 2/(s + l), for
r = 2.5 also t = 0.75, which is below 2/l; 16 random starts within the bound, 400
steps.""",
    criterion="""As published: no distance exceeds the bound, at any r. Where the proof
holds: no distance exceeds the bound for r < 2 and t <= 2/(s + l).""",
    refuted="""The proof uses ||I - tA|| <= 1 - t s, which is true only up to
t = 2/(s + l). The published interval contains such step sizes if and only if l/s < 2.
Its middle lies above 2/l for l/s = 2.5, 3 or 10, where gradient descent itself
diverges. With l/s = 2.5 and t = 0.75 gradient descent converges, but SAM's 2-cycle
t rho l / (2 - t l) lies outside the bound. SAM does not converge for any t < 2/l, as
the example says: see `two_cycle`.""",
)

RADIUS = 0.1
RATIOS = np.array([1.2, 1.5, 1.9, 2.5, 3.0, 10.0])


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes 4 starts."""
    stated = [khanh.example_3_1(1.0, ratio) for ratio in RATIOS]
    middle = np.array([(x.low + x.high) / 2 for x in stated])
    valid = np.array([(x.low + x.valid_below) / 2 for x in stated])
    t, ratio = np.r_[middle, valid[:3], 0.75], np.r_[RATIOS, RATIOS[:3], 2.5]
    bound = khanh.example_3_1_bound(t, RADIUS, 1.0)
    sam, plain = _distances(t, ratio, bound, 4 if quick else 16)
    largest = sam.max(axis=(1, 2)) / bound
    step = t[6:9, None, None]
    excess = sam[6:9, :, 1:] - (step * RADIUS - (1 - step) * sam[6:9, :, :-1])
    growth = plain[3:6, :, 100] / plain[3:6, :, 99]  # before it overflows
    cycle = khanh.two_cycle(t[9], RADIUS, ratio[9]) / bound[9]
    data = {"ratio": ratio, "step_size": t, "bound": bound}
    data |= {"largest_distance_over_bound": largest, "distance": sam[:, 0, :61]}
    checks = claims.Checks()
    checks.at_most(
        "distance / bound, t in mid-interval, l/s = 1.2 ... 10", largest[:6], 1.0
    )
    checks.at_most("distance / bound, l/s < 2, t <= 2/(s + l)", largest[6:9], 1.0)
    checks.at_least(
        "l/s < 2: ||x_{k+1}|| - (t rho s - (1 - t s) ||x_k||)", excess.min(), -1e-12
    )
    checks.close(
        "gradient descent at l/s = 2.5, 3, 10: growth per step",
        growth,
        (t * ratio - 1)[3:6, None],
        rtol=1e-9,
    )
    checks.at_most(
        "gradient descent at l/s = 2.5, t = 0.75: distance", plain[9, :, -1], 1e-9
    )
    checks.close(
        "SAM at l/s = 2.5, t = 0.75: distance / bound",
        sam[9, :, -1] / bound[9],
        cycle,
        rtol=1e-9,
    )
    picture = _picture(data)
    return claims.Outcome(checks, picture, data)


def _distances(
    t: np.ndarray, ratio: np.ndarray, bound: np.ndarray, count: int
) -> np.ndarray:
    """Of SAM and gradient descent from random starts, [2, setting, start, step]."""
    directions = np.random.default_rng(0).normal(size=(count, 2))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    shares = np.linspace(0.05, 0.95, len(directions))[:, None]
    starts = jnp.asarray(bound[:, None, None] * shares * directions)

    def distances(i: jax.Array, j: jax.Array, rho: jax.Array) -> jax.Array:
        def value(x: jax.Array) -> jax.Array:
            return (x[0] ** 2 + jnp.asarray(ratio)[i] * x[1] ** 2) / 2

        return descent.descend(
            optax.chain(sam_jax.sam(rho), optax.sgd(jnp.asarray(t)[i])),
            lambda key, count: (value, value),
            starts[i, j],
            np.arange(401),
            record=jnp.linalg.norm,
        ).recorded

    settings, places = np.ogrid[: len(t), :count]
    return runs.each(distances, settings, places, [[[RADIUS]], [[0.0]]])


def _picture(data: Mapping[str, Any]) -> figure.Figure:
    picture, (left, right) = pictures.panels(2)
    for i in (1, 3, 4, 5):
        label = f"l/s = {data['ratio'][i]:g}, t = {data['step_size'][i]:.3g}"
        left.plot(data["distance"][i] / data["bound"][i], label=label)
    pictures.bound(left, None, 1.0, "published bound")
    left.set_ylim(1e-6, 1e6)
    pictures.log_y(left, "iteration", "distance / bound", "middle of the interval")
    axis = np.linspace(1, 5, 200)
    low = 1 - 1 / (1 + axis)
    right.fill_between(axis, low, 1.0, alpha=0.2, label="published interval")
    right.plot(axis, 2 / (1 + axis), label="proof holds below 2/(s + l)")
    right.plot(axis, 2 / axis, label="gradient descent converges below 2/l")
    right.set_ylim(0.3, 2.1)
    pictures.linear(right, "l/s", "t s", "step sizes")
    pictures.legends([left, right])
    return picture
