"""How all pictures of the laboratory look."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cycler
import matplotlib
import numpy as np
from matplotlib import axes, figure

# Colour-blind safe (Okabe and Ito).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# What some data are called in a picture.
WORDS = {"checkpoint": "steps", "horizon": "steps T", "gap": "f(x) - f*"}
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


class Panel(NamedTuple):
    """Curves of a claim's data, by their names there.

    Attributes:
        x: the horizontal values.
        y: what is drawn over them: vectors; arrays and mappings of vectors, a curve for
            each; numbers, horizontal.
        bounds: likewise, dashed.
        title: of the panel.
        by: the data that name the curves of an array.
        of: keys and indices into ``y`` and ``bounds``, which say what to draw of them.
        log: the logarithmic axes.
        ylim: limits of the vertical axis.
        label: of the vertical axis, the first of ``y`` if not given.
    """

    x: str
    y: str | Sequence[str]
    bounds: str | Sequence[str] = ()
    title: str = ""
    by: str = ""
    of: Sequence[Any] = ()
    log: str = "xy"
    ylim: tuple[float, float] | None = None
    label: str = ""


def draw(
    data: Mapping[str, Any], *chosen: Panel, width: float = 4.2, height: float = 3.2
) -> figure.Figure:
    """A picture of a claim's data: a row of panels, sizes in inches as in `panels`."""
    picture, made = panels(len(chosen), width=width, height=height)
    for panel, shown in zip(made, chosen, strict=True):
        _fill(panel, data, shown)
    legends(made, fontsize=7)
    return picture


def row(
    data: Mapping[str, Any],
    parts: Sequence[Any] | Mapping[Any, str],
    x: str,
    y: str | Sequence[str],
    bounds: str | Sequence[str] = (),
    *,
    width: float = 3.4,
    **settings: Any,
) -> figure.Figure:
    """A panel for each part of the data: keys of ``y`` and ``bounds`` and their titles.

    The title is the key itself where there is none; ``settings`` are the other
    attributes of each `Panel`.
    """
    titles = (
        parts if isinstance(parts, Mapping) else {part: str(part) for part in parts}
    )
    return draw(
        data,
        *(
            Panel(x, y, bounds, title, of=(part,), **settings)
            for part, title in titles.items()
        ),
        width=width,
    )


def _fill(panel: axes.Axes, data: Mapping[str, Any], shown: Panel) -> None:
    x = np.asarray(data[shown.x])
    numbers = np.issubdtype(x.dtype, np.number)
    style = "o" if numbers and (np.diff(x) < 0).any() else "o-" if len(x) < 20 else "-"
    labels = [_label(shown.by, value) for value in data[shown.by]] if shown.by else []
    solid, dashed = (
        [names] if isinstance(names, str) else list(names)
        for names in (shown.y, shown.bounds)
    )
    drawn = 0
    for name in solid + dashed:
        value = data[name]
        for place in shown.of:
            value = value[place]
        curves = list(_curves(name, value, labels, len(x)))
        for i, (label, y) in enumerate(curves):
            if y.ndim == 0 or (name in dashed and len(curves) == 1):
                bound(panel, x, y, label)
            elif name in dashed:  # in the colours of the first curves
                color = COLORS[i % len(COLORS)]
                label = "" if i else f"dashed: {_text(name)}"
                panel.plot(x, y, "--", color=color, linewidth=0.9, label=label)
            else:
                color = COLORS[drawn % len(COLORS)]
                panel.plot(x, y, style, color=color, label=label)
                drawn += 1
    linear(panel, _text(shown.x), shown.label or _text(solid[0]), shown.title)
    if "x" in shown.log:
        panel.set_xscale("log")
    if "y" in shown.log:
        panel.set_yscale("log")
    if shown.ylim:
        panel.set_ylim(*shown.ylim)


def _curves(
    name: str, value: Any, labels: Sequence[str], size: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Vectors of a size, and numbers; a vector of another size is several numbers."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _curves(str(key), part, labels, size)
        return
    array = np.asarray(value)
    if array.shape in ((), (size,)):
        yield _text(name), array
        return
    for i, part in enumerate(array):
        if array.ndim == 1:
            yield _text(name) if i == 0 else "", part
        else:
            yield from _curves(labels[i] if labels else f"{name} {i}", part, [], size)


def _label(by: str, value: Any) -> str:
    return value if isinstance(value, str) else f"{_text(by)} = {value:g}"


def _text(name: str) -> str:
    if name in WORDS:
        return WORDS[name]
    return name.replace("_", " ") if name.isidentifier() else name
