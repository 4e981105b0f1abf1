"""The picture of training losses over the epochs, of a table that asks for it."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.training.engine import LOSSES
from experiments.training.table import Table
from sam_jax.train import figures
from sam_jax.train.comparison import Group
from sam_jax.train.figures import COLORS


def panels(
    table: Table, parts: Mapping[str, Sequence[Group]]
) -> dict[str, dict[str, np.ndarray]]:
    """Title -> label of a row -> losses ``[seeds, epochs]``.

    A panel for each part and each value of the setting that `Table.curves` names. Rows
    without losses are left out.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for title, groups in parts.items():
        values = [group.runs[0].settings[table.curves or ""] for group in groups]
        for value, group in zip(values, groups, strict=True):
            losses = [(run.extra or {}).get(LOSSES, ()) for run in group.runs]
            epochs = group.runs[0].settings["epochs"]  # some may be lost
            if whole := [each for each in losses if len(each) == epochs]:
                name = f"{title}, {value}" if len(set(values)) > 1 else title
                found.setdefault(name, {})[group.label] = np.array(whole)
    return found


def draw(
    path: pathlib.Path, table: Table, parts: Mapping[str, Sequence[Group]]
) -> None:
    """Writes means over the seeds, smallest and largest losses, if there are any."""
    if not (found := panels(table, parts)):
        return
    figure = figures.empty((4.6 * len(found), 4.2), table.title)
    axes_of = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (title, rows) in zip(axes_of, found.items(), strict=True):
        for slot, (label, losses) in enumerate(rows.items()):
            color = COLORS[slot % len(COLORS)]
            style: dict = {"color": color, "lw": figures.WIDTH}
            style["linestyle"] = figures.LINES[slot % len(figures.LINES)]
            epochs = np.arange(1, losses.shape[1] + 1)
            axes.plot(epochs, losses.mean(0), label=label, **style)
            low, high = losses.min(0), losses.max(0)
            axes.fill_between(epochs, low, high, color=color, alpha=0.2, lw=0)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    axes_of[0].set_ylabel("training loss")
    figure.supxlabel("lines: means; bands: smallest to largest", fontsize=9)
    figures.save(figure, path)
