"""A whole run: what it writes, saves and says, and how it ends early."""

import dataclasses
import json
import math
import os
import signal
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sam_jax import errors
from sam_jax.train import build, digests, loop, metrics, results, schedule
from tests.train import runs


@pytest.fixture(scope="module")
def config(finished):
    return finished.config


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


# ── A run from start to end ──────────────────────────────────────────────────────────


def test_log_has_a_row_per_window_and_per_evaluation(finished):
    steps = {}
    for row in finished.rows:
        steps.setdefault(row["split"], []).append(row["step"])
    assert steps == {
        "train": [2, 4, 6, 8, 10, 12],
        "validation": [4, 8, 12],
        "test": [4, 8, 12],
    }
    assert [row["epoch"] for row in finished.rows if row["split"] == "test"] == [
        1.0,
        2.0,
        3.0,
    ]


def test_training_rows_name_what_was_measured(finished):
    row = next(row for row in finished.rows if row["split"] == "train")
    shares = {key for key in row if key.startswith("perturbation_share/")}
    assert len(shares) > 1
    assert sum(row[key] for key in shares) == pytest.approx(1, abs=1e-5)
    assert set(row) - shares == {
        *("step", "split", "wall_time", "epoch", "examples_per_second"),
        *("loss", "accuracy", "true_accuracy", "learning_rate", "update_norm"),
        *("grad_norm", "perturbation_norm", "gradient_cosine", "perturbed_loss"),
        "sharpness",
    }
    assert row["perturbation_norm"] == pytest.approx(0.05)


def test_results_are_those_of_the_log(finished):
    tests = [row for row in finished.rows if row["split"] == "test"]
    validations = [row for row in finished.rows if row["split"] == "validation"]
    best = max(validations, key=lambda row: row["accuracy"])  # the first of equals
    found = finished.results
    assert found["last"]["step"] == 12
    assert found["last"]["test"]["loss"] == tests[-1]["loss"]
    assert found["best"]["step"] == best["step"]
    assert found["best"]["validation"]["accuracy"] == best["accuracy"]
    assert found["seconds"] > 0
    written = json.loads((finished.folder / results.RESULTS_FILE).read_text())
    assert written == found


def test_seconds_are_counted_once(config, tmp_path, monkeypatch):
    times = []

    def monotonic():
        times.append(float(len(times) ** 2))
        return times[-1]

    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=monotonic))
    found = loop.train_and_evaluate(config, tmp_path)
    assert len(times) == 5, "begin, compiled, and a save in each of three epochs"
    assert found["seconds"] == times[-1] - times[0]


def test_results_wait_for_the_last_checkpoint(config, tmp_path, monkeypatch):
    seen, write = [], digests.write

    def slow(folder):
        time.sleep(0.5)
        seen.append((tmp_path / results.RESULTS_FILE).exists())
        write(folder)

    monkeypatch.setattr(digests, "write", slow)
    loop.train_and_evaluate(config, tmp_path)
    assert (tmp_path / results.RESULTS_FILE).exists() and seen and not any(seen)


def test_folder_has_all_that_is_promised(finished):
    names = {path.name for path in finished.folder.iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    assert len(events) == 1
    assert names - events == {
        *("config.json", "data.json", "environment.json", "metrics.jsonl"),
        *("results.json", "scores.json", "report.html"),
        *("checkpoints", ".lock"),
    }


def test_last_and_best_are_kept(finished):
    kept = runs.checkpoints(finished.folder)
    assert kept == {8, 12, finished.results["best"]["step"]}


def test_finished_run_says_so_and_gives_the_same_results(finished, capsys):
    before = (finished.folder / metrics.METRICS_FILE).read_bytes()
    again = loop.train_and_evaluate(finished.config, finished.folder)
    assert again == finished.results
    assert (finished.folder / metrics.METRICS_FILE).read_bytes() == before
    out = capsys.readouterr().out
    assert "This run is finished: nothing is left to do." in out
    assert "last epoch" in out


def test_header_tells_what_runs_where(tiny, tmp_path, capsys):
    config = tiny("sam", epochs=1)
    loop.train_and_evaluate(config, tmp_path, "the command")
    lines = capsys.readouterr().out.splitlines()
    header = dict(line.split("  ", 1) for line in lines[:10] if "  " in line)
    header = {name: value.strip() for name, value in header.items()}
    assert header["devices"].startswith("1 x ")
    assert header["data"] == "digits: 128 training, 100 validation, 500 test examples"
    assert header["model"] == "mlp, 610 parameters, float32"  # 65 * 8 + 9 * 10
    assert header["method"] == "sam (eps 1e-12, rho 0.05)"
    assert header["steps"] == "4 (1 epochs of 4)"
    assert header["workdir"] == str(tmp_path)
    assert header["to resume"] == "the command"
    assert any("compiled and ran the first step in" in line for line in lines)
    assert any(line.startswith("epoch 1/1  step 4") for line in lines)


def test_without_validation_there_is_no_best(tiny, tmp_path):
    run = runs.Finished(tiny("none", epochs=1, **{"data.validation": 0}), tmp_path)
    assert run.results["best"] is None
    assert set(run.results["last"]) == {"step", "epoch", "test"}
    assert {row["split"] for row in run.rows} == {"train", "test"}
    assert all("true_accuracy" not in row for row in run.rows), "no label noise"


def test_compiles_once_in_a_run_and_once_after_it_continues(config, tmp_path, disturb):
    first = disturb(6, terminate)
    with pytest.raises(loop.Stopped):
        loop.train_and_evaluate(config, tmp_path)
    second = disturb()
    loop.train_and_evaluate(config, tmp_path)
    for [run] in (first, second):
        assert run.train_step._cache_size() == 1
        assert run.eval_step._cache_size() == 1


# ── What is refused ──────────────────────────────────────────────────────────────────


def test_another_configuration_is_refused_and_nothing_is_lost(finished, tiny):
    other = dataclasses.replace(finished.config, learning_rate=0.2)
    with pytest.raises(errors.UserError, match=r"learning_rate: 0.1 -> 0.2"):
        loop.train_and_evaluate(other, finished.folder)
    assert loop.train_and_evaluate(finished.config, finished.folder)["last"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.validation": 0.0001}, "empty split"),
        ({"data.validation": "x"}, "data.validation.*'x'"),
        ({"data.train_examples": 1198}, "1197 of 1297"),
        ({"eval_batch_size": 0}, "config.eval_batch_size must be"),
    ],
)
def test_mistakes_in_numbers_are_one_line_and_leave_no_folder(
    tiny, tmp_path, settings, message
):
    folder = tmp_path / "run"
    with pytest.raises(errors.UserError, match=message) as raised:
        loop.train_and_evaluate(tiny("sam", **settings), folder)
    assert "\n" not in str(raised.value)
    assert not folder.exists()


# ── Updates that are not finite ──────────────────────────────────────────────────────


@pytest.fixture
def poisoned(monkeypatch, built_anew):
    """``poisoned(3)``: NaN in the weights of update 3, by its learning rate."""

    def install(step):
        def rate(count):
            return jnp.where(count == step - 1, jnp.nan, 0.1)

        monkeypatch.setattr(schedule, "make_schedule", lambda *args, **kwargs: rate)

    return install


def test_diverged_run_stops_with_what_it_saw(config, tmp_path, poisoned):
    poisoned(7)
    with pytest.raises(loop.Diverged) as raised:
        loop.train_and_evaluate(config, tmp_path)
    message = str(raised.value)
    assert "\n" not in message
    assert "of step 7 is not finite" in message
    assert "grad_norm" in message and "perturbation_norm" in message
    assert "The checkpoint of step 4 is good." in message
    state, _ = runs.saved(config, tmp_path)
    assert int(state[".step"]) == 4
    assert all(np.isfinite(leaf).all() for leaf in state.values())
    rows = metrics.read_history(tmp_path / metrics.METRICS_FILE)
    assert max(row["step"] for row in rows) == 6


@pytest.mark.parametrize("step", [4, 8])
def test_nothing_that_is_not_finite_is_saved(config, tmp_path, poisoned, step):
    """Not even if the update just before a checkpoint is the one."""
    poisoned(step)
    with pytest.raises(loop.Diverged, match=f"of step {step} is not finite") as raised:
        loop.train_and_evaluate(config, tmp_path)
    assert runs.checkpoints(tmp_path) == ({4} if step == 8 else set())
    assert ("is good" in str(raised.value)) == (step == 8)


def test_a_huge_learning_rate_diverges(tiny, tmp_path):
    with pytest.raises(loop.Diverged, match=r"not finite.*config.learning_rate"):
        loop.train_and_evaluate(tiny("sam", learning_rate=1e30), tmp_path)


def nth_is_bad(monkeypatch, *numbers):
    """These updates of a run say that they are not finite."""
    real = build.build

    def built(config, **brought):
        run = real(config, **brought)
        count = []

        def train_step(state, batch):
            count.append(batch)
            state, seen = run.train_step(state, batch)
            bad = len(count) in numbers
            return state, {**seen, "finite": seen["finite"] * (0 if bad else 1)}

        return dataclasses.replace(run, train_step=train_step)

    monkeypatch.setattr(build, "build", built)


def test_skip_leaves_such_updates_out_and_goes_on(tiny, tmp_path, monkeypatch, capsys):
    config = tiny("sam", on_nonfinite="skip")
    nth_is_bad(monkeypatch, 3)
    assert loop.train_and_evaluate(config, tmp_path)["last"]["step"] == 12
    assert "warning: step 4: 1 updates not finite, left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 1}, "none of the 4 updates was finite"),
        ({"max_consecutive_skips": 3}, "step 4 is not finite, as the 3 before it"),
    ],
)
def test_a_run_of_such_updates_alone_has_no_results(
    tiny, tmp_path, poisoned, settings, message
):
    config = tiny("sam", on_nonfinite="skip", **settings)
    poisoned(1)  # the optimizer's own count stays where it is
    with pytest.raises(loop.Diverged, match=message):
        loop.train_and_evaluate(config, tmp_path)
    assert not (tmp_path / results.RESULTS_FILE).exists()
    assert not runs.checkpoints(tmp_path)


def test_a_new_start_does_not_forget_how_many_were_left_out_in_a_row(
    tiny, tmp_path, monkeypatch
):
    config = tiny("sam", on_nonfinite="skip", max_consecutive_skips=5)
    nth_is_bad(monkeypatch, *range(2, 13))
    for _ in range(2):
        with pytest.raises(loop.Diverged, match="step 7 is not finite, as the 5"):
            loop.train_and_evaluate(config, tmp_path)
        nth_is_bad(monkeypatch, *range(1, 13))
    assert runs.checkpoints(tmp_path) == {4}


@pytest.mark.usefixtures("built_anew")
def test_weights_that_are_not_finite_are_never_saved(tiny, tmp_path, monkeypatch):
    # Each update is finite, and the sum of weights and update is not: nothing but the
    # weights can tell.
    real = optax.apply_updates

    def overflows(params, updates):
        return jax.tree.map(lambda w: w + jnp.inf, real(params, updates))

    monkeypatch.setattr(optax, "apply_updates", overflows)
    with pytest.raises(loop.Diverged, match="a weight after step 1 is not finite"):
        loop.train_and_evaluate(tiny("none", epochs=1, batch_size=128), tmp_path)
    assert not runs.checkpoints(tmp_path)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_evaluation_that_is_not_finite_ends_the_run(
    tiny, tmp_path, monkeypatch, split
):
    good, seen = {"loss": 1.0, "accuracy": 0.5}, []

    def evaluate(run, train_state, tell):
        seen.append(int(train_state.step))
        bad = {"loss": math.nan, "accuracy": 0.1} if len(seen) == 2 else good
        return {"validation": good, "test": good} | {split: bad}

    monkeypatch.setattr(loop, "evaluate", evaluate)
    message = rf"{split} loss after step 8 is not finite .nan.. The .* step 4 "
    with pytest.raises(loop.Diverged, match=message) as raised:
        loop.train_and_evaluate(tiny("sam"), tmp_path)
    assert "on_nonfinite" not in str(raised.value), "no update would be left out"
    assert runs.checkpoints(tmp_path) == {4}


def test_left_out_updates_are_in_the_results_of_all_starts(tiny, tmp_path, monkeypatch):
    config = tiny("sam", on_nonfinite="skip")
    nth_is_bad(monkeypatch, 3, 5)
    found = loop.train_and_evaluate(config, tmp_path)
    assert found["skipped"] == 2
    assert json.loads((tmp_path / results.RESULTS_FILE).read_text())["skipped"] == 2
    assert loop.train_and_evaluate(config, tmp_path)["skipped"] == 2  # finished
