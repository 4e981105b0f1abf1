"""Several processes are one run: same numbers, one end, one record."""

import json
import shlex
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest

from sam_jax.train import build, cards, checkpoint, evaluation, loop, workdir
from tests.train import runs
from tests.train.processes import LOST, SETTINGS, free_port, rows, starter

pytestmark = pytest.mark.slow("starts several processes")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    with starter(tmp_path_factory.mktemp("processes")) as start:
        yield start


# ── Whole runs ───────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def config():
    return cards.load(runs.DIGITS, *SETTINGS, "--config.mesh.data=1")


@pytest.fixture(scope="module")
def ended(start, tmp_path_factory):
    """One run by two processes, undisturbed; and by two, stopped, four, stopped, two.

    ``alone`` is a copy of the folder after the first stop.
    """
    folder = tmp_path_factory.mktemp("runs")
    names = ("straight", "resumed", "alone", "dispatched")
    found = SimpleNamespace(**{name: folder / name for name in names}, stopped=[])
    # Where data lie may differ between hosts.
    own = {1: ["--config.data.data_dir=elsewhere"]}
    found.processes = start(2, *SETTINGS, f"--workdir={found.straight}", own=own)
    in_one = "--config.steps_per_dispatch=5"
    found.in_one = start(2, *SETTINGS, in_one, f"--workdir={found.dispatched}")
    found.codes = found.processes.codes(), found.in_one.codes()
    # Stopped by SIGTERM to one process, on four by Ctrl-C to all, continued on two. A
    # SIGTERM before the first step counts as well, however fast the steps are.
    again = (*SETTINGS, f"--workdir={found.resumed}")
    for number, sent, to, sign in (
        (2, signal.SIGTERM, [1], "to resume"),
        (4, signal.SIGINT, range(4), "compiled and ran the first step"),
    ):
        processes = start(number, *again)
        processes.wait_for(sign)
        for process in to:
            processes.each[process].send_signal(sent)
        found.stopped.append((processes, processes.codes()))
        if number == 2:
            shutil.copytree(found.resumed, found.alone)
    found.last = start(2, *again)
    found.last_codes = found.last.codes()
    return found


def test_only_the_first_process_speaks(ended):
    processes = ended.processes
    assert ended.codes == ([0, 0], [0, 0]), (processes.err(0), ended.in_one.err(0))
    assert processes.err(0) == processes.err(1) == processes.out(1) == []
    assert any(line.startswith("last epoch") for line in processes.out(0))


def test_every_file_is_written_once(ended):
    made = {path.name for path in ended.straight.iterdir()}
    (events,) = (name for name in made if name.startswith("events.out.tfevents"))
    others = {".lock", "checkpoints", "config.json", "metrics.jsonl", "report.html"}
    others |= {"scores.json"}
    assert made == others | {"data.json", "environment.json", "results.json", events}


def test_every_step_and_every_evaluation_has_a_row(ended):
    def steps(split):
        return [row["step"] for row in rows(ended.straight) if row["split"] == split]

    assert steps("test") == [12, 24]
    assert steps("train") == list(range(1, 25))


def test_each_process_writes_its_part_of_a_checkpoint(ended):
    last = ended.straight / "checkpoints" / "24"
    parts = {path.name for path in (last / "state").glob("ocdbt.process_*")}
    assert parts == {"ocdbt.process_0", "ocdbt.process_1"}
    files = [path for path in last.glob("*/**/*") if path.is_file()]
    lines = (last / "SHA256SUMS").read_text().splitlines()
    assert sorted(line.split()[1] for line in lines) == sorted(
        str(path.relative_to(last)) for path in files
    )


@pytest.mark.parametrize("which", [0, 1], ids=["SIGTERM to one", "Ctrl-C to all"])
def test_a_signal_saves_between_evaluations(ended, which):
    processes, codes = ended.stopped[which]
    number = len(processes.each)
    assert codes == [143] * number, processes.err(0)
    step = stopped_at(processes)
    assert step % 12, "not at an evaluation"
    if which == 0:
        assert (ended.alone / "checkpoints" / str(step)).exists()
    assert not any(processes.out(process) for process in range(1, number))
    (command,) = processes.out(0)[-1].split("To continue: ")[1:]
    assert command.startswith("python -m sam_jax.main")
    assert f"--workdir={ended.resumed}" in shlex.split(command)


def stopped_at(processes):
    """The step that process 0 names in its last line."""
    said = processes.out(0)[-1]
    assert said.startswith("stopped after step ")
    assert "the state is saved. To continue: python -m sam_jax.main" in said
    return int(said.split(";")[0].rpartition(" ")[2])


def test_a_run_that_was_stopped_twice_ends_with_the_same_bits(ended, config):
    assert ended.last_codes == [0, 0], ended.last.err(0)
    step = stopped_at(ended.stopped[1][0])
    assert f"resumed     after step {step}" in ended.last.out(0)
    runs.assert_same_run(config, ended.resumed, ended.straight)
    assert rows(ended.resumed) == rows(ended.straight)
    results = [
        json.loads((folder / "results.json").read_text())
        for folder in (ended.resumed, ended.straight)
    ]
    assert results[0]["last"] == results[1]["last"]


def test_one_process_reads_the_state_of_two_and_evaluates_it_alike(ended, config):
    run = build.build(config)
    with checkpoint.Checkpoints(ended.straight) as checkpoints:
        state, _ = checkpoints.restore(run.abstract_state())
    for split, scores in evaluation.evaluate(run, state).items():
        (row,) = (
            row
            for row in rows(ended.straight)
            if (row["step"], row["split"]) == (24, split)
        )
        assert scores["accuracy"] == row["accuracy"]
        np.testing.assert_allclose(scores["loss"], row["loss"], rtol=1e-6)


@pytest.mark.parametrize("other", ["alone", "dispatched"])
def test_one_process_or_several_steps_in_a_call_come_close(ended, config, other):
    """They add up in another order; the difference grows with the steps."""
    folder = getattr(ended, other)
    if other == "alone":
        loop.train_and_evaluate(config, folder)
    expected, _ = runs.saved(config, ended.straight)
    state, _ = runs.saved(config, folder)
    for path, leaf in state.items():
        np.testing.assert_allclose(leaf, expected[path], atol=1e-5, err_msg=path)
    for row, goal in zip(rows(folder), rows(ended.straight), strict=True):
        assert row.pop("split") == goal.pop("split")
        assert row == pytest.approx(goal, rel=1e-4, abs=1e-6)


def test_a_lost_process_ends_the_others_within_a_minute(start, tmp_path):
    """A worker of three is killed, and process 0 of two, at the same time.

    The two continue from their last checkpoint, until one is sent a SIGTERM at once.
    """
    endless = (*SETTINGS[3:], "--config.model.name=mlp", "--config.epochs=10000")
    of_two = (*endless, f"--workdir={tmp_path / 'b'}")
    three = start(3, *endless, "--config.batch_size=30", f"--workdir={tmp_path / 'a'}")
    two = start(2, *of_two)
    three.wait_for("compiled and ran the first step")
    two.wait_for("epoch     6/")  # the checkpoint of epoch 3 is complete
    began = time.time()
    for processes, victim in ((two, 0), (three, 2)):
        processes.each[victim].kill()
    assert two.codes() == [-signal.SIGKILL, 1]
    saved = max(
        int(path.name)
        for path in (tmp_path / "b" / "checkpoints").iterdir()
        if path.name.isdecimal()
    )
    again = start(2, *of_two)
    again.wait_for(f"resumed     after step {saved}")
    again.each[1].terminate()
    assert again.codes() == [143, 143], again.err(0)
    assert three.codes() == [1, 1, -signal.SIGKILL]
    for processes, left in ((two, 1), (three, 0), (three, 1)):
        err = processes.err(left)
        assert err[-1].startswith(LOST)
        assert not any("Traceback (most recent call last)" in line for line in err)
        assert (processes.folder / str(left) / "err").stat().st_mtime - began < 60


# ── Mistakes ─────────────────────────────────────────────────────────────────────────


def one_line_each(processes):
    """The message of each process; all have ended with exit code 2."""
    number = len(processes.each)
    assert processes.codes() == [2] * number, processes.err(0)
    assert not any(processes.out(process) for process in range(number))
    messages = [processes.err(process) for process in range(number)]
    assert [len(lines) for lines in messages] == [1] * number, messages
    assert all(line.startswith("error: ") for (line,) in messages)
    return [line for (line,) in messages]


def test_mistakes_end_all_processes_with_one_line(start, tmp_path):
    folder = f"--workdir={tmp_path / 'run'}"
    # Different settings, also such that are free in a run of one process.
    own = {1: ["--config.method.rho=0.3", "--config.mesh.data=2"]}
    for message in one_line_each(start(2, *SETTINGS, folder, own=own)):
        assert "processes 0 and 1 were started with different settings" in message
        assert "config.mesh.data: -1 and 2; config.method.rho: 0.1 and 0.3" in message
    assert not (tmp_path / "run").exists()
    # A folder that the hosts do not share: here, relative to that of the process.
    for message in one_line_each(start(2, *SETTINGS, "--workdir=run")):
        assert "run of process 0 is not seen here" in message
    # Only process 0 knows that the folder is in use.
    with workdir.claimed(tmp_path / "run", cards.load(runs.DIGITS, *SETTINGS)):
        first, other = one_line_each(start(2, *SETTINGS, folder))
    assert first.startswith("error: another process is training in")
    assert other == f"error: process 0 stops the run: {first.removeprefix('error: ')}"


def test_processes_that_never_come_are_not_waited_for(start):
    """Process 0 without the others, and another one without process 0."""
    port = free_port()
    began = time.monotonic()
    lonely = start(2, "--coordinator_timeout=1", own={1: ["--process_id=5"]})
    absent = start(
        1,
        f"--coordinator=127.0.0.1:{port}",
        "--coordinator_timeout=1",
        own={0: ["--num_processes=2", "--process_id=1"]},
    )
    assert lonely.codes() == [2, 2]
    assert "have not come together within --coordinator_timeout" in lonely.err(0)[-1]
    (line,) = lonely.err(1)
    assert line == ("error: --process_id=5 must be in [0, 1], below --num_processes=2")
    assert absent.codes() == [2]
    (line,) = absent.err(0)
    assert line.startswith(
        f"error: no process 0 at --coordinator=127.0.0.1:{port} within 1 seconds"
    )
    assert time.monotonic() - began < 60


def test_no_cluster_is_one_line(trainer):
    process = trainer(f"--config={runs.DIGITS}", "--distributed")
    _, err = process.communicate()
    assert process.returncode == 2
    (line,) = err.splitlines()
    assert line.startswith("error: --distributed finds no cluster")
