"""Sharpness and landscape in a report, from the ``sharpness.json`` of the runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sam_jax.page import charts
from sam_jax.page.markup import Html, escaped, figure, grid, paragraph, table
from sam_jax.train.comparison import Group, Run, differences
from sam_jax.train.sharpness_files import FILE

_Drawn = Sequence[tuple[Group, int]]
_Found = Mapping[int, Mapping[str, Any]]


def section(groups: Sequence[Group], drawn: _Drawn, found: _Found) -> Html:
    """Measures over the seeds, and pictures of one run of each group."""
    if not found:
        return Html("")
    try:
        return Html(_measures(groups, found) + _pictures(drawn, found))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        return paragraph(f"{FILE} cannot be shown: {error!r}", "note")


def _measures(groups: Sequence[Group], found: _Found) -> Html:
    of_name: dict[str, list[Mapping[str, Any]]] = {}
    for each in found.values():
        for name, entry in each.get("measures", {}).items():
            of_name.setdefault(name, []).append(entry)
    if not of_name:
        return Html("")
    rows = []
    for name, entries in of_name.items():

        def of_run(run: Run, name: str = name) -> float | None:
            entry = found.get(id(run), {}).get("measures", {}).get(name)
            return entry and entry["value"]

        spreads = [group.spread(of_run) for group in groups]
        cells: list[object] = [
            "–"
            if s is None
            else f"{s.mean:.4g}" + ("" if s.half is None else f" ± {s.half:.2g}")
            for s in spreads
        ]
        for number, difference in enumerate(differences(groups, of_run)):
            if difference and difference.p is not None:
                small = escaped(difference.tested)
                cells[number] = Html(f"{cells[number]}<br><small>{small}</small>")
        # Usually the same for all runs; else all of it is said.
        how = escaped("; or ".join(dict.fromkeys(map(_how, entries))))
        rows.append([Html(f"{escaped(name)}<br><small>{how}</small>"), *cells])
    labels = [group.label for group in groups]
    said = "± is half of the 95 % t-interval over seeds"
    said += "; p: paired t-test to the first column, seed by seed" * (len(groups) > 1)
    return Html(table(["measure", *labels], rows) + paragraph(f"{said}.", "soft"))


def _how(entry: Mapping[str, Any]) -> str:
    """What was measured, and on what."""
    numbers = [f"{key} {entry[key]:g}" for key in ("rho", "m") if entry.get(key)]
    where = f"{entry.get('examples')} examples of {entry.get('split')}"
    where += f" at step {entry['step']}" * ("step" in entry)
    norm = f"BatchNorm as in {entry.get('batch_norm')}"
    return ", ".join([str(entry.get("about", "")), *numbers, where, norm])


_PLANES = (
    ("plane", "loss over a plane"),
    ("trajectory", "the way of the weights"),
)
_LINES = (
    ("density", "density of the eigenvalues", "eigenvalue", "grid", "values"),
    ("line", "loss along a direction", "distance", "coordinates", "losses"),
    ("path", "loss on the way to another run", "place", "coordinates", "losses"),
)


def _pictures(drawn: _Drawn, found: _Found) -> Html:
    first = []
    for group, style in drawn:
        for run in group.runs:
            if pictures := found.get(id(run), {}).get("pictures"):
                first.append((f"{group.label}, seed {run.seed}", style, pictures))
                break
    if not first:
        return Html("")
    shown = []
    for kind, title, x_label, x_of, y_of in _LINES:
        of_kind = _above if kind == "density" else _flat
        lines = [
            charts.Line(label, style, _flat(p[kind][x_of]), of_kind(p[kind][y_of]))
            for label, style, p in first
            if kind in p
        ]
        shown.append(figure(title, charts.line_chart(lines, x_label, title)))
    for kind, title in _PLANES:
        losses = [np.asarray(p[kind]["losses"], float) for *_, p in first if kind in p]
        if not losses:
            continue
        # Of one scale, so that the settings can be compared; a loss may overflow.
        every = np.concatenate([x[np.isfinite(x)] for x in losses])
        if not every.size:
            continue
        low, high = every.min(), every.max()
        for label, _, pictures in first:
            if kind in pictures:
                entry = pictures[kind]
                about = f"{title}: {label}"
                trace = [(a, b) for a, b in entry.get("points", ())]
                values = np.asarray(entry["losses"], float)
                x, y = entry["coordinates"]
                picture = charts.heat_map(values, x, y, about, trace, (low, high))
                shown.append(figure(f"{about} (loss {low:.3g} to {high:.3g})", picture))
    return grid(shown)


def _above(values: Any) -> np.ndarray:
    """Six decades of the values, as many as a density has that mean something."""
    return np.maximum(_flat(values), 1e-6 * _flat(values).max())


def _flat(values: Any) -> np.ndarray:
    return np.asarray(values, float).reshape(-1)
