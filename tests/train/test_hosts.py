"""Several processes are one run: same numbers, one end, one record."""

import contextlib
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from sam_jax import data, errors
from sam_jax.train import (
    agreement,
    build,
    cards,
    checkpoint,
    evaluation,
    hosts,
    loop,
    workdir,
)
from tests.train import runs

DEVICES = 4  # of a run, whatever its processes
# Shuffling, label noise, augmentation and averages: all that is drawn at random. The
# first layer is cut over the devices, so that each process writes its own part of it.
SETTINGS = (
    *("--config.model.name=mlp", "--config.model.width=64", "--config.mesh.fsdp=4"),
    *("--config.data.train_examples=128", "--config.batch_size=32"),
    *("--config.data.label_noise=0.25", "--config.data.crop=1"),
    *("--config.ema_decay=0.9", "--config.log_every_steps=1", "--config.epochs=6"),
    *("--config.eval_every_epochs=3", "--config.checkpoint_every_epochs=3"),
)
LOST = "error: another process of this run ended (it says why) or is out of reach"


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


class Processes:
    """Processes of one run, each with its share of the devices."""

    def __init__(self, number, folder, environment, *flags, own=None, port=None):
        self.folder = folder
        folder.mkdir()
        port = port or free_port()
        self.each = [
            self._start(
                process,
                environment,
                *(f"--coordinator=127.0.0.1:{port}", f"--num_processes={number}"),
                *(f"--process_id={process}", *flags, *(own or {}).get(process, ())),
            )
            for process in range(number)
        ]

    def _start(self, process, environment, *flags):
        home = self.folder / str(process)
        home.mkdir()
        with (home / "out").open("w") as out, (home / "err").open("w") as err:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "sam_jax.main",
                    f"--config={runs.DIGITS}",
                    *flags,
                ],
                cwd=home,
                env=environment,
                stdout=out,
                stderr=err,
            )

    def out(self, process):
        """What a process has shown, but for the chatter of CPU collectives.

        That comes from several threads at once, also in the middle of each other.
        """
        lines = (self.folder / str(process) / "out").read_text().splitlines()
        return [
            line
            for line in lines
            if line and "[Gloo]" not in line and "peer ranks" not in line
        ]

    def err(self, process):
        return (self.folder / str(process) / "err").read_text().splitlines()

    def wait_for(self, text):
        """Until process 0 shows the text."""
        end = time.monotonic() + 300
        while not any(line.startswith(text) for line in self.out(0)):
            assert self.each[0].poll() is None, self.err(0)
            assert time.monotonic() < end, self.out(0)
            time.sleep(0.05)

    def codes(self, seconds=300):
        """The exit codes, once all have ended."""
        end = time.monotonic() + seconds
        return [each.wait(max(0, end - time.monotonic())) for each in self.each]

    def kill(self):
        for each in self.each:
            each.kill()
            each.wait()


@pytest.fixture
def start(tmp_path):
    """``start(2, "--config...")``: processes of a run that share the devices."""
    started = []

    def begin(number, *flags, devices=None, **settings):
        each = devices or DEVICES // number
        environment = os.environ | {
            "PYTHONPATH": str(runs.ROOT),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={each}",
        }
        folder = tmp_path / f"processes_{len(started)}"
        started.append(Processes(number, folder, environment, *flags, **settings))
        return started[-1]

    yield begin
    for processes in started:
        processes.kill()


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return runs.comparable([json.loads(line) for line in lines])


# ── Whole runs ───────────────────────────────────────────────────────────────────────


@pytest.mark.slow("starts several processes")
def test_several_processes_compute_what_one_does(start, tmp_path):
    """Two, undisturbed; and two, stopped, four, stopped, two: the same bits.

    One process adds up in another order, and so do several steps in a dispatch: these
    come close only.
    """
    config = cards.load(runs.DIGITS, *SETTINGS, "--config.mesh.data=1")
    straight, resumed, alone, dispatched = (tmp_path / name for name in "abcd")

    # Undisturbed. Where data lie may differ between hosts.
    own = {1: ["--config.data.data_dir=elsewhere"]}
    processes = start(2, *SETTINGS, f"--workdir={straight}", own=own)
    in_one = "--config.steps_per_dispatch=5"
    of_several_steps = start(2, *SETTINGS, in_one, f"--workdir={dispatched}")
    assert processes.codes() == [0, 0], processes.err(0)
    assert of_several_steps.codes() == [0, 0], of_several_steps.err(0)
    assert processes.err(0) == processes.err(1) == processes.out(1) == []
    assert any(line.startswith("last epoch") for line in processes.out(0))
    made = sorted(path.name for path in straight.iterdir())
    events = [name for name in made if name.startswith("events.out.tfevents")]
    others = {".lock", "checkpoints", "config.json", "curves.png", "metrics.jsonl"}
    assert set(made) == others | {"results.json", *events}
    assert len(events) == 1
    assert [row["step"] for row in rows(straight) if row["split"] == "test"] == [12, 24]
    assert [row["step"] for row in rows(straight) if row["split"] == "train"] == list(
        range(1, 25)
    )
    last = straight / "checkpoints" / "24"
    parts = {path.name for path in (last / "state").glob("ocdbt.process_*")}
    assert parts == {"ocdbt.process_0", "ocdbt.process_1"}
    written = {
        str(path.relative_to(last)) for path in last.glob("*/**/*") if path.is_file()
    }
    listed = [
        line.split()[1] for line in (last / "SHA256SUMS").read_text().splitlines()
    ]
    assert sorted(listed) == sorted(written)

    # Stopped by SIGTERM to one process, on four by Ctrl-C to all, continued on two. A
    # SIGTERM before the first step counts as well, however fast the steps are.
    for number, sent, to, sign in (
        (2, signal.SIGTERM, [1], "to resume"),
        (4, signal.SIGINT, range(4), "compiled and ran the first step"),
    ):
        processes = start(number, *SETTINGS, f"--workdir={resumed}")
        processes.wait_for(sign)
        for process in to:
            processes.each[process].send_signal(sent)
        assert processes.codes() == [143] * number, processes.err(0)
        said = processes.out(0)[-1]
        assert said.startswith("stopped after step ")
        assert "the state is saved. To continue: python -m sam_jax.main" in said
        step = int(said.split(";")[0].rpartition(" ")[2])
        assert step % 12, "not at an evaluation"
        assert (resumed / "checkpoints" / str(step)).exists()
        assert not any(processes.out(process) for process in range(1, number))
        if number == 2:
            shutil.copytree(resumed, alone)
    command = shlex.split(said.partition("To continue: ")[2])[3:]
    assert f"--workdir={resumed}" in command
    processes = start(2, *SETTINGS, f"--workdir={resumed}")
    assert processes.codes() == [0, 0], processes.err(0)
    assert f"resumed     after step {step}" in processes.out(0)
    runs.assert_same_run(config, resumed, straight)
    assert rows(resumed) == rows(straight)
    assert (
        runs.comparable([json.loads((resumed / "results.json").read_text())])[0]["last"]
        == json.loads((straight / "results.json").read_text())["last"]
    )

    # The state of several processes is read by one, which evaluates it alike.
    run = build.build(config)
    with checkpoint.Checkpoints(straight) as checkpoints:
        found = checkpoints.restore(run.abstract_state())
    assert found is not None
    for split, scores in evaluation.evaluate(run, found[0]).items():
        (row,) = [r for r in rows(straight) if (r["step"], r["split"]) == (24, split)]
        assert scores["accuracy"] == row["accuracy"]
        np.testing.assert_allclose(scores["loss"], row["loss"], rtol=1e-6)

    # One process continues as well; the difference in rounding grows with the steps.
    loop.train_and_evaluate(config, alone)
    expected, _ = runs.saved(config, straight)
    for folder in (alone, dispatched):
        state, _ = runs.saved(config, folder)
        for path, leaf in state.items():
            np.testing.assert_allclose(leaf, expected[path], atol=1e-5, err_msg=path)
        for row, other in zip(rows(folder), rows(straight), strict=True):
            assert row.pop("split") == other.pop("split")
            assert row == pytest.approx(other, rel=1e-4, abs=1e-6)


@pytest.mark.slow("starts several processes")
def test_a_lost_process_ends_the_others_within_a_minute(start, tmp_path):
    """A worker of three is killed, and process 0 of two, at the same time.

    The two go on from their last checkpoint, until one is sent a SIGTERM at once.
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


@pytest.mark.slow("starts several processes")
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("h:1", None, None), "--num_processes and --process_id missing"),
        ((None, 2, 0), "--coordinator missing"),
        (("h:1", 2, 2), r"--process_id=2 must be in \[0, 1\]"),
        (("h:1", 2, -1), "--process_id=-1 must be in"),
        (("h:1", 0, 0), "--num_processes=0 must be at least 1"),
        (("host", 2, 1), "--coordinator=host must be HOST:PORT"),
        ((":1", 2, 1), "--coordinator=:1 must be HOST:PORT"),
        (("host:0", 2, 1), "must be HOST:PORT"),
        (("host:70000", 2, 1), "must be HOST:PORT"),
        (("no-such-host.invalid:1", 2, 1), "no process 0 at --coordinator=no-such"),
    ],
)
def test_flags_that_do_not_fit(settings, message):
    with pytest.raises(errors.UserError, match=message) as raised:
        hosts.join(*settings, detect=False, timeout=1)
    assert "\n" not in str(raised.value)


def test_explicit_flags_and_the_cluster_exclude_each_other():
    with pytest.raises(errors.UserError, match="either --distributed or the three"):
        hosts.join("h:1", None, None, detect=True, timeout=1)
    with pytest.raises(errors.UserError, match="at least 1 second"):
        hosts.join(None, None, None, detect=True, timeout=0)


def test_a_port_in_use_is_refused():
    with (
        socket.create_server(("", 0)) as server,
        pytest.raises(errors.UserError, match="cannot listen at port"),
    ):
        port = server.getsockname()[1]
        hosts.join(f"127.0.0.1:{port}", 2, 0, detect=False, timeout=1)


def test_no_cluster_is_one_line(trainer):
    process = trainer(f"--config={runs.DIGITS}", "--distributed")
    _, err = process.communicate()
    assert process.returncode == 2
    (line,) = err.splitlines()
    assert line.startswith("error: --distributed finds no cluster")


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (jax.errors.JaxRuntimeError("connection closed"), True),
        (TimeoutError("barrier"), True),
        (errors.UserError("could not save"), True),
        (agreement.Refused("a mistake"), False),
        (ValueError("a fault"), False),
    ],
)
def test_what_may_come_of_a_loss_waits_for_the_runtime(error, waits, monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for number, expected in ((2, waits), (1, False)):
        monkeypatch.setattr(hosts, "several", lambda number=number: number > 1)
        with pytest.raises(type(error)), hosts.patient():
            raise error
        assert [seconds > hosts.HEARTBEAT_SECONDS for seconds in slept] == [True] * (
            expected
        )
        slept.clear()
    monkeypatch.setattr(hosts, "several", lambda: True)
    with pytest.raises(RuntimeError), hosts.patient():
        raise RuntimeError from error
    assert bool(slept) == (waits and not isinstance(error, errors.UserError))


def test_different_data_are_refused(tiny, monkeypatch):
    own = build.build(tiny()).dataset
    others = build.build(tiny(**{"data.label_noise": 0.1})).dataset
    said = [json.dumps(data.fingerprint(each)) for each in (own, others)]
    monkeypatch.setattr(hosts, "several", lambda: True)
    monkeypatch.setattr(agreement, "exchange", lambda text: [text, said[0]])
    assert agreement.check_same_data(own) is None
    monkeypatch.setattr(agreement, "exchange", lambda text: [text, said[1]])
    with pytest.raises(
        agreement.Refused, match=r"different data \(train labels: \w+ and"
    ):
        agreement.check_same_data(own)


def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch):
    def initialize(**arguments):
        raise RuntimeError("403 Forbidden\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(hosts, "_at_abort", lambda handler: None)
    with pytest.raises(errors.UserError, match=r"connect \(403 Forbidden\): mend") as e:
        hosts.join(None, None, None, detect=True, timeout=1)
    assert "\n" not in str(e.value)


# ── One process ──────────────────────────────────────────────────────────────────────


def test_one_process_agrees_with_itself(tmp_path):
    hosts.join(None, None, None, detect=False, timeout=1)
    assert not hosts.several()
    assert hosts.is_first()
    assert agreement.exchange("text") == ["text"]
    assert agreement.from_first(lambda: pathlib.Path("no JSON")) == pathlib.Path(
        "no JSON"
    )
    mistake = errors.UserError("mine")
    with pytest.raises(errors.UserError) as raised, agreement.agreed():
        raise mistake
    assert raised.value is mistake
    with agreement.on_first(lambda: contextlib.nullcontext("mine"), "others'") as value:
        assert value == "mine"
    agreement.check_shared(tmp_path / "nothing")
    assert (hosts.leave(3), hosts.abandon(4)) == (3, 4)
