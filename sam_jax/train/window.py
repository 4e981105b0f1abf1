"""Metrics of the last steps, fetched one call late so that the device never waits."""

import time
from collections.abc import Iterator
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
        self._reported = start
        self._size = size
        self._batch_size = batch_size
        self._accept_nonfinite = accept_nonfinite
        self._waiting: list[tuple[int, Metrics]] = []  # on the device
        self._fetched: list[dict[str, np.float32]] = []  # of each step
        self._clock = time.monotonic()

    def add(self, metrics: Metrics, steps: int = 1) -> None:
        """Keeps the metrics of the next steps, which may still be computed.

        Args:
            metrics: name -> scalar, or an array whose first values are of these steps.
            steps: how many.
        """
        self._waiting.append((steps, metrics))

    def ready(self) -> Iterator[Row]:
        """The rows whose steps came before the last ones added, first to last.

        Raises:
            NotFiniteError: see `flush`.
        """
        earlier = self._waiting[:-1]
        there = len(self._fetched) + sum(steps for steps, _ in earlier)
        yield from self._rows(earlier, there - there % self._size)

    def flush(self) -> Iterator[Row]:
        """The rows of all steps that are left; waits for them.

        Raises:
            NotFiniteError: for the first step that is not finite, if such are not
                accepted.
        """
        there = len(self._fetched) + sum(steps for steps, _ in self._waiting)
        yield from self._rows(self._waiting, there)

    def restart_clock(self) -> None:
        """Time until now was spent on something else than steps."""
        self._clock = time.monotonic()

    def _rows(self, waiting: list[tuple[int, Metrics]], steps: int) -> Iterator[Row]:
        """The rows of so many steps, once these metrics are fetched."""
        if not steps:
            return
        for count, metrics in jax.device_get(waiting):
            arrays = {name: np.atleast_1d(x) for name, x in metrics.items()}
            self._fetched += [
                {name: x[i] for name, x in arrays.items()} for i in range(count)
            ]
        del self._waiting[: len(waiting)]
        # Of steps that were done in one call no single one is known: one speed for all.
        now = time.monotonic()
        speed = steps * self._batch_size / (now - self._clock)
        self._clock = now
        for first in range(0, steps, self._size):
            size = min(self._size, steps - first)
            means = self._means(self._fetched[:size])
            del self._fetched[:size]
            self._reported += size
            yield Row(self._reported, size, {**means, "examples_per_second": speed})

    def _means(self, rows: list[dict[str, np.float32]]) -> dict[str, float]:
        finite = [bool(row["finite"] == 1) for row in rows]
        if not self._accept_nonfinite and not all(finite):
            first = finite.index(False)
            values = {name: float(x) for name, x in rows[first].items()}
            raise NotFiniteError(self._reported + first + 1, values)
        kept = [row for row, ok in zip(rows, finite, strict=True) if ok] or rows
        means = {
            name: float(np.mean([row[name] for row in kept], dtype=np.float64))
            for name in rows[0]
        }
        means["finite"] = float(np.mean(finite))
        return means
