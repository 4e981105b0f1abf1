"""The record of rehearsals at published sizes, as the document has it."""

import json
import pathlib

from experiments.benchmarks import pods

ROOT = pathlib.Path(__file__).parents[2]


def test_the_document_has_the_tables_of_the_record():
    path = ROOT / "experiments" / "benchmarks" / "results" / "pods.json"
    known = json.loads(path.read_text())["results"]
    assert len(pods.PUBLISHED) == 3 and set(known) <= set(pods.cases())
    document = (ROOT / "docs" / "rehearsal.md").read_text()
    tables = pods.tables(known)
    assert {"Calibration", "ResNet-50, strong scaling"} <= set(tables)
    assert [title for title, text in tables.items() if text not in document] == []
