"""Figure 2: virtual losses. SAM is gradient descent on them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import figure

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import finite_sums, problems

CLAIM = claims.Claim(
    title="Figure 2: virtual losses, their kinks and their minimizers",
    source="Si and Yun 2023, Figure 2",
    statement=r"""SAM is gradient descent on the virtual gradient map
$G(x) = f'(x + \rho \operatorname{sign} f'(x))$; on the line $G$ is the derivative of a
virtual loss $J$ (unverified). Derived: for $\beta x^2/2$,

$$
J = \frac{\beta (|x| + \rho)^2}{2}
$$

up to a constant, with a kink at the minimizer, which does not move. On the stalling
wave the minimizers of $J$ are at $-0.1 \rho$ and $0.7 \rho$, not at $f$'s $-0.3 \rho$
and $0.9 \rho$. For m-SAM the mean of the components' virtual losses has its kinks at
the *components'* minimizers. Its own minimizer lies between them and is shifted by
$-\rho(2p - 1)$.""",
    recipe="""G from the library's SAM transform on a grid of 4,001 points, J by the
trapezoidal rule; beta = 1, rho = 0.3; the wave of this radius; parabolas with the
centers (-1, -1, 2), p = 2/3.""",
    criterion="""J agrees with its closed form to beta rho times a cell of the grid (the
rule's error at the kink), the jumps of G at the kinks to 1e-6, and the minimizers of J
to one cell.""",
)

RHO = 0.3
POINTS = 4_001
TITLES = {
    "quadratic": "deterministic, x^2/2",
    "wave": "deterministic, non-convex",
    "mean": "stochastic, mean over samples",
}


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    grids = {
        "quadratic": np.linspace(-1, 1, POINTS),
        "wave": np.linspace(-0.5 * RHO, 1.1 * RHO, POINTS),
        "mean": np.linspace(-1.6, 2.6, POINTS),
    }
    losses, values = _losses()
    slopes = {n: _virtual_gradient(losses[n], grid) for n, grid in grids.items()}
    virtual = {n: _integral(slopes[n], grid) for n, grid in grids.items()}
    plain = {
        n: np.asarray(jax.vmap(value)(jnp.asarray(grids[n])[:, None]))
        for n, value in values.items()
    }
    closed = (np.abs(grids["quadratic"]) + RHO) ** 2 / 2
    cells = {n: float(grid[1] - grid[0]) for n, grid in grids.items()}
    lowest = {n: _minimizers(virtual[n], grid) for n, grid in grids.items()}

    def jump(name: str, place: float) -> float:
        """The growth of G at a place beyond that of its slope, which is 1."""
        i = int(np.searchsorted(grids[name], place))
        return float(slopes[name][i + 2] - slopes[name][i - 2] - 4 * cells[name])

    kinks = [jump("mean", place) for place in (-1.0, 2.0, 0.5)]
    expected, at_zero = np.array([2, 1]) * 2 * RHO / 3, jump("quadratic", 0.0)
    found, cell = virtual["quadratic"], cells["quadratic"]
    checks = claims.Checks()
    checks.close(
        "minimizer of the mean virtual loss",
        lowest["mean"],
        -RHO / 3,
        atol=cells["mean"],
    )
    checks.close(
        "J of x^2/2 up to a constant",
        found - found[0],
        closed - closed[0],
        atol=cell * RHO,
    )
    checks.close(
        "minimizers of J on the wave / rho",
        lowest["wave"] / RHO,
        [-0.1, 0.7],
        atol=cells["wave"] / RHO,
    )
    checks.close("jump of G at 0 for x^2/2", at_zero, 2 * RHO, rtol=1e-6)
    checks.close("jumps of the mean G at -1 and 2", kinks[:2], expected, rtol=1e-6)
    checks.close("jump of the mean G in between", kinks[2], 0.0, atol=1e-6)
    keys, data = ("x", "f", "virtual_loss"), {}
    for name, minimizers in lowest.items():
        curves = grids[name][::20], plain[name][::20], virtual[name][::20]
        data[name] = dict(zip(keys, curves, strict=True)) | {"minimizers": minimizers}
    return claims.Outcome(checks, _picture(data), data)


def _losses() -> tuple[dict[str, list[problems.Value]], dict[str, problems.Value]]:
    """The losses on which SAM is gradient descent, and their means."""
    single, wave = problems.quadratic([1.0], [1.0]), problems.sinusoid(1.0, RHO, 0.0)
    parabolas = finite_sums.parabolas([-1.0, -1.0, 2.0])

    def component(row: int) -> problems.Value:
        return lambda x: parabolas.component_values(x, np.array([row]))[0]

    values = {"quadratic": single.value, "wave": wave.value, "mean": parabolas.value}
    losses = {"quadratic": [single.value], "wave": [wave.value]}
    return losses | {"mean": [component(row) for row in range(3)]}, values


def _virtual_gradient(losses: list[problems.Value], grid: np.ndarray) -> np.ndarray:
    """SAM's descent direction, averaged over the losses, on the grid."""
    tx = sam_jax.sam(RHO)

    def direction(loss: problems.Value, x: jax.Array) -> jax.Array:
        gradient = jax.grad(loss)
        return tx.update(gradient(x), tx.init(x), x, grad_fn=gradient)[0][0]  # pyright: ignore

    return runs.each(
        lambda x: jnp.stack([direction(loss, x[None]) for loss in losses]).mean(), grid
    )


def _integral(slope: np.ndarray, grid: np.ndarray) -> np.ndarray:
    steps = (slope[1:] + slope[:-1]) / 2 * np.diff(grid)
    return np.r_[0, np.cumsum(steps)]


def _minimizers(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    inner = (values[1:-1] < values[:-2]) & (values[1:-1] <= values[2:])
    return grid[1:-1][inner]


def _picture(data: Mapping[str, Any]) -> figure.Figure:
    picture, panels = pictures.panels(3, width=3.4)
    for panel, (name, title) in zip(panels, TITLES.items(), strict=True):
        x, loss, virtual, lowest = data[name].values()
        panel.plot(x, loss - loss.min(), label="f - f*")
        panel.plot(x, virtual - virtual.min(), label="J - J*")
        heights = np.interp(lowest, x, virtual - virtual.min())
        panel.plot(lowest, heights, "o", color=pictures.COLORS[1], ms=5)
        pictures.linear(panel, "x", "loss", title)
    for kink in (-1.0, 2.0):
        panels[2].axvline(kink, color="#555555", linestyle=":", linewidth=1)
    pictures.legends(panels)
    return picture
