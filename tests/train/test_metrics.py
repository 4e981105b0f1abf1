"""What a run writes can be read back, also after a kill, a full disk and a resume."""

import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import time

import pytest
from tensorboardX.proto import plugin_hparams_pb2

from sam_jax import errors
from sam_jax.train import boards, metrics, settings

# ── JSON lines


def write_steps(path, steps, resume_step=None):
    lines = metrics.JsonLines(path, resume_step)
    for step in steps:
        lines.write(step, "train", {"loss": 1 / step, "epoch": step / 10})
        if step % 2 == 0:
            lines.write(step, "test", {"accuracy": 0.5, "epoch": step / 10})
    lines.close()


def without_times(path):
    return [{**row, "wall_time": 0.0} for row in metrics.read_history(path)]


def test_lines_are_read_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    before = time.time()
    write_steps(path, [1, 2])
    history = metrics.read_history(path)
    assert without_times(path) == [
        {"step": 1, "split": "train", "wall_time": 0.0, "loss": 1.0, "epoch": 0.1},
        {"step": 2, "split": "train", "wall_time": 0.0, "loss": 0.5, "epoch": 0.2},
        {"step": 2, "split": "test", "wall_time": 0.0, "accuracy": 0.5, "epoch": 0.2},
    ]
    assert all(before <= row["wall_time"] <= time.time() for row in history)


def test_what_is_not_finite_is_valid_json_and_comes_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = metrics.JsonLines(path)
    lines.write(1, "train", {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1})
    lines.close()

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    raw = json.loads(path.read_text(), parse_constant=refuse)
    assert (raw["a"], raw["b"], raw["c"]) == ("NaN", "Infinity", "-Infinity")
    (row,) = metrics.read_history(path)
    assert math.isnan(row["a"])
    assert (row["b"], row["c"], row["d"]) == (math.inf, -math.inf, 0.1)


@pytest.mark.parametrize("torn", [b"", b'{"step": 6, "spl', b"\0" * 20])
def test_a_resumed_run_ends_like_one_that_was_never_stopped(tmp_path, torn):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    write_steps(whole, range(1, 9))
    write_steps(resumed, range(1, 6))
    with resumed.open("ab") as file:
        file.write(torn)
    write_steps(resumed, range(5, 9), resume_step=4)
    assert without_times(resumed) == without_times(whole)
    assert sorted(os.listdir(tmp_path)) == ["resumed", "whole"]


def test_lines_of_the_resumed_step_and_before_keep_their_bytes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(1, 5))
    before = path.read_bytes()
    write_steps(path, [], resume_step=4)
    assert path.read_bytes() == before


def test_a_run_from_the_beginning_forgets_earlier_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(1, 5))
    write_steps(path, [1])
    assert [row["step"] for row in metrics.read_history(path)] == [1]


def test_a_resumed_run_may_have_lost_its_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, [5], resume_step=4)
    assert [row["step"] for row in metrics.read_history(path)] == [5]


def test_the_old_file_stays_if_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(1, 5))
    before = path.read_bytes()

    def fail(number):
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(errors.WriteError, match=r"cannot write .*jsonl \(no space"):
        metrics.JsonLines(path, resume_step=2)
    assert path.read_bytes() == before


def test_a_file_can_be_read_while_its_last_line_is_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, [1])
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert [row["step"] for row in metrics.read_history(path)] == [1]


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_steps(path, [1, 2])
    path.write_text(path.read_text().replace('"split": "train"', '"split: "train"', 1))
    with pytest.raises(errors.UserError, match="line 1, is damaged"):
        metrics.read_history(path)
    with pytest.raises(errors.UserError, match="line 1, is damaged"):
        metrics.JsonLines(path, resume_step=1)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(errors.UserError, match=r"no metrics file .*/metrics\.jsonl"):
        metrics.read_history(tmp_path / "metrics.jsonl")


def test_what_was_written_survives_a_kill(tmp_path):
    code = (
        "import os, signal, sys; from sam_jax.train import metrics\n"
        "writers = metrics.open_writers(sys.argv[1], {})\n"
        "for step in range(3): writers.write(step, 'train', {'loss': 0.5})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    history = metrics.read_history(tmp_path / metrics.METRICS_FILE)
    assert [row["step"] for row in history] == [0, 1, 2]
    assert len(list(scalars(tmp_path))) == 3


def test_a_full_disk_is_a_clear_error_and_the_run_can_continue(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writers = metrics.Writers([metrics.JsonLines(path)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(errors.UserError, match="cannot write the metrics of step"):
            for step in range(1, 100):
                writers.write(step, "train", {"loss": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writers.close()
    assert path.stat().st_size == 1000
    kept = metrics.read_history(path)
    write_steps(path, [6], resume_step=5)
    assert metrics.read_history(path)[:5] == kept[:5]
    assert [row["step"] for row in metrics.read_history(path)[5:]] == [6, 6]


# ── TensorBoard


def events(workdir):
    """Events of all files of a directory, in the order TensorBoard reads them."""
    from tensorboardX.proto import event_pb2

    for path in sorted(workdir.glob("*tfevents*")):
        data = path.read_bytes()
        while data:
            # A record is its length, a checksum, the data and another checksum.
            (length,) = struct.unpack("<Q", data[:8])
            yield event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[12 + length + 4 :]


def scalars(workdir):
    for event in events(workdir):
        for value in event.summary.value:
            yield event.step, value.tag, value.simple_value


def test_tensorboard_events_are_read_back(tmp_path):
    board = metrics.TensorBoard(tmp_path)
    board.write(1, "train", {"loss": 0.5, "grad_norm": math.nan})
    board.write(1, "test", {"accuracy": 0.25})
    board.close()
    assert next(events(tmp_path)).file_version == "brain.Event:2"
    loss, grad_norm, accuracy = scalars(tmp_path)
    assert loss == (1, "train/loss", 0.5)
    assert grad_norm[1] == "train/grad_norm"
    assert math.isnan(grad_norm[2])
    assert accuracy == (1, "test/accuracy", 0.25)


@pytest.mark.parametrize(("resume_step", "first"), [(None, 0), (0, 1), (7, 8)])
def test_tensorboard_forgets_the_events_after_the_resumed_step(
    tmp_path, resume_step, first
):
    metrics.TensorBoard(tmp_path).close()
    metrics.TensorBoard(tmp_path, resume_step).close()
    purges = [e for e in events(tmp_path) if e.HasField("session_log")]
    assert [e.session_log.status for e in purges] == [1, 1]  # START
    assert [e.step for e in purges] == [0, first]


def test_tensorboard_is_told_the_settings(tmp_path):
    config = {"method": {"name": "sam", "rho": 0.1}, "seed": 3, "clip": None, "b": [1]}
    with metrics.open_writers(tmp_path, config):
        pass
    begun, text, ended = (e.summary.value[0] for e in [*events(tmp_path)][2:])
    plugin = plugin_hparams_pb2.HParamsPluginData.FromString
    given = plugin(begun.metadata.plugin_data.content).session_start_info.hparams
    assert given["method.rho"].number_value == 0.1
    assert given["method.name"].string_value == "sam"
    assert (given["b"].string_value, "clip" in given) == ("[1]", False)
    assert b'"rho": 0.1' in text.tensor.string_val[0]
    assert plugin(ended.metadata.plugin_data.content).session_end_info.status == 1
    assert begun.metadata.plugin_data.plugin_name == "hparams"
    assert text.metadata.plugin_data.plugin_name == "text"


def test_the_checksum_of_an_event_is_that_of_the_format(tmp_path):
    metrics.TensorBoard(tmp_path).close()
    (path,) = tmp_path.iterdir()
    # Event files that TensorFlow writes begin with these twelve bytes.
    length, checksum = struct.unpack("<QI", path.read_bytes()[:12])
    assert (length, checksum) == (24, 0x224B7FA3)


# ── Weights & Biases


def test_wandb_offline_writes_one_run_over_two_starts(tmp_path, capfd):
    pytest.importorskip("wandb")
    for resume_step, step in ((None, 1), (1, 2)):
        with metrics.open_writers(
            tmp_path,
            {"method": {"name": "vasso"}},
            resume_step=resume_step,
            wandb=settings.Wandb("offline", "flat"),
        ) as writers:
            writers.write(step, "train", {"loss": 0.5})
            writers.write(step, "test", {"loss": 0.5})
            writers.write(0, "train", {"loss": 0.25})  # the server has it already
    run_id = (tmp_path / boards.WANDB_ID_FILE).read_text()
    (file,) = {path.name for path in tmp_path.glob("wandb/offline-run-*/*.wandb")}
    assert file == f"run-{run_id}.wandb"
    data = b"".join(
        path.read_bytes() for path in tmp_path.glob("wandb/offline-run-*/*.wandb")
    )
    for expected in ("train/loss", "test/loss", "vasso", "flat", tmp_path.name):
        assert expected.encode() in data
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def fake_wandb(monkeypatch):
    """Weights & Biases without its processes: what it was asked for."""
    wandb = pytest.importorskip("wandb")

    class Run:
        step = 0

        def __init__(self):
            self.logged, self.exit_codes = [], []

        def log(self, values, step):
            self.step = step
            self.logged.append((step, values))

        def finish(self, exit_code):
            self.exit_codes.append(exit_code)

    run = Run()
    monkeypatch.setattr(wandb, "init", lambda **settings: run)
    return run


def test_wandb_skips_steps_that_the_run_has(tmp_path, fake_wandb):
    fake_wandb.step = 5
    with metrics.open_writers(tmp_path, {}, wandb=settings.Wandb("offline")) as writers:
        for step in (4, 5, 6):
            writers.write(step, "train", {"loss": 0.5})
            writers.write(step, "test", {"loss": 0.5})
    assert [step for step, _ in fake_wandb.logged] == [5, 5, 6, 6]
    assert fake_wandb.exit_codes == [0]


def test_wandb_marks_a_run_that_an_exception_ends(tmp_path, fake_wandb):
    writers = metrics.open_writers(tmp_path, {}, wandb=settings.Wandb("offline"))
    with pytest.raises(KeyError), writers:
        raise KeyError
    assert fake_wandb.exit_codes == [1]


def test_wandb_not_installed_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(errors.UserError, match='pip install "wandb"'):
        metrics.open_writers(tmp_path, {}, wandb=settings.Wandb("offline"))


def test_wandb_that_does_not_start_says_why(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def fail(**settings):
        raise wandb.errors.UsageError("No API key\nconfigured.")

    monkeypatch.setattr(wandb, "init", fail)
    with pytest.raises(
        errors.UserError, match=r"No API key configured\..*`wandb login"
    ):
        metrics.open_writers(tmp_path, {}, wandb=settings.Wandb("online"))


# ── A record that somebody else has touched

TOUCHED = {
    "another file": (lambda path: path.rename(f"{path}.old") and path.touch(), "repla"),
    "deleted": (lambda path: path.unlink(), "deleted"),
    "emptied": (lambda path: os.truncate(path, 0), "changed by another program"),
    "longer": (
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        "changed by another program",
    ),
}


@pytest.mark.parametrize("how", TOUCHED)
def test_a_record_that_is_not_what_was_written_is_noticed(how, tmp_path):
    act, said = TOUCHED[how]
    lines = metrics.JsonLines(tmp_path / "metrics.jsonl")
    lines.write(1, "train", {"loss": 0.5})
    lines.sync()
    act(tmp_path / "metrics.jsonl")
    with pytest.raises(errors.WriteError, match=rf"{said}.* start the same command"):
        lines.write(2, "train", {"loss": 0.25})
        lines.sync()
    lines.close()


# ── All writers


class Memory:
    def __init__(self, error=None):
        self.written, self.closed, self.error = [], 0, error

    def write(self, step, split, values):
        self.written.append((step, split, dict(values)))

    def close(self):
        self.closed += 1
        if self.error:
            raise self.error


def test_writers_write_to_all_and_close_all():
    first, second = Memory(), Memory()
    with metrics.Writers([first, second]) as writers:
        writers.write(3, "test", {"loss": 0.5})
        assert first.closed == second.closed == 0
    assert first.written == second.written == [(3, "test", {"loss": 0.5})]
    assert first.closed == second.closed == 1


def test_all_writers_are_closed_if_one_cannot_be():
    memories = [Memory(KeyError("first")), Memory(), Memory(KeyError("last"))]
    with pytest.raises(KeyError):
        metrics.Writers(memories).close()
    assert [memory.closed for memory in memories] == [1, 1, 1]


def test_open_writers_writes_lines_and_events(tmp_path):
    workdir = tmp_path / "a" / "run"
    with metrics.open_writers(workdir, {}) as writers:
        writers.write(1, "train", {"loss": 0.5})
    with metrics.open_writers(workdir, {}, resume_step=1) as writers:
        writers.write(2, "train", {"loss": 0.25})
    history = metrics.read_history(workdir / metrics.METRICS_FILE)
    assert [row["step"] for row in history] == [1, 2]
    assert list(scalars(workdir)) == [(1, "train/loss", 0.5), (2, "train/loss", 0.25)]


def test_without_tensorboard_a_run_says_so_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    said = []
    with metrics.open_writers(tmp_path, {}, warn=said.append) as writers:
        writers.write(1, "train", {"loss": 0.5})
    assert len(metrics.read_history(tmp_path / metrics.METRICS_FILE)) == 1
    (line,) = said
    assert line.startswith("no events for TensorBoard: tensorboardX is not installed")
    assert not metrics.TensorBoard.has_events(tmp_path)
