"""What a report shows: the runs, and what their folders hold."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from sam_jax import errors
from sam_jax.page import charts
from sam_jax.page.markup import Html, escaped
from sam_jax.train import (
    comparison,
    data_record,
    examined,
    figures,
    labels,
    sharpness_files,
)
from sam_jax.train.comparison import Group, Run


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """What a page shows.

    Attributes:
        groups: the rows.
        styles: colour, dashes and marks of each; None where it has no curves.
        scores: id of a run -> what `examined.read` returns.
        sharpness: likewise; see `sharpness_files.read`.
        notes: what is missing, and why.
        images: whether wrong predictions are shown as images.
    """

    groups: Sequence[Group]
    styles: Sequence[int | None]
    scores: Mapping[int, dict[str, Any]]
    sharpness: Mapping[int, dict[str, Any]]
    notes: Sequence[str]
    images: bool = True

    @classmethod
    def of(cls, groups: Sequence[Group], *, images: bool = True) -> Self:
        """Reads what the folders of the runs hold."""
        check_data([run for group in groups for run in group.runs])
        scores, curved, notes, without, away = {}, {}, [], [], []
        for run in (run for group in groups for run in group.runs):
            if run.failure:
                notes.append(f"{run.name}: {run.failure}")
            if run.folder is None:
                continue
            try:
                if measured := sharpness_files.read(run.folder):
                    curved[id(run)] = measured
            except errors.UserError as error:
                notes.append(str(error))
            try:
                found = examined.read(run.folder)
            except errors.UserError as error:
                notes.append(str(error))
                continue
            if found and found["step"] == (run.last or {}).get("step"):
                scores[id(run)] = found
            elif run.last:
                (without if run.folder.is_dir() else away).append(run.name)
        if without:
            listed = ", ".join(without[:3]) + ", ..." * (len(without) > 3)
            notes.append(
                f"no predictions of the test set are kept of {len(without)} runs "
                f"({listed}): sam-jax report with --evaluate makes them"
            )
        if away:
            notes.append(
                f"the folders of {len(away)} runs are not here: curves and predictions "
                "are missing; give the folders of the runs themselves"
            )
        return cls(groups, styles(groups), scores, curved, notes, images)

    @property
    def drawn(self) -> list[tuple[Group, int]]:
        """Groups with curves, and their styles."""
        both = zip(self.groups, self.styles, strict=True)
        return [(group, style) for group, style in both if style is not None]

    @property
    def single(self) -> Run | None:
        """The run, if there is but one."""
        every = [run for group in self.groups for run in group.runs]
        return every[0] if len(every) == 1 else None

    def score(self, key: str) -> comparison.Measure:
        """A function of a run: one of the numbers of its test set."""
        return lambda run: self.scores.get(id(run), {}).get(key)

    @property
    def measures(self) -> dict[str, comparison.Measure]:
        """What runs are compared by, by its title."""
        kept = {k: v for k, v in comparison.MEASURES.items() if k != comparison.TIME}
        kept |= {"ECE": self.score("ece"), "NLL": self.score("nll")}
        return {
            name: measure
            for name, measure in kept.items()
            if any(group.of_seeds(measure) for group in self.groups)
        }


def check_data(runs: Sequence[Run]) -> None:
    """Refuses runs of different data sets side by side."""
    named = {(run.settings.get("data.name"),): run.name for run in runs}
    found: dict[tuple[Any, ...], str] = {}
    for run in runs:
        if run.folder and (run.folder / data_record.FILE).is_file():
            record = data_record.read(run.folder)
            found.setdefault((record.name, record.class_names), run.name)
    if len(named) > 1:  # also of runs whose folders are not there
        found = named
    if len(found) > 1:
        what = "; ".join(f"{run}: {name}" for (name, *_), run in found.items())
        raise errors.UserError(
            f"the runs are of different data sets ({what}): give those of one"
        )


def styles(groups: Sequence[Group]) -> list[int | None]:
    """A style for each group that is drawn; a method's own is the same on every page.

    Of very many groups the first one is drawn, and those with the least errors.

    Example:
        >>> def group(name):
        ...     flat = {"method.name": name, "optimizer.name": "sgd", "seed": 0}
        ...     return Group(name, {}, [Run(name, flat)])
        >>> styles([group("vasso"), group("sam"), group("none")])
        [3, 1, 0]
    """

    def error(place: int) -> float:
        spread = groups[place].spread(next(iter(comparison.MEASURES)))
        return math.inf if spread is None else spread.mean

    places = range(len(groups))
    others = sorted(places[1:], key=error)[: charts.STYLES - 1]
    drawn = sorted([0, *others])
    names = [labels.method_name(groups[x].runs[0].settings) for x in drawn]
    found = dict(zip(drawn, figures.slots(names), strict=True))
    return [found.get(place) for place in places]


def legend(seen: Seen) -> Html:
    """Which line is which group; nothing for a single one."""
    if len(seen.groups) == 1:
        return Html("")
    items = "".join(
        f"<span>{charts.swatch(style)}{escaped(group.label)}</span>"
        for group, style in seen.drawn
    )
    left = len(seen.groups) - len(seen.drawn)
    more = f'<span class="soft">{left} more rows have no curves</span>' * (left > 0)
    return Html(f'<div class="legend">{items}{more}</div>')
