"""The picture of a comparison: errors of all groups, curves of a few."""

import pathlib
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sam_jax.train import figures
from sam_jax.train.comparison import Group
from sam_jax.train.figures import COLORS
from sam_jax.train.spread import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ERROR, FIT = "test error (%)", "training accuracy (%)"
_MOST_ROWS = 100
_FEWEST = 3  # seeds of an interval that is drawn; of two, it hides the rest
NOTE = "dots: seeds; diamonds: means, with 95 % intervals for 3 seeds or more"


def draw(groups: Sequence[Group], path: pathlib.Path, title: str) -> None:
    """Test errors with their intervals and every seed, the least at the top.

    Beside them, where there are few groups and their metrics, test error and training
    accuracy over the epochs; bands are the intervals.
    """
    means = {id(g): spread.mean for g in groups if (spread := g.spread(ERROR))}
    shown = [group for group in groups if id(group) in means]
    ranked = sorted(shown, key=lambda group: means[id(group)])[:_MOST_ROWS]
    every = [run for group in shown for run in group.runs if run.last]
    few = 0 < len(shown) <= len(COLORS)
    has_curves = few and all(run.curve("test", "accuracy") for run in every)
    found = of_groups(shown)
    if has_curves:  # which are told apart by their colours
        found = [COLORS[slot] for slot in figures.slots([x.label for x in shown])]
    colors = {id(group): color for group, color in zip(shown, found, strict=True)}
    height = max(3.8 if has_curves else 2.2, 1.2 + 0.26 * len(ranked))
    size = (13.5, height) if has_curves else (8.0, height)
    figure = figures.empty(size, title)
    panels = figure.subplots(1, 3 if has_curves else 1, squeeze=False)[0]
    rows(panels[-1], ranked, [colors[id(group)] for group in ranked], ERROR)
    best = f", the best {len(ranked)} of {len(shown)}" * (len(ranked) < len(shown))
    what = f"test error after the last epoch (%){best}"
    panels[-1].set_xlabel(f"{what}\n{NOTE}", fontsize=9)
    if has_curves:
        _curves(panels[0], ERROR, shown, colors, "test")
        _curves(panels[1], FIT, shown, colors, "train")
    figures.save(figure, path)


def of_groups(groups: Sequence[Group]) -> list[str]:
    """Colours of rows: SGD's, SAM's, and one for all other methods."""
    names = [re.split("[(,]", group.label)[0] for group in groups]
    return [COLORS[{"sgd": 0, "sam": 1}.get(name, 2)] for name in names]


def rows(
    axes: "Axes", groups: Sequence[Group], colors: Sequence[str], measure: str
) -> None:
    """A row for each group: every seed, mean, interval, and the mean as a number."""
    edge: dict = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 8}
    axes.annotate("mean", (1.01, -0.75), **edge)
    for place, (group, color) in enumerate(zip(groups, colors, strict=True)):
        seeds = group.values(measure)
        if (spread := Spread.of(seeds)) is None:
            continue
        half = spread.half if len(seeds) >= _FEWEST else None
        axes.plot(seeds, [place] * len(seeds), "ok", ms=3, alpha=0.5, zorder=3)
        style: dict = {"fmt": "D", "color": color, "ms": 5, "lw": figures.WIDTH}
        axes.errorbar(spread.mean, place, xerr=half or 0.0, **style)
        axes.annotate(f"{spread.mean:.2f}", (1.01, place), **edge)
    labels = [textwrap.fill(group.label, 44) for group in groups]
    axes.set_yticks(range(len(groups)), labels, fontsize=9)
    axes.set_ylim(len(groups) - 0.3, -0.7)
    axes.set_xlim(left=max(0.0, axes.get_xlim()[0]))
    axes.grid(axis="x", alpha=0.3)


def _curves(
    axes: "Axes",
    label: str,
    groups: Sequence[Group],
    colors: dict[int, str],
    split: str,
) -> None:
    """Means over the seeds, and their intervals, over the epochs."""
    from matplotlib import ticker

    for group, dashes in zip(groups, figures.LINES * 2, strict=False):
        found = [run.curve(split, "accuracy") for run in group.runs if run.last]
        epochs = sorted(set.intersection(*(set(curve) for curve in found)))
        spreads = [Spread.of([100 * curve[e] for curve in found]) for e in epochs]
        mean = np.array([x.mean for x in spreads if x])
        half = np.array([x.half or 0.0 for x in spreads if x])
        mean = 100 - mean if label == ERROR else mean
        style: dict = {"color": colors[id(group)], "linestyle": dashes}
        axes.plot(epochs, mean, label=group.label, lw=figures.WIDTH, **style)
        low, high = np.clip([mean - half, mean + half], 0, 100)
        axes.fill_between(epochs, low, high, color=colors[id(group)], alpha=0.2, lw=0)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(ticker.MaxNLocator("auto", integer=True))
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
