"""The files of a table: ``table.md``, ``table.json``, and its pictures."""

import dataclasses
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.training import curves, price
from experiments.training.engine import RECORD, Plan
from experiments.training.table import Table, own
from sam_jax.train import (
    comparison,
    comparison_files,
    comparison_picture,
    figures,
    files,
    labels,
    report,
    settings,
)
from sam_jax.train.comparison import Group, Measure, Run
from sam_jax.train.spread import FEWEST, LEVEL, significant

FITS = 99.5  # % of the training labels, below which a row is marked
_POWER = 0.8


def _extra(name: str, factor: float = 1.0) -> Measure:
    def of(run: Run) -> float | None:
        value = (run.extra or {}).get(name)
        return None if value is None else factor * value

    return of


ERROR = "test error (%)"
FIT = "training accuracy (%)"
MEASURES: Mapping[str, Measure] = {
    ERROR: comparison.MEASURES[ERROR],
    "validation error (%)": lambda run: run.error("last", "validation"),
    FIT: comparison.MEASURES[FIT],
    "noise (%)": _extra("error_noise", 100),
    "blur (%)": _extra("error_blur", 100),
    "contrast (%)": _extra("error_contrast", 100),
    "NLL": _extra("nll"),
    "ECE (%)": _extra("ece", 100),
}


def parts(table: Table, runs: Sequence[Run]) -> dict[str, list[Group]]:
    """Title -> rows, for each value of the setting that divides the table.

    The baseline comes first, the others in the order of the plan.
    """
    by, found = table.by, dict[str, list[Run]]()
    for run in runs:
        title = f"{by} = {run.settings.get(by)}" if by else table.title
        found.setdefault(title, []).append(run)
    return {
        title: _labelled(
            table,
            comparison.grouped(of_part, tuned=table.tuned),
            [comparison.compared(run.settings) for run in of_part],
        )
        for title, of_part in found.items()
    }


def _labelled(
    table: Table, groups: Sequence[Group], tried: Sequence[Mapping[str, Any]]
) -> list[Group]:
    """The baseline first; labels say what a row has otherwise than that.

    Of coefficients they say those that differ in what was tried.
    """
    ranked = sorted(groups, key=lambda group: not matches(table.baseline, group))
    if not matches(table.baseline, ranked[0]):
        return ranked
    every = [comparison.compared(group.runs[0].settings) for group in ranked]
    names = [labels.label(mine, tried, every[:1]) for mine in every]
    found = []
    for group, mine, name in zip(ranked, every, names, strict=True):
        # What the baseline does not have tells rows apart that have the same name.
        same = [each for each, other in zip(every, names, strict=True) if other == name]
        label = labels.label(mine, tried, [every[0], *same])
        found.append(dataclasses.replace(group, label=label))
    return found


def matches(where: Mapping[str, Any], group: Group) -> bool:
    """Whether a row has settings; nothing matches none."""
    mine = group.runs[0].settings
    return bool(where) and all(mine.get(key) == value for key, value in where.items())


def gainer(table: Table, groups: Sequence[Group]) -> Group | None:
    """The row whose gain over the first one is the measure, in a table of prices."""
    if not matches(table.baseline, groups[0]):
        return None
    return next((group for group in groups if matches(table.gain_of, group)), None)


def cells(table: Table, groups: Sequence[Group]) -> list[list[str]]:
    """The head and the rows of one part."""
    shown = [
        name for name, of in MEASURES.items() if any(g.of_seeds(of) for g in groups)
    ]
    compares = bool(table.baseline) and matches(table.baseline, groups[0])
    found = comparison.differences(groups, ERROR) if compares else [None] * len(groups)
    # Rows are judged once, when all seeds are there.
    final = [
        difference if all(run.last for run in [*groups[0].runs, *group.runs]) else None
        for group, difference in zip(groups, found, strict=True)
    ]
    whole = gainer(table, groups)
    prices = price.cells(groups, whole) if whole else [{}] * len(groups)
    rows = []
    for group, difference, decided, costs in zip(
        groups, found, significant(final, len(groups) - 1), prices, strict=True
    ):
        cell = {name: str(group.spread(MEASURES[name]) or "–") for name in shown}
        fit = group.spread(MEASURES[FIT])
        if fit and fit.mean < FITS:
            cell[FIT] += " †"
        row = [group.label, group.seeds, cell.pop(ERROR, "–")]
        if any(found):
            row.append(f"{difference}{'*' * decided}" if difference else "–")
            row.append(difference.tested if difference else "–")
        row += costs.values()
        seconds = [run.seconds for run in group.runs if run.seconds]
        time = f"{statistics.median(seconds):.0f}" if seconds else "–"
        rows.append([*row, *cell.values(), time, _published(table, group)])
    compared = ["difference", "paired t-test"] * any(found)
    head = ["run", "seeds", ERROR, *compared, *prices[0]]
    head += [x for x in shown if x != ERROR]
    return [[*head, "time (s)", "published"], *rows]


def _published(table: Table, group: Group) -> str:
    for cell in table.published:
        if matches(cell["where"], group):
            known = f"{cell['value']} ({cell['source']}"
            official = group.runs[0].settings.get("data.name") == "cifar100"
            return known + ", official split" * official + ")"
    return "not available" if table.source else "–"


def detectable(groups: Sequence[Group]) -> list[float]:
    """The smallest differences to the first row that the rows would have shown.

    That is with a power of 80 % in a paired t-test at 5 %, divided by the number of
    rows (Holm's first step), and the standard deviation of the row's differences.

    Returns:
        In points of test error, of the rows that have enough pairs for a test.
    """
    from scipy import special

    found, level = [], LEVEL / max(len(groups) - 1, 1)
    for difference in comparison.differences(groups, ERROR):
        if difference is None or difference.p is None:
            continue
        half, n = difference.spread.half, difference.spread.n
        if half is None or n < FEWEST:
            continue
        critical = special.stdtrit(n - 1, 1 - level / 2)
        # The noncentral t whose values exceed the critical one so often.
        noncentral = special.nctdtrinc(n - 1, 1 - _POWER, critical)
        found.append(float(noncentral * half / special.stdtrit(n - 1, 0.975)))
    return found


def markdown(table: Table, runs: Sequence[Run], missing: Plan) -> str:
    """The whole of ``table.md``; what is missing has empty cells."""
    lines = [f"# {table.title}", "", *_about(table, len(missing))]
    planned = [
        Run(name, own(settings.flat_text(config))) for name, config in missing.items()
    ]
    for title, groups in parts(table, [*runs, *planned]).items():
        rows = cells(table, groups)
        lines += ["", f"## {title}", "", report.markdown(rows)[:-1]]
        if smallest := detectable(groups):
            lines += [
                "",
                f"Smallest detectable difference to {groups[0].label}, row by row: "
                f"{min(smallest):.2f} to {max(smallest):.2f} points (power 80 %, 5 % "
                "over all rows).",
            ]
        elif table.baseline and table.seeds == 1:
            lines += ["", "With one seed no difference is detectable."]
        whole = gainer(table, groups)
        if whole and price.gain(whole, groups[0], whole) is not None:
            lines += ["", price.sentence(groups, whole)]
    if table.listed:
        rows = [[x["row"], x["published"], x["source"], x["why"]] for x in table.listed]
        lines += ["", "## Published, without a command of ours", ""]
        head = ["row", "published", "source", "why"]
        lines.append(report.markdown([head, *rows])[:-1])
    return "\n".join(lines) + "\n"


def _about(table: Table, missing: int) -> list[str]:
    said = [table.about.strip()] if table.about else []
    if table.source:
        said.append(f"Source: {table.source}.")
    if table.assumed:
        said.append(f"Assumed, as the source does not say: {'; '.join(table.assumed)}.")
    if missing:
        why = "they need a GPU" if table.seconds is None else "not run yet"
        runs = "run is" if missing == 1 else "runs are"
        said.append(f"**{missing} {runs} missing: {why}.**")
    said += [
        f"Made by `{_command(table)}`.",
        "± is half of the 95 % t-interval over seeds; difference: to the first row, "
        "seed by seed, in points; p: of a row alone; *: significant at 5 %, all rows "
        f"of a part together (Holm), when all seeds, {FEWEST} or more, are there; †: "
        f"less than {FITS} % of the training labels fitted; noise, blur, contrast: "
        "error on test images so disturbed; time: the median, with whatever else the "
        "machines did.",
    ]
    if table.gain_of:
        said.append(price.COLUMNS)
    return ["\n\n".join(said)]


def _command(table: Table) -> str:
    return f"python -m experiments.training {table.name}"


def write(
    folder: pathlib.Path, table: Table, runs: Sequence[Run], missing: Plan
) -> None:
    """Writes the files; each whole or not at all."""
    files.make_folder(folder, "--out")
    notes = {"command": _command(table), "missing": len(missing)}
    text = comparison_files.to_text(comparison.grouped(runs), **notes)
    files.replace(folder / RECORD, text)
    files.replace(folder / "table.md", markdown(table, runs, missing))
    if runs:
        draw(folder / "table.png", table, runs)
    if table.curves:
        curves.draw(folder / "curves.png", table, parts(table, runs))
    if runs and table.gain_of:
        price.draw(folder / "price.png", table.title, parts(table, runs))


# ── Picture ──────────────────────────────────────────────────────────────────────────


def draw(path: pathlib.Path, table: Table, runs: Sequence[Run]) -> None:
    """Test error and fit of the training labels: a row of panels for each part."""
    of_parts = {
        title: [group for group in groups if group.spread(ERROR)]
        for title, groups in parts(table, runs).items()
    }
    of_parts = {title: groups for title, groups in of_parts.items() if groups}
    if not of_parts:
        return
    heights = [1.0 + 0.26 * len(groups) for groups in of_parts.values()]
    figure = figures.empty((11.0, sum(heights) + 0.8), table.title)
    figure.supxlabel(comparison_picture.NOTE, fontsize=9)
    panels = figure.subplots(len(heights), 2, squeeze=False, height_ratios=heights)
    for pair, (title, groups) in zip(panels, of_parts.items(), strict=True):
        colors = comparison_picture.of_groups(groups)
        for axes, measure in zip(pair, (ERROR, FIT), strict=True):
            comparison_picture.rows(axes, groups, colors, measure)
            axes.set_xlabel(measure)
        pair[0].set_title(title, loc="left", fontsize=10)
        pair[1].tick_params(labelleft=False)
        pair[1].set_xlim(0, 104)
    figures.save(figure, path)
