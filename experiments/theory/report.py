"""The results of the laboratory: a folder for each claim, and an index of all.

The site has a page for each (``docs/theory_pages.py``).
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import measure
from experiments.theory import catalog, claims, mutations, pictures, tables
from sam_jax import errors
from sam_jax.train import figures, files


def write(
    folder: pathlib.Path,
    name: str,
    claim: claims.Claim,
    outcome: claims.Outcome,
    seconds: float,
    quick: bool,
) -> dict[str, Any]:
    """Writes a claim's ``data.json`` and ``figure.png``.

    In the full form, which the site shows, also ``figure.svg`` and ``thumbnail.png``.

    Args:
        folder: of all results; the claim's is below it.
        name: ``paper/claim``.
        claim: its statement.
        outcome: its outcome.
        seconds: the time it took, compilation included.
        quick: whether it was the short form.

    Returns:
        The claim's record: the content of ``data.json`` without the series.
    """
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "name": name,
        "title": claim.title,
        "source": claim.source,
        "command": command(name, quick),
        "quick": quick,
        "verdict": outcome.verdict,
        "expected": claim.expected,
        "seconds": round(seconds, 1),
        "machine": measure.machine(),
        "jax": jax.__version__,
        "code": catalog.code(name),
        "checks": [check._asdict() for check in outcome.checks],
    }
    document = record | {"data": _plain(outcome.data)}
    pictures.finish(outcome.picture)
    suffixes = (".png",) if quick else (".png", ".svg")
    figures.save(outcome.picture, place / "figure.png", *suffixes)
    if not quick:
        pictures.thumbnail(outcome.picture)
        figures.save(outcome.picture, place / "thumbnail.png")
    files.replace(place / "data.json", files.to_lines(document) + "\n")
    return record


def command(name: str, quick: bool) -> str:
    """How to run a claim again."""
    return f"python -m experiments.theory run {name}" + (" --quick" if quick else "")


def index(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Writes ``README.md`` and the papers' tables, ``tables.md``.

    Args:
        folder: of all results.

    Returns:
        The records in the catalog's order.
    """
    records = []
    for name in catalog.names():
        path = folder / name / "data.json"
        if path.exists():
            with errors.translated(f"{path} is damaged", "run that claim again"):
                document = json.loads(path.read_text())
            records.append({k: v for k, v in document.items() if k != "data"})
    found = mutations.load(folder)
    for record in records:
        if record["verdict"] == "PASS" and mutations.undeclared(record["name"], found):
            record["verdict"] = "LOOSE"
    files.replace(folder / "README.md", _markdown_index(records) + _survivors(found))
    files.replace(folder / "tables.md", tables.page(records))
    return records


COLUMNS = ("claim", "source", "predicted", "measured", "verdict", "checks", "seconds")


def row(record: Mapping[str, Any]) -> list[str]:
    """A claim's line of the index, as plain text, with its first check."""
    first = record["checks"][0]
    passed = sum(check["passed"] for check in record["checks"])
    known = " (known)" if record["verdict"] == record["expected"] == "FAIL" else ""
    return [
        record["title"],
        record["source"],
        f"{first['what']}: {first['predicted']}",
        first["measured"],
        record["verdict"] + known,
        f"{passed}/{len(record['checks'])}",
        f"{record['seconds']:g}{' (quick)' * record['quick']}",
    ]


def _summary(records: Sequence[Mapping[str, Any]]) -> str:
    passed = sum(record["verdict"] == "PASS" for record in records)
    seconds = sum(record["seconds"] for record in records)
    return (
        f"{passed} of {len(records)} claims pass; {seconds:.0f} s of work in all. FAIL "
        "(known) marks a claim that does not hold as published or released; its page "
        "says why. LOOSE marks a claim that passes with a changed ascent."
    )


def _markdown_index(records: Sequence[Mapping[str, Any]]) -> str:
    parts = ["# The laboratory", _summary(records)]
    for paper, title in catalog.PAPERS.items():
        rows = []
        for record in records:
            if not record["name"].startswith(f"{paper}/"):
                continue
            (cells,) = _escaped([row(record)])
            link = f"[{cells[0]}](../{record['name']}.py)"
            rows.append([link, *cells[1:]])
        if rows:
            parts += [f"## {title}", measure.markdown(COLUMNS, rows)]
    parts.append("The papers' own tables, claim by claim: [tables](tables.md).")
    parts.append("    python -m experiments.theory run all")
    return "\n\n".join(parts) + "\n"


def _survivors(found: Mapping[str, Sequence[str]]) -> str:
    """The results of the mutations, for the end of the Markdown index."""
    if not found:
        return ""
    rows = []
    for name, survived in found.items():
        reasons = catalog.load(name).CLAIM.survivors
        rows += [[name, m, reasons.get(m, "**LOOSE**")] for m in survived]
    tried = len(mutations.FACTORS) * len(found)
    return (
        f"\n## Mutations\n\n{tried} short runs of {len(found)} claims, with every "
        "ascent reversed, removed or tripled: a check notices all but these.\n\n"
        f"{measure.markdown(['claim', 'ascent', 'why it may survive'], _escaped(rows))}"
        "\n\n    python -m experiments.theory mutate all\n"
    )


def _escaped(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[cell.replace("|", "\\|") for cell in cells] for cells in rows]


def _plain(data: Any) -> Any:
    """JSON of arrays: six significant digits, None for numbers that are not finite."""
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    if isinstance(data, bool | str | int) or data is None:
        return data
    array = np.asarray(data)
    if array.ndim:
        return [_plain(value) for value in array]
    if np.issubdtype(array.dtype, np.integer) or array.dtype == bool:
        return array.item()
    value = float(array)
    return float(f"{value:.6g}") if np.isfinite(value) else None
