"""The files of a comparison, which a sweep writes as well.

``table.md`` (and ``table.tex``), ``results.csv`` with a line for each run,
``results.json`` and ``comparison.png``.
"""

import csv
import io
import os
import pathlib
import platform
import statistics
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import sam_jax
from sam_jax import errors
from sam_jax.train import comparison, comparison_picture, files
from sam_jax.train.comparison import MEASURES, SEED, TIME, Group
from sam_jax.train.results import RESULTS_FILE
from sam_jax.train.spread import Spread, significant

PICTURE = "comparison.png"
CAPTION = (
    "± is half of the 95 % t-interval over seeds; selected: of the epoch that was best "
    "on validation; time: the median"
)


def cells(groups: Sequence[Group]) -> list[list[str]]:
    """The table: its head, and a row for each group; no column without a number."""
    shown = [name for name in MEASURES if any(group.values(name) for group in groups)]
    columns = {name: [_cell(group, name) for group in groups] for name in shown}
    error, *_ = MEASURES
    found = comparison.differences(groups, error)
    if any(difference and difference.spread.n > 1 for difference in found):
        marks = ["*" * decided for decided in significant(found)]
        to_first = [f"{d or '–'}{m}" for d, m in zip(found, marks, strict=True)]
        of_error = {
            error: columns.pop(error),
            "difference (%)": to_first,
            "paired t-test": [d.tested if d else "–" for d in found],
        }
        columns = of_error | columns
    labels = [group.label for group in groups]
    seeds = [group.seeds for group in groups]
    rows = zip(labels, seeds, *columns.values(), strict=True)
    return [["run", "seeds", *columns], *map(list, rows)]


def caption(table: Sequence[Sequence[str]]) -> str:
    """What the columns of a table mean."""
    said = [CAPTION]
    if "difference (%)" in table[0]:
        said.append("difference: to the first row, seed by seed")
    if any(cell.endswith("*") for row in table for cell in row):
        said.append(
            "p: of a row alone; *: significant at 5 %, all rows together (Holm), five "
            "pairs or more"
        )
    return f"{'; '.join(said)}."


def _cell(group: Group, measure: str) -> str:
    values = group.values(measure)
    if measure == TIME and values:
        return f"{statistics.median(values):.1f}"  # of runs that compile nothing
    return str(Spread.of(values) or "–")


def markdown(groups: Sequence[Group]) -> str:
    """The table, for people and for Markdown."""
    rows = [[cell.replace("|", r"\|") for cell in row] for row in cells(groups)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"| {' | '.join(map(str.ljust, row, widths))} |"
        for row in [rows[0], ["-" * width for width in widths], *rows[1:]]
    ]
    return "\n".join([*lines, "", caption(rows)])


def latex(groups: Sequence[Group]) -> str:
    r"""The table for LaTeX, with the lines of ``\usepackage{booktabs}``."""
    special = {
        "%": r"\%",
        "_": r"\_",
        "±": r"$\pm$",
        "<": "$<$",
        "−": "$-$",
        "–": "--",
        "&": r"\&",
        "#": r"\#",
        "\\": r"\textbackslash{}",
        "$": r"\$",
        "^": r"\^{}",
        "~": r"\textasciitilde{}",
        "{": r"\{",
        "}": r"\}",
        ">": "$>$",
        "|": "$|$",
    }
    table_of = cells(groups)
    head, *rows = (
        " & ".join("".join(special.get(x, x) for x in cell) for cell in row) + r" \\"
        for row in table_of
    )
    columns = "l" + "r" * (len(table_of[0]) - 1)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule"]
    return "\n".join([*lines, *rows, r"\bottomrule", r"\end{tabular}"])


def environment() -> dict[str, Any]:
    """What the runs of this process are trained with."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "packages": {name: metadata.version(name) for name in packages},
        "sam_jax": sam_jax.__version__,
    }


def plain(groups: Sequence[Group], **notes: Any) -> dict[str, Any]:
    """All of it as JSON: what `read` takes, and the spread of each group."""
    common = dict(groups[0].runs[0].settings) if groups else {}
    for key in {SEED, *(key for group in groups for key in group.settings)}:
        common.pop(key, None)
    return {
        "format": comparison.FORMAT,
        **notes,
        "settings": common,
        "groups": [
            {
                "label": group.label,
                "settings": group.settings,
                "spread": {
                    name: found and found._asdict()
                    for name in MEASURES
                    for found in [group.spread(name)]
                },
                "runs": [
                    {
                        key: getattr(run, key)
                        for key in (SEED, *_FIELDS)
                        if getattr(run, key) is not None
                    }
                    for run in group.runs
                ],
            }
            for group in groups
        ],
    }


_FIELDS = ("name", "last", "best", "training_accuracy", "seconds", "failure", "extra")


def to_text(groups: Sequence[Group], **notes: Any) -> str:
    """`plain` as text, with a line for each group."""
    record = plain(groups, **notes)
    rows = ",\n".join(map(files.to_json, record.pop("groups")))
    return f'{files.to_json(record)[:-1]},\n"groups": [\n{rows}\n]}}\n'


def table(groups: Sequence[Group]) -> str:
    """A line of CSV for each run."""
    names = list(dict.fromkeys(key for group in groups for key in group.settings))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *names, SEED, *MEASURES, "failure"])
    for group in groups:
        for run in group.runs:
            found = [group.settings.get(key, "") for key in names]
            numbers = [measure(run) for measure in MEASURES.values()]
            writer.writerow([run.name, *found, run.seed, *numbers, run.failure])
    return text.getvalue()


def check_folder(folder: pathlib.Path) -> None:
    """Makes a folder to `write` to, unless it is something else's."""
    files.make_folder(folder, "--out")
    if (folder / comparison.CONFIG_FILE).exists():
        raise errors.UserError(f"{folder} is the folder of a run: give another --out")
    if (folder / RESULTS_FILE).exists():
        comparison.read(folder / RESULTS_FILE)


def write(
    folder: pathlib.Path,
    groups: Sequence[Group],
    *,
    shown: Sequence[Group] | None = None,
    tex: bool = False,
    **notes: Any,
) -> None:
    """Writes table, CSV and JSON, each whole or not at all.

    The table is of those ``shown``, all by default.
    """
    files.replace(folder / RESULTS_FILE, to_text(groups, **notes))
    files.replace(folder / "results.csv", table(groups))
    shown = groups if shown is None else shown
    files.replace(folder / "table.md", markdown(shown) + "\n")
    if tex:
        files.replace(folder / "table.tex", latex(shown) + "\n")


def draw(folder: pathlib.Path, groups: Sequence[Group], title: str) -> None:
    """Writes the picture; see `comparison_picture.draw`."""
    comparison_picture.draw(groups, folder / PICTURE, title)
