"""The curves of a report: what the runs have logged, over the epochs."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sam_jax.page import charts
from sam_jax.page.markup import Html, figure
from sam_jax.train.comparison import Group

_SPLITS = {"train": 2, "validation": 5, "test": 3}  # and their styles
_SEVERAL = ("accuracy", "loss")  # on all splits
# What the method measures: title of the picture.
_OF_METHOD = {
    "sharpness": "sharpness: perturbed loss − loss",
    "grad_norm": "gradient norm",
    "perturbation_norm": "perturbation norm",
    "gradient_cosine": "cosine of the two gradients",
    "update_norm": "norm of the update",
    "learning_rate": "learning rate",
}
_SILENT = {
    *("step", "split", "wall_time", "epoch", "seconds", "examples_per_second"),
    *("true_accuracy", "perturbed_loss", *_SEVERAL),
}
_Drawn = Sequence[tuple[Group, int]]


def figures(drawn: _Drawn) -> list[Html]:
    """A figure for each quantity.

    Args:
        drawn: groups and their styles. The lines of a single one are the splits.
    """
    logged = [
        (row["split"], name)
        for group, _ in drawn
        for run in group.runs
        for row in run.history
        for name in row
    ]
    there = dict.fromkeys(logged)
    rows = (row for group, _ in drawn for run in group.runs for row in run.history)
    epochs = 0.0, max((row.get("epoch", 0.0) for row in rows), default=0.0)
    found = list(_of_splits(drawn, epochs))
    ours = [("train", name) for name in _OF_METHOD if ("train", name) in there]
    others = [
        (split, name)
        for split, name in there
        if name not in _SILENT | set(_OF_METHOD)
        and not name.endswith(("_residual", "_standard_error"))
    ]
    for split, name in ours + others:
        title = _OF_METHOD.get(name) or _title(split, name)
        lines = _lines(drawn, split, name)
        found.append(
            figure(title, charts.line_chart(lines, "epoch", title, x_bounds=epochs))
        )
    return [each for each in found if each]


def _title(split: str, name: str) -> str:
    return name if split == "sharpness" else f"{name}, {split}"


def _of_splits(drawn: _Drawn, epochs: tuple[float, float]) -> Iterator[Html]:
    """Errors and losses: of a single group with all splits in one picture."""
    for name in _SEVERAL:
        change: Callable[[np.ndarray], np.ndarray] = (
            (lambda y: 100 * (1 - y)) if name == "accuracy" else (lambda y: y)
        )
        quantity = "error (%)" if name == "accuracy" else "loss"
        if len(drawn) > 1:
            for split in ("test", "train"):
                title = f"{split} {quantity}"
                lines = _lines(drawn, split, name, change)
                yield figure(
                    title, charts.line_chart(lines, "epoch", title, x_bounds=epochs)
                )
            continue
        ((group, _),) = drawn
        lines = [
            line
            for split, style in _SPLITS.items()
            for line in _lines([(group, style)], split, name, change, label=split)
        ]
        more = "true_accuracy" if name == "accuracy" else "perturbed_loss"
        what = "train, true labels" if name == "accuracy" else "train, perturbed"
        lines += _lines([(group, 6)], "train", more, change, label=what)
        key = "".join(
            f"<span>{charts.swatch(line.style)}{line.label}</span>" for line in lines
        )
        picture = charts.line_chart(lines, "epoch", quantity, x_bounds=epochs)
        shown = f'<div class="legend">{key}</div>{picture}' if picture else ""
        yield figure(quantity, shown)


def _lines(
    drawn: _Drawn,
    split: str,
    name: str,
    change: Callable[[np.ndarray], np.ndarray] = lambda y: y,
    label: str | None = None,
) -> list[charts.Line]:
    found = []
    for group, style in drawn:
        if len(group.runs) == 1:
            rows = [
                (row["epoch"], row[name])
                for row in group.runs[0].history
                if row["split"] == split and {"epoch", name} <= row.keys()
            ]
            if rows:
                x, y = np.asarray(rows, float).T
                found.append(charts.Line(label or group.label, style, x, change(y)))
            continue
        curves = [run.curve(split, name) for run in group.runs]
        epochs = sorted(set().union(*curves))
        if not epochs:
            continue
        values = [
            change(np.array([c[epoch] for c in curves if epoch in c]))
            for epoch in epochs
        ]
        mean, low, high = (
            np.array([of(v) for v in values]) for of in (np.mean, np.min, np.max)
        )
        x = np.array(epochs, float)
        found.append(charts.Line(label or group.label, style, x, mean, low, high))
    return found
