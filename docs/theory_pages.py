"""The pages of the laboratory: an index, and one page for each claim."""

import json
import pathlib

from experiments.theory import catalog, report

RESULTS = pathlib.Path(report.__file__).parent / "results"


def pages() -> dict[str, str | pathlib.Path]:
    """Place -> Markdown, or the picture itself."""
    found: dict[str, str | pathlib.Path] = {}
    for name in catalog.names():
        record = json.loads((RESULTS / name / "data.json").read_text())
        text = report.page(catalog.load(name).CLAIM, record)
        here = pathlib.Path(name).name
        found[f"theory/{name}.md"] = text.replace("figure.png", f"{here}/figure.png")
        found[f"theory/{name}/figure.png"] = RESULTS / name / "figure.png"
    tables = (RESULTS / "tables.md").read_text()
    found["theory/tables.md"] = tables.replace("/README.md)", ".md)")
    return found
