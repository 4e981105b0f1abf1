"""Programs that show the metrics of runs: TensorBoard, Weights & Biases.

What the writers here are given is described in `sam_jax.train.metrics`.
"""

import importlib
import os
import re
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sam_jax import errors, storage
from sam_jax.train import files, settings

WANDB_ID_FILE = "wandb_run_id.txt"


class TensorBoard:
    """Writes TensorBoard events, with tags such as ``train/loss``.

    Each start of the run adds one event file to ``workdir``; look at them with
    ``tensorboard --logdir=WORKDIR``. When a run continues, TensorBoard is told to
    forget the events after ``resume_step``.

    Args:
        workdir: directory of the event files.
        resume_step: last step whose events stay; None hides all that are there.
        config: settings of the run, for the tabs HParams and Text.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        resume_step: int | None = None,
        config: Mapping[str, Any] | None = None,
    ):
        with errors.needing("train"):
            import tensorboardX
            from tensorboardX import summary

        # Records and events instead of SummaryWriter: that one hands them to a thread,
        # which loses the last ones when the process is killed.
        self._event = importlib.import_module("tensorboardX.proto.event_pb2").Event
        # TensorBoard reads the files in the order of their names.
        name = f"events.out.tfevents.{time.time_ns()}"
        self._growing = storage.Growing(storage.path(workdir) / name)
        self._file = tensorboardX.RecordWriter(str(self._growing.local))
        self._ended: Any = None
        self._append(file_version="brain.Event:2")
        self._append(
            step=0 if resume_step is None else resume_step + 1,
            session_log={"status": "START"},
        )
        if config:
            # Lists have no type there. Which settings and metrics there are,
            # TensorBoard finds out of all runs, if none says it.
            shown = {
                name: str(value) if isinstance(value, list) else value
                for name, value in settings.flat(config).items()
            }
            _, begun, self._ended = summary.hparams(shown, {})
            self._append(summary=begun)
            text = f"```\n{files.to_json(config, indent=2)}\n```"
            self._append(summary=summary.text("config", text))

    @staticmethod
    def has_events(workdir: Path) -> bool:
        """Whether a folder has events of TensorBoard."""
        return any(workdir.glob("events.out.tfevents.*"))

    def _append(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields)
        self._file.write(event.SerializeToString())
        self._file.flush()

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Write one event that holds all ``metrics``; see `metrics.Writers.write`."""
        values = [
            {"tag": tag, "simple_value": value}
            for tag, value in _tagged(split, metrics).items()
        ]
        self._append(step=step, summary={"value": values})
        self._growing.grown()

    def sync(self) -> None:
        """Writes the event file to a store."""
        self._growing.publish()

    def close(self) -> None:
        """Close the event file."""
        if self._ended and sys.exception() is None:
            self._append(summary=self._ended)
        self._file.close()
        self._growing.close()


class WandB:
    """Writes to Weights & Biases, with names such as ``train/loss``.

    The id of the run is kept in ``workdir``, so that a run that continues is one run
    there too. Files are in ``workdir/wandb``; ``wandb sync`` uploads those of an
    offline run. A run that an exception ends is marked as failed.

    Args:
        workdir: directory of the run, which also gives the run its name. Files of a run
            in a store are in ``wandb`` of the current directory.
        config: settings of the run to show next to it.
        mode: ``"offline"`` or ``"online"``.
        project: project that the run belongs to.
        name: name of the run; None stands for the name of ``workdir``.
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
        workdir = storage.path(workdir)
        id_file = workdir / WANDB_ID_FILE
        if not id_file.exists():
            files.replace(id_file, secrets.token_hex(4))
        run_id = files.read(id_file).decode(errors="replace").strip()
        if not re.fullmatch(r"[\w-]+", run_id):
            raise errors.UserError(
                f"{id_file} is damaged: delete it, and what follows is a new run at "
                "Weights & Biases"
            )
        try:
            self._run = wandb.init(
                project=project,
                name=name or workdir.resolve().name,
                id=run_id,
                resume="allow",
                dir=None if isinstance(workdir, storage.Remote) else workdir,
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
        """Log ``metrics``; see `metrics.Writers.write`."""
        # A run that continues repeats steps that the server already has, with the same
        # values.
        if step >= self._run.step:
            self._run.log(_tagged(split, metrics), step=step)

    def sync(self) -> None:
        """Nothing: the package does that by itself."""

    def close(self) -> None:
        """Finish the run; as failed if an exception is on its way."""
        self._run.finish(exit_code=int(sys.exception() is not None))


def _tagged(split: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{split}/{name}": float(value) for name, value in metrics.items()}
