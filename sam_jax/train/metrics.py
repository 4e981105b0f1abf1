"""Where the numbers of a run go: JSON lines, TensorBoard, Weights & Biases.

Metrics are measured on a split (``"train"``, ``"validation"`` or ``"test"``) at a step.
Accuracies are fractions in [0, 1] here and percentages only where people read them.

``metrics.jsonl`` in the working directory is the record of the run. It has one JSON
object per line::

    {"step": 24, "split": "test", "wall_time": 1767225600.5, "epoch": 12.0, "loss": 0.3}

``wall_time`` is Unix time in seconds. Numbers that JSON does not know are the strings
``"NaN"``, ``"Infinity"`` and ``"-Infinity"`` (as in the JSON form of protocol buffers),
so that every line is valid JSON; `read_history` turns them back into floats.
"""

import contextlib
import importlib
import json
import math
import os
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from sam_jax import errors

METRICS_FILE = "metrics.jsonl"
WANDB_ID_FILE = "wandb_run_id.txt"
WANDB_MODES = ("disabled", "offline", "online")

_TO_JSON = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_FROM_JSON = {name: float(name) for name in _TO_JSON.values()}


class Writer(Protocol):
    """One place where metrics go."""

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Write what was measured after ``step`` updates.

        Args:
            step: number of updates so far; it never falls during a run.
            split: ``"train"``, ``"validation"`` or ``"test"``.
            metrics: name to value; the epoch is one of them, as ``"epoch"``.
        """
        ...

    def close(self) -> None:
        """Write what is pending and let go of the file or connection."""
        ...


class JsonLines:
    """Appends each measurement to a file as one JSON object per line.

    A run that continues from the checkpoint of step ``resume_step`` does the later
    steps again, so their lines are dropped first, and so is a last line that a kill
    left unfinished. The file then ends like that of a run that was never stopped, but
    for the wall times. This needs everything up to a step to be written before the
    checkpoint of that step is saved.

    Args:
        path: file to write.
        resume_step: last step whose lines stay; None starts an empty file.

    Raises:
        UserError: if a line other than the last is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], resume_step: int | None = None):
        path = Path(path)
        kept = []
        if resume_step is not None and path.exists():
            kept = [
                line + b"\n"
                for line, record in _records(path)
                if record["step"] <= resume_step
            ]
        _replace(path, b"".join(kept))
        # Without a buffer, what was written survives a kill of this process.
        self._file = path.open("ab", buffering=0)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Append one line; see `Writer.write`."""
        record = {"step": int(step), "split": split, "wall_time": time.time()}
        record |= {name: _to_json(value) for name, value in metrics.items()}
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        while line:
            line = line[self._file.write(line) :]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """Writes TensorBoard events, with tags such as ``train/loss``.

    Each start of the run adds one event file to ``workdir``; look at them with
    ``tensorboard --logdir=WORKDIR``. When a run continues, TensorBoard is told to
    forget the events after ``resume_step``.

    Args:
        workdir: directory of the event files.
        resume_step: last step whose events stay; None hides all that are there.
    """

    def __init__(self, workdir: str | os.PathLike[str], resume_step: int | None = None):
        import tensorboardX

        # Records and events instead of SummaryWriter: that one hands them to a thread,
        # which loses the last ones when the process is killed.
        self._event = importlib.import_module("tensorboardX.proto.event_pb2").Event
        # TensorBoard reads the files in the order of their names.
        name = f"events.out.tfevents.{time.time_ns()}"
        self._file = tensorboardX.RecordWriter(str(Path(workdir) / name))
        self._append(file_version="brain.Event:2")
        self._append(
            step=0 if resume_step is None else resume_step + 1,
            session_log={"status": "START"},
        )

    def _append(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields)
        self._file.write(event.SerializeToString())
        self._file.flush()

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Write one event that holds all ``metrics``; see `Writer.write`."""
        values = [
            {"tag": tag, "simple_value": value}
            for tag, value in _tagged(split, metrics).items()
        ]
        self._append(step=step, summary={"value": values})

    def close(self) -> None:
        """Close the event file."""
        self._file.close()


class WandB:
    """Writes to Weights & Biases, with names such as ``train/loss``.

    The id of the run is kept in ``workdir``, so that a run that continues is one run
    there too. Files are in ``workdir/wandb``; ``wandb sync`` uploads those of an
    offline run. A run that an exception ends is marked as failed.

    Args:
        workdir: directory of the run, which also gives the run its name.
        config: settings of the run to show next to it.
        mode: ``"offline"`` or ``"online"``.
        project: project that the run belongs to.
        name: name of the run; None stands for the name of ``workdir``.

    Raises:
        UserError: if the package is missing or the run cannot be started.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        config: Mapping[str, Any],
        *,
        mode: str,
        project: str = "sam_jax",
        name: str | None = None,
    ):
        try:
            import wandb
        except ImportError as error:
            raise errors.UserError(
                'Weights & Biases is not installed: pip install "wandb", or set '
                "wandb.mode to 'disabled'"
            ) from error
        workdir = Path(workdir)
        id_file = workdir / WANDB_ID_FILE
        if not id_file.exists():
            _replace(id_file, secrets.token_hex(4).encode())
        try:
            self._run = wandb.init(
                project=project,
                name=name or workdir.resolve().name,
                id=id_file.read_text().strip(),
                resume="allow",
                dir=workdir,
                config=dict(config),
                mode=mode,  # pyright: ignore[reportArgumentType]
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())
            raise errors.UserError(
                f"Weights & Biases did not start: {reason} Run `wandb login`, or set "
                "wandb.mode to 'offline' or 'disabled'"
            ) from error

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Log ``metrics``; see `Writer.write`."""
        # A run that continues repeats steps that the server already has, with the same
        # values.
        if step >= self._run.step:
            self._run.log(_tagged(split, metrics), step=step)

    def close(self) -> None:
        """Finish the run; as failed if an exception is on its way."""
        self._run.finish(exit_code=int(sys.exception() is not None))


class Writers:
    """Several writers as one, which a ``with`` statement closes.

    Without writers it does nothing: processes other than the first use ``Writers([])``.

    Args:
        writers: where each measurement goes.
    """

    def __init__(self, writers: Iterable[Writer]):
        self._writers = tuple(writers)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Write to all; see `Writer.write`.

        Raises:
            UserError: if the disk is full or not writable.
        """
        try:
            for writer in self._writers:
                writer.write(step, split, metrics)
        except OSError as error:
            raise errors.UserError(
                f"cannot write the metrics of step {step}: {error.strerror}. Mend that "
                "and start the same command again: it continues from its last "
                "checkpoint"
            ) from error

    def close(self) -> None:
        """Close all, also when one of them fails to."""
        with contextlib.ExitStack() as stack:
            for writer in self._writers:
                stack.callback(writer.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_writers(
    workdir: str | os.PathLike[str],
    config: Mapping[str, Any],
    *,
    resume_step: int | None = None,
    wandb_mode: str = "disabled",
    wandb_project: str = "sam_jax",
    wandb_name: str | None = None,
) -> Writers:
    """Open the writers of a run: JSON lines, TensorBoard and, if asked for, W&B.

    Args:
        workdir: directory of the run; made if it is missing.
        config: settings of the run, shown by Weights & Biases.
        resume_step: step of the checkpoint that the run continues from; None for a
            start from the beginning, which forgets earlier metrics in ``workdir``.
        wandb_mode: ``"disabled"``, ``"offline"`` or ``"online"``.
        wandb_project: project at Weights & Biases.
        wandb_name: name of the run there; None stands for the name of ``workdir``.

    Returns:
        The writers, to be closed by the caller.

    Raises:
        UserError: for an unknown ``wandb_mode``, if Weights & Biases does not start, or
            if the metrics file is damaged.
    """
    if wandb_mode not in WANDB_MODES:
        raise errors.UserError(errors.unknown("wandb mode", wandb_mode, WANDB_MODES))
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as opened:
        writers: list[Writer] = []

        def keep(writer: Writer) -> None:
            opened.callback(writer.close)
            writers.append(writer)

        keep(JsonLines(workdir / METRICS_FILE, resume_step))
        keep(TensorBoard(workdir, resume_step))
        if wandb_mode != "disabled":
            keep(
                WandB(
                    workdir,
                    config,
                    mode=wandb_mode,
                    project=wandb_project,
                    name=wandb_name,
                )
            )
        opened.pop_all()
    return Writers(writers)


def read_history(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the file that `JsonLines` writes, also while it is being written.

    Args:
        path: a ``metrics.jsonl``.

    Returns:
        One dict per line, in the order of the file: ``step`` (int), ``split`` (str),
        ``wall_time`` (Unix seconds) and the metrics (floats, NaN and infinity
        included). An unfinished last line is left out.

    Raises:
        UserError: if there is no such file, or a line other than the last is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise errors.UserError(
            f"there is no metrics file {path}: give the {METRICS_FILE} of a run that "
            "has started"
        )
    return [
        {key: _FROM_JSON.get(value, value) for key, value in record.items()}
        for _, record in _records(path)
    ]


def _records(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines of a file and what they say, without an unfinished last line."""
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                return
            raise errors.UserError(
                f"{path}, line {number}, is damaged: it is not JSON. Remove that line"
            ) from error
        yield line, record


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that it has all of the old or all of the new content."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _to_json(value: float) -> float | str:
    value = float(value)
    return value if math.isfinite(value) else _TO_JSON[str(value)]


def _tagged(split: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{split}/{name}": float(value) for name, value in metrics.items()}
