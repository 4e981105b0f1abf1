"""Finished runs side by side: those that differ in the seed only are one row.

Nothing here trains, runs code that a run folder names, or imports JAX.
`comparison_files` writes what `read` takes again.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sam_jax import errors, storage
from sam_jax.train import data_record, files, labels, metrics, settings, typed
from sam_jax.train.results import RESULTS_FILE
from sam_jax.train.spread import Difference, Spread

FORMAT = 1  # of results.json; a reader refuses later ones
SEED, CONFIG_FILE = "seed", "config.json"
_UNFINISHED = "not finished"


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run has reached.

    Attributes:
        name: of its folder.
        settings: by their whole names, the seed as well.
        last: split -> loss and accuracy after the last epoch; None if it failed.
        best: likewise, after the epoch that was best on validation, if there is one.
        training_accuracy: of the last epoch, on the labels trained on.
        seconds: of training and evaluating.
        failure: why it has no results.
        folder: where its metrics are, if they are.
        extra: what else is known of it.
    """

    name: str
    settings: Mapping[str, Any]
    last: Mapping[str, Any] | None = None
    best: Mapping[str, Any] | None = None
    training_accuracy: float | None = None
    seconds: float | None = None
    failure: str | None = None
    folder: pathlib.Path | None = None
    extra: Mapping[str, Any] | None = None

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.settings[SEED]

    def error(self, which: str, split: str = "test") -> float | None:
        """In percent, of the ``last`` epoch or the ``best``."""
        scores = (getattr(self, which) or {}).get(split)
        return scores and 100 * (1 - scores["accuracy"])

    @property
    def failed(self) -> bool:
        """Whether it has ended without results; one that can go on has not."""
        return bool(self.failure) and not str(self.failure).startswith(_UNFINISHED)

    def is_whole(self) -> bool:
        """Whether what its files give as numbers are numbers."""
        try:
            numbers = [measure(self) for measure in MEASURES.values()]
            numbers += self.error("last", "validation"), (self.last or {}).get("epoch")
        except (AttributeError, KeyError, TypeError):
            return False
        return all(
            x is None or (isinstance(x, int | float) and math.isfinite(x))
            for x in numbers
        )

    @property
    def has_evaluation(self) -> bool:
        """Whether it has been evaluated."""
        return self.last is not None or bool(self.curve("test", "accuracy"))

    def curve(self, split: str, metric: str) -> dict[int, float]:
        """Epoch -> mean of a metric in it; empty if its metrics are not there.

        A row counts as often as there were updates since the one before.
        """
        found: dict[int, tuple[list[float], list[int]]] = {}
        before = 0
        for row in self.history:
            if row["split"] == split and {"epoch", metric} <= row.keys():
                steps, before = max(row["step"] - before, 1), row["step"]
                values, weights = found.setdefault(math.ceil(row["epoch"]), ([], []))
                values.append(row[metric])
                weights.append(steps)
        return {
            epoch: float(np.average(values, weights=weights))
            for epoch, (values, weights) in found.items()
        }

    @functools.cached_property
    def history(self) -> list[dict[str, Any]]:
        """The rows of its metrics, if they are there."""
        path = self.folder and self.folder / metrics.METRICS_FILE
        return metrics.read_history(path) if path and path.is_file() else []


TIME = "time (s)"
Measure = Callable[[Run], float | None]
# Of a run, in the order of the table's columns; numbers of files have the same names.
MEASURES: Mapping[str, Measure] = {
    "test error (%)": lambda run: run.error("last"),
    "selected (%)": lambda run: run.error("best"),
    "training accuracy (%)": lambda run: (
        None if run.training_accuracy is None else 100 * run.training_accuracy
    ),
    TIME: lambda run: run.seconds,
}


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in the seed only.

    Attributes:
        label: the method and what distinguishes it from the other groups.
        settings: those that not all groups share.
        runs: with different seeds.
    """

    label: str
    settings: Mapping[str, Any]
    runs: Sequence[Run]

    def values(self, measure: str) -> list[float]:
        """One of `MEASURES`, of the runs that have it."""
        return list(self.of_seeds(measure).values())

    def of_seeds(self, measure: str | Measure) -> dict[int, float]:
        """One of `MEASURES`, or a function like them: seed -> value."""
        number = MEASURES[measure] if isinstance(measure, str) else measure
        found = {run.seed: number(run) for run in self.runs}
        return {seed: value for seed, value in found.items() if value is not None}

    def spread(self, measure: str | Measure) -> Spread | None:
        """One of `MEASURES`, or a function like them, over the seeds."""
        return Spread.of(list(self.of_seeds(measure).values()))

    @property
    def failed(self) -> int:
        """How many runs have ended without results, as those that diverged."""
        return sum(run.failed for run in self.runs)

    @property
    def seeds(self) -> str:
        """How many runs there are, and how many of them have results or have failed."""
        finished = sum(run.last is not None for run in self.runs)
        total = len(self.runs)
        some = str(total) if finished == total else f"{finished} of {total}"
        return f"{some}, {self.failed} failed" if self.failed else some


# ── Reading ──────────────────────────────────────────────────────────────────────────


def read(path: str | os.PathLike[str], *, unfinished: bool = False) -> list[Run]:
    """The runs that a path stands for.

    Args:
        path: the folder of a finished run, or one with the ``results.json`` of a sweep
            or a comparison, or that file.
        unfinished: whether a run may have ended early, or continue: it has no ``last``.

    Raises:
        UserError: if it is neither, a run is not finished, or a file is damaged or of a
            later version.
    """
    folder = storage.path(path)
    if (folder / CONFIG_FILE).is_file():
        return [read_run(folder, unfinished=unfinished)]
    file = folder if folder.is_file() else folder / RESULTS_FILE
    if not file.is_file():
        what = "is not there"
        if folder.exists():
            what = f"is not the folder of a run, nor one with a sweep's {RESULTS_FILE}"
        raise errors.UserError(f"{folder} {what}: give the folders of finished runs")
    return _recorded(file)


def read_run(folder: pathlib.Path, *, unfinished: bool = False) -> Run:
    """What the folder of a finished run says; no code that it names is run."""
    flat, path = read_settings(folder), folder / RESULTS_FILE
    if not path.is_file():
        if unfinished:
            return _unfinished(folder, flat)
        raise errors.UserError(
            f"{folder} is not finished (no {RESULTS_FILE} in it): sam-jax resume "
            f"{folder} continues it"
        )
    remedy = f"delete it, and sam-jax resume {folder} makes it again"
    found = files.read_mapping(path, remedy)
    kept = {name: found.get(name) for name in ("last", "best", "seconds")}
    run = Run(_name(folder), flat, folder=folder, **kept)
    if not (run.is_whole() and run.error("last") is not None):
        raise errors.UserError(f"{path} is damaged, or from another version: {remedy}")
    reached = (run.last or {}).get("epoch")
    reached = flat["epochs"] if reached is None else reached
    if reached < flat["epochs"]:  # it continues for longer than it was planned
        if unfinished:
            return _unfinished(folder, flat)
        raise errors.UserError(
            f"{folder} is not finished ({reached:g} of {flat['epochs']} epochs): "
            f"sam-jax resume {folder} continues it"
        )
    accuracy = run.curve("train", "accuracy")
    last = accuracy.get(max(accuracy, default=0))
    return dataclasses.replace(run, training_accuracy=last)


def _name(folder: pathlib.Path) -> str:
    """Of a link, not of what it leads to."""
    return folder.name if folder.name not in ("", "..") else folder.resolve().name


class NotEvaluated(errors.UserError):
    """A run has not been evaluated yet."""


def _unfinished(folder: pathlib.Path, flat: dict[str, Any]) -> Run:
    run = Run(_name(folder), flat, folder=folder)
    reached = max((row.get("epoch", 0) for row in run.history), default=0)
    if not run.has_evaluation:
        raise NotEvaluated(
            f"{folder} has no finished evaluation yet: let the run train until it has "
            f"one (sam-jax resume {folder} continues one that was stopped)"
        )
    return dataclasses.replace(
        run, failure=f"{_UNFINISHED}: {reached:.3g} of {flat['epochs']} epochs"
    )


def read_settings(folder: pathlib.Path) -> dict[str, Any]:
    """All settings of a run by whole names; of earlier versions, with defaults."""
    path, defaults = folder / CONFIG_FILE, typed.plain(settings.Settings())
    remedy = "bring the file back, or leave the run out"
    tree = {**defaults, **files.read_mapping(path, remedy)}
    kinds = {SEED: int, "epochs": int, "batch_size": int}
    named = ("data", "method", "model")
    if not (
        all(isinstance(tree[key], kind) for key, kind in kinds.items())
        and all(isinstance(tree[key], dict) and "name" in tree[key] for key in named)
    ):
        raise errors.UserError(f"{path} is damaged: {remedy}")
    found = _of_data() | settings.flat(tree)
    if (folder / data_record.FILE).is_file():  # what was passed from Python
        record = data_record.read(folder)
        found["data.name"] = record.name
        found["model.name"] = record.network or found["model.name"]
    return found


def _of_data() -> dict[str, Any]:
    """Settings of the data with their defaults, for what an earlier version wrote."""
    return settings.flat({"data": typed.plain(settings.Settings())["data"]})


def _recorded(path: pathlib.Path) -> list[Run]:
    """The runs of a ``results.json`` that `write` has made."""
    record = files.read_mapping(
        path, "delete it, and the command that made it makes it again from its runs"
    )
    if record.get("format", FORMAT) != FORMAT:
        raise errors.UserError(f"{path} is of a later version of this package")
    try:
        known = _of_data() | record["settings"]
        found = [
            Run(
                **{key: run[key] for key in run if key != SEED},
                settings=known | group["settings"] | {SEED: run[SEED]},
                folder=path.parent / run["name"],
            )
            for group in record["groups"]
            for run in group["runs"]
        ]
        named = {"method.name", SEED}
        if all(run.is_whole() and named <= run.settings.keys() for run in found):
            return found
    except (KeyError, TypeError, AttributeError):
        pass
    raise errors.UserError(f"{path} is not what a sweep or a comparison has written")


def of_paths(
    paths: Iterable[str | os.PathLike[str]],
    *,
    tuned: bool = False,
    unfinished: bool = False,
) -> list[Group]:
    """What ``sam-jax compare`` prints and ``sam-jax report`` draws."""
    runs = (run for path in paths for run in read(path, unfinished=unfinished))
    return grouped(runs, tuned=tuned)


# ── Groups ───────────────────────────────────────────────────────────────────────────


def grouped(runs: Iterable[Run], *, tuned: bool = False) -> list[Group]:
    """Runs by their settings, those that change nothing and the seed aside.

    Args:
        runs: in the order of the rows.
        tuned: of groups whose coefficients of the method differ, only the one that is
            best on validation after the last epoch.

    Raises:
        UserError: if two runs of a group have the same seed, or there is no validation
            set to choose by.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps(compared(run.settings), sort_keys=True)
        found.setdefault(key, []).append(run)
    for same in found.values():
        of_seed: dict[int, Run] = {}
        for run in same:
            if (other := of_seed.setdefault(run.seed, run)) is not run:
                raise errors.UserError(
                    f"{other.folder} and {run.folder} have the same settings and the "
                    "same seed: give one of them, as a spread is over different seeds"
                )
    every = [compared(same[0].settings) for same in found.values()]
    names = labels.told_apart([labels.label(x, every, every) for x in every], every)
    groups = [
        Group(name, labels.differing(mine, every), same)
        for name, mine, same in zip(names, every, found.values(), strict=True)
    ]
    return _best(groups) if tuned else groups


def differences(
    groups: Sequence[Group], measure: str | Measure
) -> list[Difference | None]:
    """Of each group to the first one, which has None, seed by seed.

    None has another data set; there is no test of a group in which runs have failed.
    """
    if not groups:
        return []
    first, found = groups[0], list[Difference | None]()
    for group in groups:
        difference = None
        if group is not first and _data(group) == _data(first):
            difference = Difference.of(group.of_seeds(measure), first.of_seeds(measure))
        if difference and (group.failed or first.failed):
            difference = difference._replace(p=None)
        found.append(difference)
    return found


def _data(group: Group) -> tuple[Any, ...]:
    flat = group.runs[0].settings
    return flat.get("data.name"), flat.get("data.path")


def _best(groups: Sequence[Group]) -> list[Group]:
    best: dict[object, tuple[float, Group]] = {}
    for group in groups:
        error = float(np.mean([_validation_error(run) for run in group.runs]))
        others = {
            key: str(value)
            for key, value in group.settings.items()
            if key == "method.name" or not key.startswith("method.")
        }
        key = frozenset(others.items())
        if key not in best or error < best[key][0]:
            best[key] = error, group
    return [group for _, group in best.values()]


def _validation_error(run: Run) -> float:
    """After all epochs; one that diverged, or is only planned, is the worst."""
    if run.last is None:
        if run.failure and not run.failed:
            raise errors.UserError(
                f"{run.name} is {run.failure}: a choice by validation needs finished "
                "runs"
            )
        return 100.0
    if (error := run.error("last", "validation")) is None:
        raise errors.UserError(
            f"{run.name} has no validation set to choose by: hold examples out, for "
            "example with --config.data.validation=0.1"
        )
    return error


def compared(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that make a difference, the seed aside."""
    free = {*settings.FREE_SETTINGS, SEED} - {"data.path"}
    return {
        key: value
        for key, value in flat.items()
        if key not in free and not any(key.startswith(f"{x}.") for x in free)
    }
