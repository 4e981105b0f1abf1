"""Where the numbers of a run go: JSON lines, TensorBoard, Weights & Biases.

Metrics are measured on a split (``"train"``, ``"validation"`` or ``"test"``) at a step;
the sharpness of the loss has the split ``"sharpness"``.
Accuracies are fractions in [0, 1] here and percentages only where people read them.

``metrics.jsonl`` in the working directory is the record of the run. It has one JSON
object per line::

    {"step": 24, "split": "test", "wall_time": 1767225600.5, "epoch": 12.0, "loss": 0.3}

``wall_time`` is Unix time in seconds. Numbers that JSON does not know are strings, see
`sam_jax.train.files`; `read_history` turns them back into floats.
"""

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sam_jax import errors, storage
from sam_jax.train import files, settings
from sam_jax.train.boards import TensorBoard, WandB

METRICS_FILE = "metrics.jsonl"


class JsonLines:
    """Appends each measurement to a file as one JSON object per line.

    A run that continues from the checkpoint of step ``resume_step`` does the later
    steps again, so their lines are dropped first, and so is a last line that a kill
    left unfinished. The file then ends like that of a run that was never stopped,
    except for the wall times. This needs everything up to a step to be written before
    the checkpoint of that step is saved.

    Args:
        path: file to write.
        resume_step: last step whose lines stay; None starts an empty file.
        written: what `sync` has returned at that step; None: unknown.
        warn: told if the lines up to that step are not all there, or a file that has
            lines is emptied.

    Raises:
        UserError: if it cannot be read or written, or a line other than the last is
            damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        resume_step: int | None = None,
        written: Mapping[str, Any] | None = None,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._path, self._warn = storage.path(path), warn
        kept = b""
        if resume_step is not None:
            kept = self._kept(resume_step, written)
        elif self._path.is_file() and self._path.stat().st_size:
            warn(f"there is no checkpoint to continue from: {path} starts again")
        self._digest, self._bytes = hashlib.sha256(kept), len(kept)
        files.replace(self._path, kept)
        self._growing = storage.Growing(self._path, kept)
        # Without a buffer, what was written survives a kill of this process.
        self._file = self._growing.local.open("ab", buffering=0)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Append one line; see `Writers.write`."""
        self._check_there()
        record = {"step": int(step), "split": split, "wall_time": time.time()}
        record |= {name: float(value) for name, value in metrics.items()}
        line = files.to_json(record).encode() + b"\n"
        self._digest.update(line)
        self._bytes += len(line)
        while line:
            line = line[self._file.write(line) :]
        self._growing.grown()

    def sync(self) -> dict[str, Any]:
        """Makes all lines survive a power loss; size and digest of the file."""
        self._check_there()
        os.fsync(self._file.fileno())
        if os.fstat(self._file.fileno()).st_size != self._bytes:
            raise self._lost("changed by another program")
        self._growing.publish()
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._growing.close()

    def _check_there(self) -> None:
        # Else the run would continue to its end and write into a file without a name.
        file = self._growing.local
        there = file.exists() and file.stat()
        if not there or not os.path.samestat(os.fstat(self._file.fileno()), there):
            raise self._lost("deleted, renamed or replaced")

    def _lost(self, how: str) -> errors.WriteError:
        return errors.WriteError(
            f"{self._path} was {how} while the run went on; put it back, then start "
            "the same command again"
        )

    def _kept(self, step: int, written: Mapping[str, Any] | None) -> bytes:
        data = files.read(self._path) if self._path.exists() else b""
        if written and _written(data[: written["bytes"]]) == written:
            return data[: written["bytes"]]
        lines = {
            (record["step"], record["split"]): line + b"\n"
            for line, record in _records(self._path, data)
            if record["step"] <= step
        }
        if written or step not in {at for at, _ in lines}:
            self._warn(
                f"{self._path} has not all rows up to step {step} as they were written:"
                " the curves show those that are left"
            )
        return b"".join(lines.values())


Writer = JsonLines | TensorBoard | WandB  # one place where metrics go


class Writers(files.Closing):
    """Several writers as one, which a ``with`` statement closes.

    Without writers it does nothing: processes other than the first use ``Writers([])``.

    Args:
        writers: where each measurement goes.
        lines: the one of them that is the record of the run.
    """

    def __init__(self, writers: Iterable[Writer], lines: JsonLines | None = None):
        self._writers, self._lines = tuple(writers), lines

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Write what was measured after ``step`` updates.

        Args:
            step: number of updates so far; it never falls during a run.
            split: ``"train"``, ``"validation"``, ``"test"`` or ``"sharpness"``.
            metrics: name to value; the epoch is one of them, as ``"epoch"``.
        """
        with _of_step(step):
            for writer in self._writers:
                writer.write(step, split, metrics)

    def sync(self, step: int) -> dict[str, Any] | None:
        """Makes the record survive a power loss, before a checkpoint relies on it.

        Returns:
            What a run that continues there needs to know of it; None without a record.
        """
        with _of_step(step):
            found = {id(writer): writer.sync() for writer in self._writers}
            return found.get(id(self._lines))

    def close(self) -> None:
        """Close all, also when one of them fails to."""
        with contextlib.ExitStack() as stack:
            for writer in self._writers:
                stack.callback(writer.close)


@contextlib.contextmanager
def _of_step(step: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.WriteError(
            f"cannot write the metrics of step {step} ({error.strerror}): fix that, "
            "then start the same command again"
        ) from error


def open_writers(
    workdir: str | os.PathLike[str],
    config: Mapping[str, Any],
    *,
    resume_step: int | None = None,
    wandb: settings.Wandb | None = None,
    written: Mapping[str, Any] | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> Writers:
    """Open the writers of a run: JSON lines, TensorBoard and, if asked for, W&B.

    Args:
        workdir: directory of the run; made if it is missing.
        config: settings of the run, shown by TensorBoard and Weights & Biases.
        resume_step: step of the checkpoint that the run continues from; None for a
            start from the beginning, which forgets earlier metrics in ``workdir``.
        wandb: of the settings; None sends nothing to Weights & Biases.
        written: what `Writers.sync` has returned at ``resume_step``.
        warn: told if earlier rows are lost, or TensorBoard's package is missing.

    Raises:
        UserError: if Weights & Biases does not start, or if the metrics file is damaged
            or cannot be written.
    """
    workdir = storage.path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as opened:
        writers: list[Writer] = []

        def keep(writer: Writer) -> None:
            opened.callback(writer.close)
            writers.append(writer)

        lines = JsonLines(workdir / METRICS_FILE, resume_step, written, warn)
        keep(lines)
        with files.writing(workdir):
            empty = not TensorBoard.has_events(workdir)
            try:
                board = TensorBoard(workdir, resume_step, config)
            except ModuleNotFoundError as error:
                warn(f"no events for TensorBoard: {error}")
            else:
                keep(board)
                for row in read_history(workdir / METRICS_FILE) if empty else ():
                    board.write(row.pop("step"), row.pop("split"), row)
        if wandb and wandb.mode != "disabled":
            keep(WandB(workdir, config, **dataclasses.asdict(wandb)))
        opened.pop_all()
    return Writers(writers, lines)


def is_whole(workdir: Path, written: Mapping[str, Any] | None) -> bool:
    """Whether the record of a finished run is there, and as `Writers.sync` left it."""
    path = workdir / METRICS_FILE
    if not path.exists():
        return False
    return written is None or _written(files.read(path)) == written


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
    path = storage.path(path)
    if not path.exists():
        raise errors.UserError(
            f"there is no metrics file {path}: give the {METRICS_FILE} of a run that "
            "has started"
        )
    return [record for _, record in _records(path, files.read(path))]


def _records(path: Path, data: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines of a file and what they say, without an unfinished last line."""
    lines = data.splitlines()
    for number, line in enumerate(lines, start=1):
        wrong = "it is not a row of metrics"
        record: Any = None
        try:
            record = files.from_json(line)
        except ValueError:
            if number == len(lines):
                return
            wrong = "it is not JSON"
        if not _is_row(record):
            raise errors.UserError(
                f"{path}, line {number}, is damaged: {wrong}. Remove that line"
            )
        yield line, record


def _is_row(record: Any) -> bool:
    """Whether it says what was measured on which split at which step."""
    return (
        isinstance(record, dict)
        and type(record.get("step")) is int
        and isinstance(record.get("split"), str)
        and all(
            type(value) in (int, float)
            for name, value in record.items()
            if name != "split"
        )
    )


def _written(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
