"""The style of all pictures of the laboratory."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cycler
import matplotlib
import numpy as np
from matplotlib import axes, figure, gridspec, lines, text, ticker

from sam_jax.train import figures

COLORS = (*figures.COLORS[1:], figures.COLORS[0])
# The labels of some data in a picture.
WORDS = {"checkpoint": "steps", "horizon": "steps T", "gap": "f(x) - f*"}
BOUND: dict[str, Any] = {"color": "black", "linestyle": ":", "linewidth": 1.6}
# ASCII mathematics of labels and texts -> symbols.
GREEK = {
    **dict(alpha="α", beta="β", gamma="γ", delta="δ", Delta="Δ", epsilon="ε", eta="η"),
    **dict(theta="θ", lambda_="λ", lam="λ", mu="μ", nu="ν", pi="π", rho="ρ", sigma="σ"),
    **dict(tau="τ", phi="φ", zeta="ζ", inf="∞"),
}
SIGNS = {"||": "‖", "<=": "≤", ">=": "≥", "->": "→", "+-": "±", "sqrt(": "√("}
LOW = str.maketrans("0123456789aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ")
HIGH = str.maketrans("-0123456789nTtk", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹ⁿᵀᵗᵏ")
_LONG = 1e4  # numbers whose digits meet those of the next tick
_LOW = re.compile(r"(?<=\b[\wα-ω])_([0-9aehijklmnoprstuvx]{1,3})\b")
_HIGH = re.compile(r"\^(-?\d+|[nTtk])(?![\w.])")


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
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.linewidth": figures.WIDTH,
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


def legends(made: Sequence[axes.Axes]) -> None:
    """A legend below each panel, where it covers nothing; the look of its lines."""
    most = 0
    for panel in made:
        drawn = [x for x in panel.lines if not str(x.get_label()).startswith("_")]
        solid = [x for x in drawn if x.get_linestyle() != ":"]
        _distinguish(panel, solid)
        labels = panel.get_legend_handles_labels()[1]
        if labels:
            place: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}
            columns = 2 if _fit_twice(panel, labels) else 1
            panel.legend(**place, ncols=columns, fontsize=8, frameon=False)
            most = max(most, math.ceil(len(labels) / columns))
    if most:
        picture = made[0].get_figure(root=True)
        assert picture is not None
        picture.set_figheight(picture.get_figheight() + 0.18 * most)


def _fit_twice(panel: axes.Axes, labels: Sequence[str]) -> bool:
    """Whether two columns of labels fit the width of the panel, in inches."""
    picture = panel.get_figure(root=True)
    assert picture is not None
    width = picture.get_figwidth() / len(picture.axes)
    return 2 * (0.5 + 0.065 * max(map(len, labels))) <= width


def _distinguish(panel: axes.Axes, solid: Sequence[lines.Line2D]) -> None:
    """A method has its colour; long lines have their dashes, others their marks."""
    own = figures.slots([str(line.get_label()) for line in solid])
    colors = dict(zip([line.get_color() for line in solid], own, strict=True))
    looks = [*zip(figures.LINES * 2, figures.MARKS, strict=False)]
    look = dict(zip(colors, looks, strict=False))
    if len(colors) < len(solid):  # more lines than colours
        return
    for line in panel.lines:
        old = line.get_color()
        if old not in colors:
            continue
        dashes, mark = look[old]
        line.set_color(figures.COLORS[colors[old]])
        if line.get_marker() == "o" and np.size(line.get_xdata()) < 20:
            line.set_marker(mark)
        if line.get_linestyle() == "-":
            line.set_linestyle(dashes)


def symbols(words: str) -> str:
    """Mathematics of a text with its symbols, outside backquotes.

    Example:
        >>> symbols("||grad f(x_k)||^2 <= beta rho_k, not `grad f`")
        '‖∇f(xₖ)‖² ≤ β ρₖ, not `grad f`'
    """
    parts = words.split("`")
    for i in range(0, len(parts), 2):
        part = re.sub(r"<(\w+), ([^<>]+)>", r"⟨\1, \2⟩", parts[i])
        part = re.sub(r"\bgrad (?=[fEJ])", "∇", part)
        part = re.sub(r"\b(f|x|rho|gamma)\*", r"\1⋆", part)
        for name, sign in {**GREEK, **SIGNS}.items():
            name = name.rstrip("_")
            whole = rf"(?<![A-Za-z^]){name}(?![A-Za-z])" if name.isalpha() else None
            part = re.sub(whole or re.escape(name), sign, part)
        part = _LOW.sub(lambda found: found[1].translate(LOW), part)
        parts[i] = _HIGH.sub(lambda found: found[1].translate(HIGH), part)
    return "`".join(parts)


def finish(picture: figure.Figure) -> None:
    """Symbols in all texts, and numbers only at the powers of ten."""
    for panel in picture.axes:
        for axis in (panel.xaxis, panel.yaxis):
            if isinstance(shown := axis.get_major_formatter(), ticker.ScalarFormatter):
                shown.set_scientific(False)
                if max(map(abs, axis.get_view_interval())) >= _LONG:
                    axis.set_major_locator(ticker.MaxNLocator(3))
                    axis.set_major_formatter("{x:,.0f}")
            if axis.get_scale() == "log":
                low, high = axis.get_view_interval()
                narrow = high < 20 * low
                axis.set_minor_formatter(
                    ticker.FuncFormatter(_few) if narrow else ticker.NullFormatter()
                )
    for words in picture.findobj(text.Text):
        assert isinstance(words, text.Text)
        words.set_text(symbols(words.get_text()))


def _few(value: float, _: int) -> str:
    """1, 2 and 5 of a decade."""
    first = f"{value:.6e}"[0]
    return f"{value:g}" if first in "25" else ""


def thumbnail(picture: figure.Figure) -> None:
    """Makes a picture small: its first panel, without words."""
    first, *others = picture.axes
    for panel in others:
        panel.remove()
    for words in (*first.texts, *filter(None, [first.get_legend()])):
        words.remove()
    first.set_subplotspec(gridspec.GridSpec(1, 1, figure=picture)[0])
    first.set(title="", xlabel="", ylabel="")
    first.tick_params(labelbottom=False, labelleft=False, which="both")
    picture.set_size_inches(2.0, 1.4)


class Panel(NamedTuple):
    """Curves of a claim's data, by their names there.

    Attributes:
        x: the horizontal values.
        y: the vertical values: vectors; arrays and mappings of vectors, a curve for
            each; numbers, horizontal lines.
        bounds: likewise, dashed.
        title: of the panel.
        by: the data that name the curves of an array.
        of: keys and indices into ``y`` and ``bounds`` that select the part to draw.
        log: the logarithmic axes.
        ylim: limits of the vertical axis.
        label: of the vertical axis; by default the first of ``y``.
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
    legends(made)
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

    Without a title the key is the title; ``settings`` are the other attributes of each
    `Panel`.
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
                label = "" if i else f"dotted: {_text(name)}"
                panel.plot(x, y, ":", color=color, linewidth=1.4, label=label)
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
