"""Small pictures as text: SVG that a page holds, drawn without another package.

Lines differ by colour, by dashes and by marks, so that a grey print and
colour-blind readers see which is which. Colours are classes (``s0`` to ``s6``) that the
page's style fills in, for light and for dark screens.
"""

import dataclasses
import html
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

STYLES = 7  # that are told apart
_DASHES = ("", "8 3", "", "9 3 2 3", "2 3", "5 3", "2 2 6 2")
_MARKS = (
    '<circle cx="{x}" cy="{y}" r="3.2"/>',
    '<rect x="{l}" y="{t}" width="6" height="6"/>',
    '<path d="M{x} {t}l3.6 6h-7.2z"/>',
    '<path d="M{x} {t}l3.6 3.6l-3.6 3.6l-3.6 -3.6z"/>',
    '<circle class="hollow" cx="{x}" cy="{y}" r="3"/>',
    '<rect class="hollow" x="{l}" y="{t}" width="6" height="6"/>',
    '<path class="hollow" d="M{x} {t}l3.6 6h-7.2z"/>',
)
_TRACE = ("casing", "trace")  # the one below makes the other seen on any ground
_SMALL = 1e-30  # as good as 0
_MOST_POINTS, _MOST_MARKS = 160, 9
_WIDTH, _HEIGHT = 430, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 34


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """Points that are joined.

    Attributes:
        label: what it shows, for the legend and the pointer.
        style: number of its colour, dashes and marks.
        x: of the points, rising.
        y: of the points.
        low: lower edge of the band around it; None: no band.
        high: upper edge.
    """

    label: str
    style: int
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    about: str,
    *,
    log: bool | None = None,
    bounds: tuple[float, float] | None = None,
    x_bounds: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> str:
    """Lines over a common axis, with the bands that they have.

    Args:
        lines: to draw; points that are not finite are left out.
        x_label: below the axis.
        about: what the picture shows, for those who do not see it.
        log: a logarithmic axis; None: if the values are positive and span more than a
            factor of ten.
        bounds: of the y axis; None: those of the values.
        x_bounds: of the x axis, likewise.
        diagonal: draw y = x as well.

    Returns:
        An ``<svg>``; empty where there is no point.

    Example:
        >>> import numpy as np
        >>> line = Line("sam", 0, np.arange(3.0), np.array([3.0, 2.0, 1.5]))
        >>> line_chart([line], "epoch", "test error").count("<polyline")
        1
    """
    lines = [kept for line in lines if (kept := _finite(line)) is not None]
    if not lines:
        return ""
    edges = [e for line in lines for e in (line.y, line.low, line.high)]
    values = np.concatenate([e for e in edges if e is not None])
    low, high = bounds or (float(values.min()), float(values.max()))
    if not bounds and high - low < 1e-4 * abs(high):  # equal up to float32's rounding
        low, high = low - abs(low) / 2, high + abs(high) / 2
    if log is None:
        log = low > _SMALL and high / low > 10
    across = np.concatenate([line.x for line in lines])
    first, last = x_bounds or (float(across.min()), float(across.max()))
    x = _scale(first, last, _LEFT, _WIDTH - _RIGHT)
    margin = 0.0 if bounds or log else 0.04 * (high - low)
    ends = _HEIGHT - _BOTTOM, _TOP
    y = _scale(low - margin, high + margin, *ends, log=log)
    parts = [*_grid(x, y, x_label)]
    if diagonal:
        points = " ".join(f"{_n(x(v))},{_n(y(v))}" for v in (0, 1))
        parts.append(f'<polyline class="diagonal" points="{points}"/>')
    parts += [_band(line, x, y) for line in lines if line.low is not None]
    parts += [_joined(line, x, y) for line in lines]
    return _svg(_WIDTH, _HEIGHT, about, parts)


def dot_chart(
    rows: Sequence[tuple[str, int | None, Sequence[float], float, float | None]],
    x_label: str,
    about: str,
) -> str:
    """A row for each group: a dot for each seed, the mean and its interval.

    Args:
        rows: label, style or None, values of the seeds, mean, half of the interval or
            None.
        x_label: below the axis.
        about: what the picture shows, for those who do not see it.
    """
    values = [v for _, _, seeds, mean, _ in rows for v in (*seeds, mean)]
    spread = (max(values) - min(values)) or 1.0
    # An interval of two seeds may be of any width, and is cut at the edge.
    low = max(min(values) - spread, min(m - (h or 0) for *_, m, h in rows))
    high = min(max(values) + spread, max(m + (h or 0) for *_, m, h in rows))
    low, high = min(low, *values), max(high, *values)
    if min(values) >= 0:
        low = max(low, 0.0)
    pad = 0.05 * ((high - low) or 1.0)
    x = _scale(low - pad, high + pad, 12, _WIDTH - 62)
    height = 34 * len(rows) + 42
    parts = [*_ticks_below(x, height - 34, 4, x_label)]
    for number, (label, style, seeds, mean, half) in enumerate(rows):
        top = 34 * number + 4
        y = top + 22
        short = label if len(label) < 58 else f"{label[:55]}..."
        parts.append(f'<text class="row" x="4" y="{top + 11}">{_text(short)}</text>')
        kind = "plain" if style is None else f"s{style % STYLES}"
        parts.append(f'<g class="{kind}"><title>{_text(label)}</title>')
        if half is not None:
            left, right = _n(x(mean - half)), _n(x(mean + half))
            parts.append(f'<path class="bar" d="M{left} {y}H{right}"/>')
        parts += [f'<path class="seed" d="M{_n(x(v))} {y - 5}v10"/>' for v in seeds]
        parts.append(_mark(style or 0, x(mean), y) + "</g>")
        parts.append(
            f'<text class="value" x="{_WIDTH - 4}" y="{y + 4}">{mean:.2f}</text>'
        )
    return _svg(_WIDTH, height, about, parts)


def swatch(style: int) -> str:
    """A piece of a line and its mark, for a legend."""
    line = f'<path class="line" {_dashes(style)}d="M1 7H33"/>'
    inner = f'<g class="s{style % STYLES}">{line}{_mark(style, 17, 7)}</g>'
    return f'<svg class="swatch" viewBox="0 0 34 14" aria-hidden="true">{inner}</svg>'


def matrix(counts: np.ndarray, names: Sequence[str], about: str) -> str:
    """Of every true class (row) how often each class was predicted (column).

    What is right and what is wrong have a colour each; the darker, the larger the share
    of the true class, wrong ones in relation to the largest of them.
    """
    classes = len(counts)
    few = classes <= 20
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.nan_to_num(counts / counts.sum(1, keepdims=True))
    right = np.eye(classes, dtype=bool)
    worst = max(float(share[~right].max(initial=0.0)), 1e-9)
    level = np.ceil(6 * np.sqrt(np.where(right, share, share / worst))).astype(int)
    cell = min(60, max(26, 240 // classes)) if few else max(1, 520 // classes)
    longest = max(_wide(_short(name)) for name in names)
    left, top = (24 + 7.4 * longest, 34 + 5.2 * longest) if few else (46, 40)
    side = cell * classes
    parts = [
        f'<rect class="paper" x="{left:g}" y="{top:g}" width="{side}" height="{side}"/>'
    ]
    for kind, where in (("right", right), ("wrong", ~right)):
        for step in range(1, 7):
            found = np.argwhere(where & (level == step) & (counts > 0))
            cells = "".join(
                f"M{_n(left + cell * column)} {_n(top + cell * row)}"
                f"h{cell}v{cell}h-{cell}z"
                for row, column in found.tolist()
            )
            if cells:
                parts.append(f'<path class="{kind} v{step}" d="{cells}"/>')
    if few:
        parts += _names(names, cell, left, top)
        parts += [
            f'<text class="cell{" over" * bool(level[row, column] > 3)}" '
            f'x="{left + cell * (column + 0.5):g}" '
            f'y="{top + cell * (row + 0.5) + 3.5:g}">{counts[row, column]}'
            f"<title>{_text(names[row])} → {_text(names[column])}: "
            f"{counts[row, column]} ({100 * share[row, column]:.1f} %)</title></text>"
            for row, column in np.argwhere(counts > 0).tolist()
        ]
    else:
        parts += _numbers(classes, cell, left, top)
    middle = left + side / 2
    parts.append(f'<text class="axis" x="{middle:g}" y="12">predicted class</text>')
    turned = f"translate(11 {top + side / 2:g}) rotate(-90)"
    parts.append(f'<text class="axis" transform="{turned}">true class</text>')
    right_of = max(left + side + (0.7 * top if few else 4), 300)
    return _svg(right_of, top + side + 4, about, parts)


def heat_map(
    values: np.ndarray,
    x: Sequence[float],
    y: Sequence[float],
    about: str,
    trace: Sequence[tuple[float, float]] = (),
    bounds: tuple[float, float] | None = None,
) -> str:
    """Numbers over a plane, the darker the larger, in steps of equal logarithms.

    Args:
        values: [len(x), len(y)]; what is not finite stays blank.
        x: places to the right.
        y: places upwards.
        about: what the picture shows, for those who do not see it.
        trace: points to join over it; the last one is marked.
        bounds: of the lightest and the darkest; None: those of the values.
    """
    values = np.asarray(values, float)
    good = np.isfinite(values)
    if not good.any():
        return ""
    low, high = bounds or (values[good].min(), values[good].max())
    unit = abs(low) + 1e-12
    depth = np.log1p(np.clip(np.where(good, values, low) - low, 0, None) / unit)
    steps = np.ceil(8 * depth / (np.log1p((high - low) / unit) or 1.0))
    level = np.where(good, np.minimum(steps, 8), -1).astype(int)
    size, left, top = 260, 52, 10
    wide, tall = size / len(x), size / len(y)
    parts = []
    for step in range(9):
        cells = "".join(
            f"M{_n(left + wide * i)} {_n(top + size - tall * (j + 1))}"
            f"h{_n(wide)}v{_n(tall)}h-{_n(wide)}z"
            for i, j in np.argwhere(level == step).tolist()
        )
        if cells:
            parts.append(f'<path class="heat h{step}" d="{cells}"/>')
    across = _scale(x[0], x[-1], left + wide / 2, left + size - wide / 2)
    parts += _ticks_below(across, top + size, top + size, "along the first direction")
    up = _scale(y[0], y[-1], top + size - tall / 2, top + tall / 2)
    parts += [
        f'<text class="tick left" x="{left - 6}" y="{_n(up(v) + 4)}">{v:g}</text>'
        for v in _ticks(y[0], y[-1])
    ]
    points = " ".join(f"{_n(across(a))},{_n(up(b))}" for a, b in trace)
    if trace:
        parts += [f'<polyline class="{k}" points="{points}"/>' for k in _TRACE]
        end_x, end_y = _n(across(trace[-1][0])), _n(up(trace[-1][1]))
        parts.append(f'<circle class="end" cx="{end_x}" cy="{end_y}" r="4"/>')
    return _svg(left + size + 12, top + size + 34, about, parts)


# ── Parts ────────────────────────────────────────────────────────────────────────────


def _svg(width: float, height: float, about: str, parts: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{_text(about)}">{"".join(parts)}</svg>'
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _n(value: float) -> str:
    """A place with a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


@dataclasses.dataclass(frozen=True)
class _Scale:
    """From numbers to places: a linear function, of the logarithm if there is one."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = (math.log10(max(v, _SMALL)) for v in (low, high, value))
        value = min(max(value, low), high)
        return self.start + (self.end - self.start) * (value - low) / (high - low)


def _scale(
    low: float, high: float, start: float, end: float, log: bool = False
) -> _Scale:
    size = max(abs(low), abs(high), _SMALL)
    if high - low <= 1e-9 * size:  # a single number stands in the middle
        half = abs(low) / 2 or 0.5
        low, high = low - half, low + half
    return _Scale(low, high, start, end, log)


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers in between.

    Example:
        >>> _ticks(0.0, 12.0)
        [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    """
    unit = 10 ** math.floor(math.log10((high - low) / most))
    step = next(s * unit for s in (1, 2, 5, 10) if (high - low) / (s * unit) <= most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{step * k:.9g}") for k in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, -(-(last - first) // 6))
    steps: Sequence[float] = (1.0, 2.0, 5.0) if last - first <= 2 else (1.0,)
    found = [s * 10.0**k for k in range(first, last + 1, every) for s in steps]
    found = [v for v in found if low * 0.999 <= v <= high * 1.001]
    return found if len(found) > 1 else _ticks(low, high)


def _grid(x: _Scale, y: _Scale, x_label: str) -> Iterable[str]:
    ticks = _log_ticks(y.low, y.high) if y.log else _ticks(y.low, y.high)
    for value in ticks:
        place = _n(y(value))
        yield f'<path class="rule" d="M{_LEFT} {place}H{_WIDTH - _RIGHT}"/>'
        at = f'x="{_LEFT - 6}" y="{_n(y(value) + 4)}"'
        yield f'<text class="tick left" {at}>{value:g}</text>'
    yield from _ticks_below(x, _HEIGHT - _BOTTOM, _TOP, x_label)


def _ticks_below(x: _Scale, bottom: float, top: float, label: str) -> Iterable[str]:
    for value in _ticks(x.low, x.high):
        place = _n(x(value))
        yield f'<path class="rule" d="M{place} {_n(top)}V{_n(bottom)}"/>'
        yield f'<text class="tick" x="{place}" y="{_n(bottom + 14)}">{value:g}</text>'
    middle = _n((x.start + x.end) / 2)
    yield f'<text class="axis" x="{middle}" y="{_n(bottom + 29)}">{_text(label)}</text>'


def _finite(line: Line) -> Line | None:
    """The line without what cannot be drawn; of very many points, means of groups."""
    keep = np.isfinite(line.x) & np.isfinite(line.y)
    band = [e for e in (line.low, line.high) if e is not None]
    for edge in band:
        keep &= np.isfinite(edge)
    if not keep.any():
        return None
    found = [array[keep] for array in (line.x, line.y, *band)]
    if keep.sum() > 2 * _MOST_POINTS:
        cut = [np.array_split(array, _MOST_POINTS) for array in found]
        parts: list[Callable[[np.ndarray], np.ndarray]] = [np.mean, np.mean]
        if not band:  # their range is the band
            cut += [cut[1], cut[1]]
        parts += [np.min, np.max]
        found = [
            np.array([of(group) for group in groups])
            for of, groups in zip(parts, cut, strict=True)
        ]
    return Line(line.label, line.style, *found)


def _band(line: Line, x: _Scale, y: _Scale) -> str:
    assert line.low is not None and line.high is not None
    there = list(zip(line.x, line.high, strict=True))
    back = list(zip(line.x[::-1], line.low[::-1], strict=True))
    points = " ".join(f"{_n(x(a))},{_n(y(b))}" for a, b in there + back)
    shape = f'<polygon class="band" points="{points}"/>'
    return f'<g class="s{line.style % STYLES}">{shape}</g>'


def _joined(line: Line, x: _Scale, y: _Scale) -> str:
    places = [(x(a), y(b)) for a, b in zip(line.x, line.y, strict=True)]
    points = " ".join(f"{_n(a)},{_n(b)}" for a, b in places)
    drawn = f'<polyline class="line" {_dashes(line.style)}points="{points}"/>'
    every = -(-len(places) // _MOST_MARKS)
    # Lines that run together have their marks at different places.
    first = line.style % every
    marks = "".join(_mark(line.style, *at) for at in places[first::every])
    last = _text(f"{line.label}: {line.y[-1]:.4g} at {line.x[-1]:.4g}")
    kind = f"s{line.style % STYLES}"
    return f'<g class="{kind}"><title>{last}</title>{drawn}{marks}</g>'


def _dashes(style: int) -> str:
    dashes = _DASHES[style % STYLES]
    return f'stroke-dasharray="{dashes}" ' if dashes else ""


def _mark(style: int, x: float, y: float) -> str:
    return _MARKS[style % STYLES].format(x=_n(x), y=_n(y), l=_n(x - 3), t=_n(y - 3.4))


def _names(names: Sequence[str], cell: int, left: float, top: float) -> Iterable[str]:
    for number, name in enumerate(names):
        shown = f"{_text(_short(name))}<title>{_text(name)}</title>"
        place = cell * (number + 0.5)
        at = f'x="{left - 6}" y="{top + place + 4:g}"'
        yield f'<text class="tick left" {at}>{shown}</text>'
        turned = f"translate({left + place + 3:g} {top - 6}) rotate(-45)"
        yield f'<text class="tick up" transform="{turned}">{shown}</text>'


def _short(name: str, most: int = 14) -> str:
    """As much of a name as there is room for.

    Example:
        >>> _short("bicycle"), _short("electric bicycle")
        ('bicycle', 'electric bicy…')
    """
    if _wide(name) <= most:
        return name
    return next(f"{name[:n]}…" for n in range(most, 0, -1) if _wide(name[:n]) < most)


def _wide(name: str) -> float:
    """Widths of a letter; capitals have more, those of Chinese and Japanese two."""
    large = sum(x.isupper() or x in "mw@%" for x in name)
    double = sum(unicodedata.east_asian_width(x) in "WF" for x in name)
    return len(name) + 0.5 * large + double


def _numbers(classes: int, cell: int, left: float, top: float) -> Iterable[str]:
    for number in _ticks(0, classes - 1):
        place = cell * (number + 0.5)
        at = f'x="{left - 4}" y="{top + place + 4:g}"'
        yield f'<text class="tick left" {at}>{number:g}</text>'
        yield f'<text class="tick" x="{left + place:g}" y="{top - 3}">{number:g}</text>'
