"""How all pictures of the laboratory look."""

from collections.abc import Sequence
from typing import Any

import cycler
import matplotlib
import numpy as np
from matplotlib import axes, figure

# Colour-blind safe (Okabe and Ito).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BOUND: dict[str, Any] = {"color": "#555555", "linestyle": "--", "linewidth": 1.0}


def panels(
    count: int = 1, *, width: float = 4.2, height: float = 3.2
) -> tuple[figure.Figure, list[axes.Axes]]:
    """A picture of one row of panels.

    Args:
        count: number of panels.
        width: of a panel, in inches.
        height: of the picture, in inches.

    Returns:
        The picture and its panels.
    """
    settings: Any = {
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.prop_cycle": cycler.cycler(color=COLORS),
        "lines.linewidth": 1.4,
    }
    with matplotlib.rc_context(settings):
        picture = figure.Figure(
            figsize=(width * count + 0.4, height), layout="constrained"
        )
        made = picture.subplots(1, count, squeeze=False)[0]
    return picture, list(made)


def bound(panel: axes.Axes, x: Any, y: Any, label: str) -> None:
    """A predicted value or bound, dashed; a number ``y`` is a horizontal line."""
    if np.ndim(y) == 0:
        panel.axhline(float(y), label=label, **BOUND)
    else:
        panel.plot(x, y, label=label, **BOUND)


def log_log(panel: axes.Axes, x: str, y: str, title: str = "") -> None:
    """Names the axes, both logarithmic."""
    panel.set_xscale("log")
    log_y(panel, x, y, title)


def log_y(panel: axes.Axes, x: str, y: str, title: str = "") -> None:
    """Names the axes, the vertical one logarithmic."""
    panel.set_yscale("log")
    linear(panel, x, y, title)


def linear(panel: axes.Axes, x: str, y: str, title: str = "") -> None:
    """Names the axes and the panel."""
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    if title:
        panel.set_title(title)


def legends(made: Sequence[axes.Axes], **settings: Any) -> None:
    """A legend in each panel that has something to tell."""
    for panel in made:
        if panel.get_legend_handles_labels()[0]:
            panel.legend(**{"fontsize": 8, "framealpha": 0.7} | settings)
