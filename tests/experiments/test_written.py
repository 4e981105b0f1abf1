"""What a table says of its rows: failed runs, and what it could have seen."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments.training import table, written
from sam_jax.train import comparison


@settings(max_examples=15)
@given(st.integers(3, 30), st.integers(1, 12), st.floats(0.1, 10))
def test_the_detectable_difference_is_detected_four_times_in_five(n, rows, scale):
    draws = np.random.default_rng(n).normal(0, scale, [rows, n])
    later = group_of([], "gsam")
    later.runs.append(comparison.Run("later", {"seed": 0, "method.name": "gsam"}))
    sams = [group_of(50 + x, "sam") for x in draws]
    found = written.detectable([group_of(np.zeros(n) + 50, "sgd"), *sams, later])
    assert len(found) == (rows if n >= 5 else 0), "as none is called significant"
    critical = stats.t.ppf(1 - 0.025 / (rows + 1), n - 1)  # the later one counts
    for smallest, spread in zip(found, draws.std(1, ddof=1) / np.sqrt(n), strict=False):
        power = stats.nct.sf(critical, n - 1, smallest / spread)
        assert power == pytest.approx(0.8, abs=1e-3)


def group_of(errors_, name):
    runs = [
        comparison.Run(
            f"{name}{seed}",
            {"seed": seed, "method.name": name},
            last={"test": {"accuracy": 1 - error / 100}},
        )
        for seed, error in enumerate(errors_)
    ]
    return comparison.Group(name, {}, runs)


def test_a_row_of_which_runs_have_failed_is_never_called_better():
    toy = table.Table("toy", "Toy", baseline={"method.name": "sgd"})
    sgd, sam = np.random.default_rng(0).normal([[50], [45]], 0.1, [2, 10])
    runs = [*group_of(sgd, "sgd").runs, *group_of(sam, "sam").runs]
    whole = written.markdown(toy, runs, {})
    assert "| sam | 10 |" in whole and "* | p < 0.001, n = 10" in whole
    missing = [comparison.Run("later", {"seed": 10, "method.name": "sam"})]
    later = written.markdown(toy, [*runs, *missing], {})
    assert "| p < 0.001, n = 10" in later and "*" not in later.partition("| sam")[2]
    for place in range(15, 20):
        diverged = {"last": None, "failure": "diverged: the loss is not finite"}
        runs[place] = dataclasses.replace(runs[place], **diverged)
    assert "| sam | 5 of 10, 5 failed | " in (text := written.markdown(toy, runs, {}))
    assert "* |" not in text and "| n = 5 |" in text
