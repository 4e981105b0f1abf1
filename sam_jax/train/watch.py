"""Measures the sharpness of a run while it trains."""

import functools
import math
import pathlib
import time
from collections.abc import Callable

from sam_jax import data, errors
from sam_jax.train import (
    build,
    data_record,
    hosts,
    loaded,
    sharpness,
    sharpness_files,
    state,
    subject,
)
from sam_jax.train.slices import PICTURES

# The others need a second run, or the folder's checkpoints.
_PICTURES = {name: PICTURES[name] for name in ("density", "line", "plane")}
_LOGGED = {
    "value": "",
    "residual": "_residual",
    "standard_error": "_standard_error",
}


class Watch:
    """Measures the sharpness of a run while it trains.

    It changes nothing in training; BatchNorm is as in evaluation. Pictures
    are of the last weights alone.

    Attributes:
        every: updates between two measurements; empty for never.
    """

    def __init__(self, run: build.Run) -> None:
        config = run.config.sharpness
        self.every = (config.every * run.steps_per_epoch,) if config.every else ()
        known = {**sharpness.MEASURES, **_PICTURES}
        names = sharpness.names_of(config.measures, known, "config.sharpness.measures")
        self._measures = {name: known[name] for name in names}
        if self.every and hosts.several():
            raise errors.UserError(
                "config.sharpness.every is for runs of one process: leave it out, and "
                "measure the finished run with sam-jax sharpness"
            )
        self._run, self._asked = run, subject.Asked(examples=config.examples)

    def due(self, step: int) -> bool:
        """Whether to measure after this update; the last one is measured as well."""
        last = step == self._run.total_steps
        return any(last or step % each == 0 for each in self.every)

    @functools.cached_property
    def _lasting(self) -> tuple[subject.Losses, data.Source, data_record.DataRecord]:
        """What stays the same: losses, examples, and what the data are like."""
        dataset = self._run.dataset
        normalize = data.augment.make_normalize(mean=dataset.mean, std=dataset.std)
        return (
            subject.Losses(self._run.model, self._run.measure, normalize),
            subject.drawn(dataset.train, self._asked.examples, self._asked.seed),
            data_record.DataRecord.of(dataset, self._run.config.batch_size),
        )

    def measured(
        self,
        train_state: state.TrainState,
        warn: Callable[[str], None],
        folder: pathlib.Path | None = None,
    ) -> dict[str, float]:
        """Measures the weights that would be evaluated.

        Args:
            train_state: of the run.
            warn: told of what cannot be measured; it is NaN.
            folder: of the run, for ``sharpness.json`` and the pictures of its last
                weights.

        Returns:
            Name -> value, with ``<name>_residual`` or ``<name>_standard_error`` beside
            it, and ``seconds``, what it took.
        """
        run, (of_network, source, record) = self._run, self._lasting
        clock, step = time.monotonic(), int(train_state.step)
        there = loaded.LoadedRun(
            *(folder or pathlib.Path(), step, run.config, record, run.model),
            *(*state.evaluated(train_state, run.optimizer), run.measure),
        )
        mesh = run.mesh if run.mesh.size > 1 else None
        target = subject.Subject(there, source, of_network, self._asked, mesh=mesh)
        values: dict[str, float] = {}
        records: dict[str, sharpness.Record] = {}
        last = step == run.total_steps
        for name, one in self._measures.items():
            if name in _PICTURES and not (last and folder):
                continue
            try:
                ((_, found),) = sharpness.measure(target, {name: one})
            except errors.UserError as error:
                warn(f"step {step}: {error}")
                found = {"value": math.nan}
            else:
                records[name] = found
            for key, suffix in _LOGGED.items():
                if found.get(key) is not None:
                    values[f"{name}{suffix}"] = found[key]
        if last and folder:
            try:
                sharpness_files.write(folder, *sharpness_files.parted(records))
            except errors.UserError as error:
                warn(str(error))
        return values | {"seconds": time.monotonic() - clock}
