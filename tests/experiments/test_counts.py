"""Nothing that the compiler counts in a method's step has grown unnoticed."""

import json
import pathlib

import jaxlib
import pytest

from experiments.benchmarks import counts, programs
from tests import tiers

RECORD = pathlib.Path(counts.__file__).parent / "results" / "counts.json"
FAST = ["sgd", "sam", counts.SILENT]
ALL = [*programs.names(), counts.SILENT]


@pytest.fixture(scope="module")
def record():
    return json.loads(RECORD.read_text())


def test_every_method_is_watched(record):
    assert list(record["results"]) == ALL


@pytest.mark.parametrize("name", tiers.cases(FAST, ALL, "a compilation each"))
def test_no_count_has_grown(name, record):
    if jaxlib.__version__ != record["versions"]["jaxlib"]:
        pytest.skip("another jaxlib counts otherwise: record the counts anew")
    kept, found = record["results"][name], counts.counted(name)
    grown = {key: (kept[key], x) for key, x in found.items() if x > 1.01 * kept[key]}
    assert not grown, (
        "(recorded, now): if that is meant, python -m experiments.benchmarks.counts "
        "--out=experiments/benchmarks/results/counts.json"
    )
    # A record that is too high would let growth through.
    assert all(x > 0.95 * kept[key] for key, x in found.items()), (kept, found)


def test_sam_without_diagnostics_needs_one_copy_of_the_weights(record):
    sgd, sam, silent = (record["results"][name] for name in FAST)
    parameters = sgd["state_bytes"] // 2  # and as much momentum
    more = silent["temporary_bytes"] - sgd["temporary_bytes"]
    assert more <= 1.02 * parameters
    assert sam["temporary_bytes"] - silent["temporary_bytes"] >= 0
