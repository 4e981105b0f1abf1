"""Metrics of the last steps, fetched one step late so that the device never waits."""

import time
from typing import NamedTuple

import jax
import numpy as np

from sam_jax.train.step import Metrics


class NotFiniteError(RuntimeError):
    """A step whose loss or update is NaN or infinite.

    Attributes:
        step: the update, from 1.
        metrics: what it measured.
    """

    def __init__(self, step: int, metrics: dict[str, float]) -> None:
        super().__init__(f"step {step} is not finite: {metrics}")
        self.step = step
        self.metrics = metrics


class Row(NamedTuple):
    """Means over a few consecutive steps.

    Attributes:
        step: the last of them, from 1.
        steps: how many.
        metrics: name -> mean, and ``examples_per_second``.
    """

    step: int
    steps: int
    metrics: dict[str, float]


class Window:
    """Collects metrics of steps on the device and returns their means on the host.

    Args:
        start: updates done before.
        size: steps in a row of the log.
        batch_size: examples in a step.
        accept_nonfinite: leave steps out of the means that are not finite, instead of
            raising.
    """

    def __init__(
        self, start: int, size: int, batch_size: int, *, accept_nonfinite: bool
    ) -> None:
        self._fetched = start
        self._size = size
        self._batch_size = batch_size
        self._accept_nonfinite = accept_nonfinite
        self._waiting: list[Metrics] = []
        self._clock = time.monotonic()

    def add(self, metrics: Metrics) -> None:
        """Keeps the metrics of the next step, which may still be computed."""
        self._waiting.append(metrics)

    def ready(self) -> Row | None:
        """The next row, once a step after it has been dispatched.

        Raises:
            NotFiniteError: see `flush`.
        """
        return self._fetch(self._size) if len(self._waiting) > self._size else None

    def flush(self) -> Row | None:
        """A row of all steps that are left; waits for them.

        Raises:
            NotFiniteError: for the first step that is not finite, if such are not
                accepted.
        """
        return self._fetch(len(self._waiting)) if self._waiting else None

    def restart_clock(self) -> None:
        """Time until now was spent on something else than steps."""
        self._clock = time.monotonic()

    def _fetch(self, steps: int) -> Row:
        rows = jax.device_get(self._waiting[:steps])
        del self._waiting[:steps]
        finite = [row["finite"] == 1 for row in rows]
        if not self._accept_nonfinite and not all(finite):
            first = finite.index(False)
            values = {name: float(x) for name, x in rows[first].items()}
            raise NotFiniteError(self._fetched + first + 1, values)
        kept = [row for row, ok in zip(rows, finite, strict=True) if ok] or rows
        means = {
            name: float(np.mean([row[name] for row in kept], dtype=np.float64))
            for name in rows[0]
        }
        means["finite"] = float(np.mean(finite))
        now = time.monotonic()
        means["examples_per_second"] = steps * self._batch_size / (now - self._clock)
        self._clock = now
        self._fetched += steps
        return Row(self._fetched, steps, means)
