"""What a lower error costs: the time of a row over that of the first one."""

import collections
import itertools
import pathlib
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.benchmarks import measure
from sam_jax.train import comparison, comparison_picture, figures
from sam_jax.train.comparison import TIME, Group
from sam_jax.train.comparison_picture import ERROR

COLUMNS = (
    "Of a time over that of the first row: the median of the ratios, seed by seed, "
    "[smallest, largest]; of the gain: the share in what SAM's mean error lies below "
    "that of the first row, of the means alone; the difference of the errors to SAM is "
    "seed by seed."
)
SHARE, PRICE = 0.9, 1.25  # of the gain that is kept, at how many times the time


def ratio(group: Group, first: Group) -> measure.Ratio | None:
    """Times over those of the first row, seed by seed: neighbours in time."""
    mine, others = group.of_seeds(TIME), first.of_seeds(TIME)
    seeds = [seed for seed in mine if seed in others]
    if not seeds:
        return None
    return measure.ratio([mine[s] for s in seeds], [others[s] for s in seeds])


def gain(group: Group, first: Group, whole: Group) -> float | None:
    """The share of a row in what another one gains over the first.

    Of the mean errors over the seeds that all three have; None if there is no gain.
    """
    errors = [each.of_seeds(ERROR) for each in (first, group, whole)]
    seeds = set.intersection(*map(set, errors))
    if not seeds:
        return None
    base, mine, least = (statistics.fmean(e[s] for s in seeds) for e in errors)
    return None if base <= least else (base - mine) / (base - least)


def cells(groups: Sequence[Group], whole: Group) -> list[dict[str, str]]:
    """Two more columns of a table, whose first row is the measure."""
    first = groups[0]
    found = []
    _, *beyond = comparison.differences([whole, *groups], ERROR)
    for group, difference in zip(groups, beyond, strict=True):
        share = gain(group, first, whole)
        found.append(
            {
                f"time / {first.label}": str(ratio(group, first) or "–"),
                "of the gain (%)": "–" if share is None else f"{100 * share:.0f}",
                f"difference to {whole.label}": str(difference or "–"),
            }
        )
    return found


def sentence(groups: Sequence[Group], whole: Group) -> str:
    """Which rows keep most of the gain for little time."""
    kept = []
    for group in groups[1:]:
        share, price = gain(group, groups[0], whole), ratio(group, groups[0])
        if share is not None and share >= SHARE and price and price.median <= PRICE:
            kept.append(f"{group.label} ({100 * share:.0f} %, {price.median:.2f} x)")
    return (
        f"By the means, at least {100 * SHARE:.0f} % of the gain of {whole.label} over "
        f"{groups[0].label} for at most {PRICE:g} times the time: "
        f"{', '.join(kept) or 'none'}."
    )


def draw(path: pathlib.Path, title: str, parts: Mapping[str, Sequence[Group]]) -> None:
    """Test error over time; a line joins the rows that no other one beats in both."""
    figure = figures.empty((9.5, 4.8 * len(parts)), title)
    panels = figure.subplots(len(parts), 1, squeeze=False)[:, 0]
    for axes, (name, groups) in zip(panels, parts.items(), strict=True):
        points: list[tuple[float, float]] = []
        marks = collections.defaultdict(lambda: itertools.cycle(figures.MARKS))
        for group, color in zip(
            groups, comparison_picture.of_groups(groups), strict=True
        ):
            spread, price = group.spread(ERROR), ratio(group, groups[0])
            if spread is None or price is None:
                continue
            points.append((price.median, spread.mean))
            style: dict[str, Any] = {"color": color, "marker": next(marks[color])}
            style |= {"ms": 8, "lw": 0, "elinewidth": 1, "capsize": 2}
            label = textwrap.fill(group.label, 40)
            axes.errorbar(*points[-1], spread.half or 0.0, label=label, **style)
        least = [min(error for time, error in points if time <= t) for t, _ in points]
        best = [p for p, error in zip(points, least, strict=True) if p[1] <= error]
        if best:
            axes.plot(*zip(*sorted(best), strict=True), "k:", lw=1, zorder=0)
        axes.axvline(PRICE, color="k", lw=0.5, alpha=0.5)
        axes.set(xlabel=f"time, in runs of {groups[0].label}", ylabel=ERROR)
        axes.set_title(name if len(parts) > 1 else "", loc="left", fontsize=10)
        axes.grid(alpha=0.3)
        beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
        axes.legend(frameon=False, fontsize=9, **beside)
    note = (
        "means and 95 % intervals over the seeds; time: median, seed by seed; dotted: "
        f"what no other row beats in both; line: {PRICE:g}"
    )
    figure.supxlabel(note, fontsize=9)
    figures.save(figure, path)
