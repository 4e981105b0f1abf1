"""A run that was stopped or killed ends with the bits of one that never was."""

import os
import random
import re
import shlex
import signal
import time

import numpy as np
import pytest

from sam_jax import errors
from sam_jax.train import cards, loop, metrics, workdir
from tests import tiers
from tests.train import runs


@pytest.fixture(scope="module")
def config(finished):
    return finished.config


def stopped(config, folder, disturb, number=signal.SIGTERM):
    """A run that a signal ends in the middle of its second epoch, and how it ends."""
    disturb(6, lambda: os.kill(os.getpid(), number))
    with pytest.raises(loop.Stopped) as raised:
        loop.train_and_evaluate(config, folder)
    disturb()
    return raised.value


def crash():
    raise ZeroDivisionError


def assert_goes_on(config, folder, finished):
    """Starts a run again: bits, rows and results are those of the other one."""
    run = runs.Finished(config, folder)
    runs.assert_same_run(config, folder, finished.folder)
    assert runs.comparable(run.rows) == runs.comparable(finished.rows)
    assert {**run.results, "seconds": 0} == {**finished.results, "seconds": 0}


# ── In this process ────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("built_anew")  # as in another process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_the_run_ends_with_the_same_bits(
    config, tmp_path, disturb, finished, number
):
    ended = stopped(config, tmp_path, disturb, number)
    assert (ended.signal, ended.step) == (number, 6)
    assert int(runs.saved(config, tmp_path)[0][".step"]) == 6
    assert_goes_on(config, tmp_path, finished)


@pytest.mark.parametrize(("update", "kept"), [(7, 4), (3, None)])
def test_a_crash_loses_the_steps_since_the_checkpoint_and_no_more(
    config, tmp_path, disturb, finished, capsys, update, kept
):
    disturb(update, crash)
    with pytest.raises(ZeroDivisionError):
        loop.train_and_evaluate(config, tmp_path)
    assert runs.checkpoints(tmp_path) == ({kept} if kept else set())
    disturb()
    capsys.readouterr()
    assert_goes_on(config, tmp_path, finished)
    assert ("after step 4" in capsys.readouterr().out) == (kept == 4)


def test_signal_during_the_last_step_finishes_the_run(config, tmp_path, disturb):
    disturb(12, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert loop.train_and_evaluate(config, tmp_path)["last"]["step"] == 12


def test_seconds_add_up_over_all_starts(config, tmp_path, disturb):
    stopped(config, tmp_path, disturb)
    before = runs.saved(config, tmp_path)[1]["seconds"]
    assert loop.train_and_evaluate(config, tmp_path)["seconds"] > before > 0


def test_a_finished_run_goes_on_for_more_epochs(tiny, tmp_path, capsys):
    """With a rate that knows no end, to the bits of a run planned for all of them."""
    plan = {"schedule.name": "constant"}
    whole = runs.Finished(tiny(epochs=3, **plan), tmp_path / "whole")
    first = runs.Finished(tiny(epochs=2, **plan), tmp_path / "run")
    assert first.results["plans"] == [{"step": 0, "epochs": 2}]
    run = runs.Finished(whole.config, first.folder)
    assert "instead of the 2 that were planned" in capsys.readouterr().out
    runs.assert_same_run(whole.config, first.folder, whole.folder)
    assert runs.comparable(run.rows) == runs.comparable(whole.rows)
    assert run.results["last"] == whole.results["last"]
    plans = [{"step": 0, "epochs": 2}, {"step": 8, "epochs": 3}]
    assert run.results["plans"] == plans
    # From now on it is a run of three.
    assert loop.train_and_evaluate(whole.config, first.folder)["plans"] == plans
    assert "planned" not in capsys.readouterr().out
    with pytest.raises(errors.UserError, match=r"epochs: 3 -> 2.*, or more epochs"):
        loop.train_and_evaluate(first.config, first.folder)


WITH_STATE = [
    *[(name, "always") for name in ("looksam", "ae_sam", "dynamic_sparse_sam")],
    *[(name, "always") for name in ("momentum_sam", "bsam")],
    ("vasso", "stochastic"),
]


@pytest.mark.parametrize(
    ("method", "cadence"),
    tiers.cases([WITH_STATE[0], *WITH_STATE[-2:]], WITH_STATE, "more kinds of state"),
)
def test_methods_with_a_state_of_their_own_continue(
    tiny, tmp_path, disturb, method, cadence
):
    config = tiny(method, **{"epochs": 2, "cadence.name": cadence})
    undisturbed = runs.Finished(config, tmp_path / "undisturbed")
    stopped(config, tmp_path / "stopped", disturb)
    assert_goes_on(config, tmp_path / "stopped", undisturbed)


def test_continues_on_fewer_devices_and_on_more(tiny, tmp_path, disturb):
    """On 8, 4 and 8: a group of 8 fills two of eight devices, or one of four."""
    grids = ({"mesh.data": 8}, {"mesh.data": 4}, {"mesh.data": 2, "mesh.fsdp": 4})
    eight, four, rows = (
        tiny("vasso", **{"epochs": 4, "method_group_size": 8}, **grid) for grid in grids
    )
    undisturbed = runs.Finished(eight, tmp_path / "undisturbed")
    stopped(eight, tmp_path / "stopped", disturb)
    assert stopped(four, tmp_path / "stopped", disturb).step == 12
    run = runs.Finished(rows, tmp_path / "stopped")
    assert run.results["last"]["step"] == 16
    found, _ = runs.saved(run.config, tmp_path / "stopped")
    expected, _ = runs.saved(undisturbed.config, tmp_path / "undisturbed")
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-4, atol=1e-6)


def test_importance_sampling_continues(tiny, tmp_path, disturb):
    config = tiny("sam", **{"epochs": 2, "data.sampling.name": "importance"})
    undisturbed = runs.Finished(config, tmp_path / "undisturbed")
    stopped(config, tmp_path / "stopped", disturb)
    assert_goes_on(config, tmp_path / "stopped", undisturbed)
    plain = runs.Finished(tiny("sam", **{"epochs": 2}), tmp_path / "plain")
    assert plain.results["last"] != undisturbed.results["last"]


# ── Real processes ───────────────────────────────────────────────────────────────────

CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
OVERRIDES = (
    *("--config.model.name=mlp", "--config.model.width=8", "--config.mesh.data=1"),
    *("--config.data.train_examples=256", "--config.epochs=100"),
    *("--config.ema_decay=0.9", "--config.log_every_steps=2"),
)


def read_until(process, pattern):
    """The line of the output that matches, and those before it."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return lines
    pytest.fail(f"the process ended early: {''.join(lines)}")


@pytest.mark.slow("starts seven trainers")
def test_killed_and_stopped_processes_end_with_the_same_bits(tmp_path, trainer):
    """Killed, started again, terminated, started again, Ctrl-C, started again."""
    config = cards.load(runs.DIGITS, *OVERRIDES)
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "disturbed"
    flags = (f"--config={runs.DIGITS}", *OVERRIDES)
    reference = trainer(*flags, f"--workdir={undisturbed}")
    again = (*flags, f"--workdir={folder}")
    resumed = []
    for number in CODES:
        process = trainer(*again)
        # A save ends before the next one begins: now the first two are complete.
        lines = [line for _ in range(3) for line in read_until(process, r"^epoch ")]
        resumed += [line for line in lines if line.startswith("resumed")]
        with (
            pytest.raises(errors.UserError, match="another process is training"),
            workdir.claimed(folder, config),
        ):
            pytest.fail("two processes in one folder")
        # The moment is random on purpose: it must not matter.
        delay = random.uniform(0, 0.1)
        time.sleep(delay)
        process.send_signal(number)
        out, err = process.communicate()
        assert process.returncode == CODES[number], (delay, out, err)
        assert "Traceback" not in err
        if number != signal.SIGKILL:
            last = out.strip().splitlines()[-1]
            assert "the state is saved. To continue: python -m sam_jax.main" in last
            _, _, command = last.partition("To continue: ")
            # The next start is by the command that was printed.
            again = shlex.split(command)[3:]
    process = trainer(*again)
    out, err = process.communicate()
    resumed += [line for line in out.splitlines() if line.startswith("resumed")]
    assert (process.returncode, len(resumed)) == (0, 3), out + err
    reference.communicate()
    assert reference.returncode == 0
    runs.assert_same_run(config, folder, undisturbed)
    evaluations = [
        [
            row
            for row in runs.comparable(metrics.read_history(each / "metrics.jsonl"))
            if row["split"] != "train"
        ]
        for each in (folder, undisturbed)
    ]
    assert evaluations[0] == evaluations[1]
    assert len(evaluations[0]) == 2 * config.epochs

    # The newest checkpoint is damaged: one line, and the one before is gone on from.
    newest = max(
        (undisturbed / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name)
    )
    runs.damage(newest)
    process = trainer(*flags, f"--workdir={undisturbed}")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert f"warning: checkpoint {newest} is damaged" in out
    runs.assert_same_run(config, folder, undisturbed)
