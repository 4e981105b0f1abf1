"""Pictures of training curves: loss, error and what the method measured.

A colour means the same everywhere: blue is train, orange validation, green test. The
colours are those of Okabe and Ito (2008, "Color Universal Design"), which colour-blind
readers can tell apart.
"""

import io
import logging
import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sam_jax import errors, storage
from sam_jax.train import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRAIN, _VALIDATION, _TEST = "#0072B2", "#E69F00", "#009E73"
_SKY, _VERMILION, _PURPLE, _GREY = "#56B4E9", "#D55E00", "#CC79A7", "#555555"

# A curve of more points is drawn as the means and ranges of this many groups of them.
_GROUPS = 150
# The points of a curve with fewer than this are marked.
_MARKED = 40


class Curve(NamedTuple):
    """One metric of one split and how it is drawn.

    Attributes:
        split: ``"train"``, ``"validation"`` or ``"test"``.
        metric: name of the metric.
        label: its name in the legend.
        color: a Matplotlib colour.
        style: a Matplotlib line style.
    """

    split: str
    metric: str
    label: str
    color: str
    style: str = "-"


# What is drawn later lies above: validation is dashed, so that an equal test shows.
LOSS = (
    Curve("train", "loss", "train", _TRAIN),
    Curve("train", "perturbed_loss", "train, perturbed", _SKY),
    Curve("test", "loss", "test", _TEST),
    Curve("validation", "loss", "validation", _VALIDATION, "--"),
)
ACCURACY = (
    Curve("train", "accuracy", "train", _TRAIN),
    Curve("train", "true_accuracy", "train, true labels", _SKY),
    Curve("test", "accuracy", "test", _TEST),
    Curve("validation", "accuracy", "validation", _VALIDATION, "--"),
)
NORMS = (
    Curve("train", "grad_norm", "gradient norm", _VERMILION),
    Curve("train", "perturbation_norm", "perturbation norm", _PURPLE),
)
COSINE = (Curve("train", "gradient_cosine", "cosine (right)", _GREY),)
LEARNING_RATE = (Curve("train", "learning_rate", "learning rate", _GREY),)

Points = dict[Curve, tuple[np.ndarray, np.ndarray]]


def draw_curves(
    history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], title: str
) -> None:
    """Draw the curves of a run as a PNG picture.

    Left the loss, in the middle the error in percent, right the norms that the method
    measured and the cosine between the gradients at the weights and at the perturbed
    weights, or the learning rate if nothing was measured. The axes of loss, error and
    norms are logarithmic if they span more than a factor of ten. A dotted line is where
    the training loss was first not finite.

    Args:
        history: lines of a ``metrics.jsonl``; see `sam_jax.train.metrics.read_history`.
        path: picture to write; one that is there stays until the new one is complete.
        title: what stands above the panels.
    """
    # That it looks for fonts, for seconds, is no news of the run.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    # Objects instead of pyplot, which keeps figures and a backend in global variables.
    with errors.needing("train"):
        from matplotlib import ticker
        from matplotlib.figure import Figure

    history = [row for row in history if "epoch" in row]
    figure = Figure(figsize=(13.5, 4.6), dpi=150, layout="constrained")
    title = "\n".join(textwrap.wrap(title, 110))
    figure.suptitle(title, fontsize=13, parse_math=False)
    left, middle, right = panels = figure.subplots(1, 3)

    _panel(left, "loss", _points(history, LOSS), log=True)
    accuracy = _points(history, ACCURACY).items()
    error = {curve: (x, 100 * (1 - y)) for curve, (x, y) in accuracy}
    _panel(middle, "error (%)", error, log=True)
    norms, cosine = _points(history, NORMS), _points(history, COSINE)
    twins = {}
    if norms or cosine:
        _panel(right, "norm", norms, log=True)
    else:
        _panel(right, "learning rate", _points(history, LEARNING_RATE))
    if cosine:
        twins[right] = right.twinx()
        _panel(twins[right], "cosine of the two gradients", cosine)
        twins[right].grid(False)
        lowest = min(values.min() for _, values in cosine.values())
        twins[right].set_ylim(0 if lowest >= 0 else -1.02, 1.02)

    last_epoch = max((row["epoch"] for row in history), default=0.0) or 1.0
    diverged = _first_not_finite(history)
    for axes in panels:
        axes.set_xlim(0, 1.02 * last_epoch)
        axes.set_xlabel("epoch", fontsize=11)
        axes.xaxis.set_major_locator(ticker.MaxNLocator("auto", integer=True))
        if diverged is not None:
            axes.axvline(
                diverged, color=_GREY, linestyle=":", linewidth=1.2, label="not finite"
            )
        _legend(axes, twins.get(axes))
    save(figure, storage.path(path))


def is_whole(path: Path) -> bool:
    """Whether a file is a PNG picture from its first bytes to its last."""
    data = path.read_bytes() if path.is_file() else b""
    return data.startswith(b"\x89PNG\r\n\x1a\n") and data.endswith(b"IEND\xaeB`\x82")


def _points(history: Sequence[Mapping[str, Any]], curves: Sequence[Curve]) -> Points:
    """Epochs and finite values, both [points], of the curves that have any."""
    found = {}
    for curve in curves:
        points = [
            (row["epoch"], row[curve.metric])
            for row in history
            if row["split"] == curve.split
            and math.isfinite(row.get(curve.metric, math.nan))
        ]
        if points:
            epochs, values = np.asarray(points, float).T
            found[curve] = epochs, values
    return found


def _first_not_finite(history: Sequence[Mapping[str, Any]]) -> float | None:
    """Epoch of the first training loss that is NaN or infinite."""
    for row in history:
        if row["split"] == "train" and not math.isfinite(row.get("loss", 0.0)):
            return row["epoch"]
    return None


def _panel(axes: "Axes", name: str, points: Points, *, log: bool = False) -> None:
    """Draw curves over epochs; on a logarithmic axis if allowed and worth it."""
    axes.set_ylabel(name, fontsize=11)
    axes.tick_params(labelsize=10)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["top"].set_visible(False)
    for curve, (epochs, values) in points.items():
        _draw(axes, curve, epochs, values)
    values = np.concatenate([values for _, values in points.values()] or [[]])
    positive = values[values > 0]
    if log and positive.size and values.min() >= 0:
        span = positive.max() / positive.min()
        if span > 10:
            _log_scale(axes, span)


def _draw(axes: "Axes", curve: Curve, epochs: np.ndarray, values: np.ndarray) -> None:
    """Draw one curve; one of very many points as means and ranges of groups."""
    last = "" if curve.split == "train" else f" (last {values[-1]:.3g})"
    marked = len(values) < _MARKED
    drawn: dict[str, Any] = {
        "color": curve.color,
        "linestyle": curve.style,
        "label": curve.label + last,
        "marker": "o" if marked else None,
        "markersize": 3,
        "linewidth": 1.5 if marked or curve.split != "train" else 1.1,
    }
    if len(values) > 2 * _GROUPS:
        groups = np.array_split(values, _GROUPS)
        epochs = np.array([group.mean() for group in np.array_split(epochs, _GROUPS)])
        values = np.array([group.mean() for group in groups])
        lows, highs = zip(*((g.min(), g.max()) for g in groups), strict=True)
        axes.fill_between(
            epochs, lows, highs, color=curve.color, alpha=0.18, linewidth=0
        )
    axes.plot(epochs, values, **drawn)


def _log_scale(axes: "Axes", span: float) -> None:
    """A logarithmic axis with plain numbers, also between the powers of ten."""
    from matplotlib import ticker

    axes.set_yscale("log", nonpositive="clip")
    steps = (1.0, 2.0, 5.0) if span < 300 else (1.0,)
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def _legend(axes: "Axes", twin: "Axes | None") -> None:
    """A legend above the panel, where it covers nothing."""
    handles, _ = axes.get_legend_handles_labels()
    if twin is not None:
        handles += twin.get_legend_handles_labels()[0]
    if handles:
        axes.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=2,
            frameon=False,
            fontsize=10,
        )


def save(figure: "Figure", path: Path) -> None:
    """Writes a picture as PNG, whole or not at all.

    Args:
        figure: to draw.
        path: of the picture; one that is there stays until the new one is complete.

    Raises:
        WriteError: if it cannot be written.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150)
    files.replace(path, drawn.getvalue())
