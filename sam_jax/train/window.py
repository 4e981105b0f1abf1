"""Metrics of the last steps, fetched one call late so that the device never waits."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from sam_jax.train.step import Metrics


class NotFiniteError(RuntimeError):
    """Something that must not be NaN or infinite is; the message says what."""


class UpdateNotFiniteError(NotFiniteError):
    """It is an update, which a run can leave out."""


class Row(NamedTuple):
    """Means over a few consecutive steps.

    Attributes:
        step: the last of them, from 1.
        steps: how many.
        skipped: how many of them were not finite.
        metrics: name -> mean over the others, and ``examples_per_second``.
    """

    step: int
    steps: int
    skipped: int
    metrics: dict[str, float]


class Window:
    """Collects metrics of steps on the device and returns their means on the host.

    Args:
        start: updates done before.
        size: steps in a row of the log.
        batch_size: examples in a step.
        most_skips: how many steps in a row may be not finite; they are left out of the
            means.
        in_a_row: how many of those done before, up to the last, were not.

    Attributes:
        in_a_row: steps up to the last one in a row that are not finite.
    """

    def __init__(
        self,
        start: int,
        size: int,
        batch_size: int,
        *,
        most_skips: int = 0,
        in_a_row: int = 0,
    ) -> None:
        self._reported = start
        self._size = size
        self._batch_size = batch_size
        self._most_skips = most_skips
        self.in_a_row = in_a_row
        self._waiting: list[tuple[int, Metrics]] = []  # on the device
        self._fetched: list[dict[str, np.float32]] = []  # of each step
        self._clock = time.perf_counter()

    def add(self, metrics: Metrics, steps: int = 1) -> None:
        """Keeps the metrics of the next steps, which may still be computed."""
        self._waiting.append((steps, metrics))

    def ready(self) -> Iterator[Row]:
        """The rows whose steps came before the last ones added, first to last."""
        earlier = self._waiting[:-1]
        there = len(self._fetched) + sum(steps for steps, _ in earlier)
        yield from self._rows(earlier, there - there % self._size)

    def flush(self) -> Iterator[Row]:
        """The rows of all steps that are left; waits for them.

        Raises:
            UpdateNotFiniteError: for the first step that is not finite after as many as
                are accepted in a row.
        """
        there = len(self._fetched) + sum(steps for steps, _ in self._waiting)
        yield from self._rows(self._waiting, there)

    def restart_clock(self) -> None:
        """Time until now was spent on something else than steps."""
        self._clock = time.perf_counter()

    def _rows(self, waiting: list[tuple[int, Metrics]], steps: int) -> Iterator[Row]:
        """The rows of that many steps, once these metrics are fetched."""
        if not steps:
            return
        for count, metrics in jax.device_get(waiting):
            arrays = {name: np.atleast_1d(x) for name, x in metrics.items()}
            self._fetched += [
                {name: x[i] for name, x in arrays.items()} for i in range(count)
            ]
        del self._waiting[: len(waiting)]
        # Of steps that were done in one call no single one is known: one speed for all.
        now = time.perf_counter()
        speed = steps * self._batch_size / (now - self._clock)
        self._clock = now
        for first in range(0, steps, self._size):
            size = min(self._size, steps - first)
            rows = self._fetched[:size]
            finite = [row for row in rows if self._is_good(row)]
            del self._fetched[:size]
            means = {
                name: float(np.mean([row[name] for row in finite or rows], dtype=float))
                for name in rows[0].keys() - {"finite"}
            }
            means["examples_per_second"] = speed
            yield Row(self._reported, size, size - len(finite), means)

    def _is_good(self, row: dict[str, np.float32]) -> bool:
        """Whether the next step is finite; counts it."""
        self._reported += 1
        self.in_a_row = 0 if row["finite"] == 1 else self.in_a_row + 1
        if self.in_a_row > self._most_skips:
            seen = ", ".join(f"{name} {float(x):.4g}" for name, x in row.items())
            raise UpdateNotFiniteError(
                f"the loss or the update of step {self._reported} is not finite"
                + f", as the {self._most_skips} before it" * bool(self._most_skips)
                + f" ({seen})"
            )
        return self.in_a_row == 0
