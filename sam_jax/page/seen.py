"""What a report shows: the runs, and what their folders hold."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

from sam_jax import errors
from sam_jax.page import charts, sharpness
from sam_jax.page.markup import Html, escaped
from sam_jax.train import comparison, data_record, examined
from sam_jax.train.comparison import Group, Run

_MOST = charts.STYLES  # groups that have curves and pictures
_FIXED = {"sgd": 0, "sam": 1}  # the styles of some methods on every page


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """What a page shows.

    Attributes:
        groups: the rows; those that are drawn are the first ones.
        styles: colour, dashes and marks of each.
        scores: of each run, by the folder's name and the seed; see `examined.read`.
        sharpness: likewise; see `sharpness.read`.
        notes: what is missing, and why.
        images: whether wrong predictions are shown as images.
    """

    groups: Sequence[Group]
    styles: Sequence[int]
    scores: Mapping[int, dict[str, Any]]
    sharpness: Mapping[int, dict[str, Any]]
    notes: Sequence[str]
    images: bool = True

    @classmethod
    def of(cls, groups: Sequence[Group], *, images: bool = True) -> Self:
        """Reads what the folders of the runs hold.

        Raises:
            UserError: if the runs are of different data sets.
        """
        check_data([run for group in groups for run in group.runs])
        scores, curved, notes, without = {}, {}, [], []
        for run in (run for group in groups for run in group.runs):
            if run.failure:
                notes.append(f"{run.name}: {run.failure}")
            if run.folder is None:
                continue
            try:
                found = examined.read(run.folder)
            except errors.UserError as error:
                notes.append(str(error))
                continue
            if found and found["step"] == (run.last or {}).get("step"):
                scores[id(run)] = found
            elif run.last:
                without.append(run.name)
            if measured := sharpness.read(run.folder):
                curved[id(run)] = measured
        if without:
            notes.append(
                f"no predictions of the test set are kept of {', '.join(without)}: "
                "sam-jax report with --evaluate makes them"
            )
        return cls(groups, styles(groups), scores, curved, notes, images)

    @property
    def drawn(self) -> list[tuple[Group, int]]:
        """Groups with curves, and their styles."""
        return list(zip(self.groups, self.styles, strict=True))[:_MOST]

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
    """Refuses runs of different data sets side by side.

    Raises:
        UserError: naming them.
    """
    found = {}
    for run in runs:
        name, classes = run.settings.get("data.name"), None
        if run.folder and (run.folder / data_record.FILE).is_file():
            record = data_record.read(run.folder)
            name, classes = record.name, record.class_names
        found.setdefault((name, classes), run.name)
    names = {name for name, _ in found}
    known = {classes for _, classes in found} - {None}
    if len(names) > 1 or len(known) > 1:
        what = "; ".join(f"{run}: {name}" for (name, _), run in found.items())
        raise errors.UserError(
            f"the runs are of different data sets ({what}): give those of one"
        )


def styles(groups: Sequence[Group]) -> list[int]:
    """A style for each group; SGD and SAM have the same on every page.

    Example:
        >>> def group(name):
        ...     flat = {"method.name": name, "optimizer.name": "sgd"}
        ...     return Group(name, {}, [Run(name, flat)])
        >>> styles([group("vasso"), group("sam"), group("none")])
        [2, 1, 0]
    """
    names = [comparison.method_name(group.runs[0].settings) for group in groups]
    wanted = [_FIXED.get(name) for name in names]
    fixed = {s: wanted.index(s) for s in _FIXED.values() if s in wanted}
    free = [s for s in (2, 3, 4, 5, 6, 0, 1) if s not in fixed]
    places = iter(range(len(groups)))
    return [
        style
        if (style := wanted[number]) is not None and fixed[style] == number
        else (free or [0])[next(places) % len(free or [0])]
        for number in range(len(groups))
    ]


def legend(seen: Seen) -> Html:
    """Which line is which group; nothing for a single one."""
    if len(seen.groups) == 1:
        return Html("")
    items = "".join(
        f"<span>{charts.swatch(style)}{escaped(group.label)}</span>"
        for group, style in seen.drawn
    )
    left = len(seen.groups) - _MOST
    more = f'<span class="soft">{left} more rows have no curves</span>' * (left > 0)
    return Html(f'<div class="legend">{items}{more}</div>')
