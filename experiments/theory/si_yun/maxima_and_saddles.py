"""Near maxima and saddles: normalized ascent pulls SAM towards them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import figure

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import problems
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="SAM stays at maxima that are nearer than rho, and may end at saddles",
    source="ours, on the setting of Si and Yun 2023",
    statement=r"""Derived, in one dimension: within $\rho$ of a maximum the perturbed
point lies beyond the maximum, so a step goes *towards* the maximum. SAM stays within
$\eta h \rho$ of it, where $h$ bounds the curvature there. At a strict saddle the ascent
follows the steepest direction. Once the convex direction is the steepest, the escape
never starts: SAM ends in the 2-cycle of the convex direction, $\eta \rho/(2 - \eta)$,
and the other coordinate tends to 0.""",
    recipe="""rho = eta = 0.1, 20,000 steps (3,000 in the short form). Wells x^4/4 -
x^2/2 from 0.001, 0.05, 0.09 (within rho of the maximum 0) and 0.11, 0.3; saddle (x^2 -
y^2)/2 + y^4/4 from (0.5, 0.03) and (0.5, 0.3). Control: gradient descent.""",
    criterion="""From within rho the last 500 iterates have |x| <= eta h rho, h = 1;
from outside they lie in [1 - eta f'(1 + rho), 1 - eta f'(1 - rho)] around the minimum.
On the saddle the near start ends with the cycle's |x| to 1e-9 and y = 0, and the far
start with |y| > 0.99. Gradient descent reaches a minimum from every start.""",
)

RHO = ETA = 0.1


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes fewer steps."""
    steps = 3_000 if quick else 20_000
    checkpoints = np.r_[np.arange(0, 2_000, 10), steps - 500 + np.arange(501)]

    def descend(problem: problems.Problem, starts: np.ndarray) -> np.ndarray:
        """Iterates, [2 (SAM, gradient descent), starts, checkpoints, d]."""

        def path(rho: jax.Array, start: jax.Array) -> jax.Array:
            method = sam_jax.sam(rho)
            return runs.descend(
                problem, method, ETA, checkpoints, lambda x: x, start=start
            ).recorded

        over_starts = jax.vmap(path, (None, 0))
        return runs.each(lambda rho: over_starts(rho, jnp.asarray(starts)), [RHO, 0.0])

    # The first three are within rho of the maximum.
    starts = np.array([0.001, 0.05, 0.09, 0.11, 0.3])
    line = descend(problems.double_well(), starts[:, None])[..., 0]
    plane = descend(problems.saddle(), np.array([[0.5, 0.03], [0.5, 0.3]]))
    # Both halves of the map are increasing: nothing leaves the images of 1 - 0, 1 + 0.
    ahead = np.array([1 + RHO, 1 - RHO])
    low, high = 1 - ETA * (ahead**3 - ahead)
    amplitude = si_yun.cycle_amplitude(ETA, smoothness=1.0, rho=RHO)
    stays, leaves = np.abs(line[0, :3, 200:]), line[0, 3:, 200:]
    data = {"iteration": checkpoints[:200], "wells": line[:, :, :200]}
    data["saddle"] = plane[:, :, :200]
    checks = claims.Checks()
    checks.at_most("|x| from within rho of the maximum", stays, ETA * RHO)
    checks.at_least("x from outside, smallest", leaves, low)
    checks.at_most("x from outside, largest", leaves, high)
    checks.close("|x| at the saddle", np.abs(plane[0, 0, -2:, 0]), amplitude, rtol=1e-9)
    checks.close("y at the saddle", plane[0, 0, -1, 1], 0.0, atol=1e-9)
    checks.at_least("|y| from the far start", abs(plane[0, 1, -1, 1]), 0.99)
    checks.close("|x| of GD in the wells", line[1, :, -1], 1.0, atol=1e-9)
    checks.close("y of GD at the saddle", plane[1, :, -1, 1], 1.0, atol=1e-9)
    picture = _picture(data, starts)
    return claims.Outcome(checks, picture, data)


def _picture(data: Mapping[str, Any], starts: np.ndarray) -> figure.Figure:
    picture, (left, right) = pictures.panels(2)
    shown = data["iteration"] + 1
    for start, path in zip(starts, data["wells"][0], strict=True):
        left.plot(shown, path, label=f"x_0 = {start:g}", linewidth=1)
    left.plot(shown, data["wells"][1, 0], ":", color="k", label="GD, x_0 = 0.001")
    left.axhspan(-ETA * RHO, ETA * RHO, color="#555555", alpha=0.25)
    pictures.linear(left, "iteration + 1", "x", "wells: maximum at 0, band eta h rho")
    left.set_xscale("log")
    x, y = np.meshgrid(np.linspace(-0.6, 0.6, 101), np.linspace(-1.2, 1.2, 121))
    height = (x**2 - y**2) / 2 + y**4 / 4
    right.contour(x, y, height, levels=15, colors="#bbbbbb", linewidths=0.6)
    names = {(0, 0): "SAM, near start", (0, 1): "SAM, far start", (1, 0): "GD, near"}
    for place, name in names.items():
        right.plot(*data["saddle"][place].T, ".-", ms=4, lw=0.8, label=name)
    pictures.linear(right, "x", "y", "saddle at (0, 0), minima at (0, +-1)")
    pictures.legends([left, right])
    return picture
