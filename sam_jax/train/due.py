"""When the state of a run is to be saved: every N epochs, steps or seconds."""

import time
from collections.abc import Callable

from sam_jax.train import agreement, hosts, settings


class Saves:
    """After which steps the state is to be saved.

    Seconds are those of process 0's clock. It is asked after steps that it named the
    time before: there are twice as many left, at the speed so far. A run of one process
    asks it after every step.

    Attributes:
        every: numbers of steps; after multiples of them is a save.

    Example:
        >>> saves = Saves(settings.Checkpoint(every_epochs=2, every_steps=5), 3, 0)
        >>> [step for step in range(1, 13) if saves.due(step)]
        [5, 6, 10, 12]
    """

    def __init__(
        self,
        config: settings.Checkpoint,
        steps_per_epoch: int,
        start: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        epochs = config.every_epochs and config.every_epochs * steps_per_epoch
        self.every = tuple(filter(None, (epochs, config.every_steps)))
        self._seconds = config.every_seconds
        self._clock = clock
        self.saved(start)

    def saved(self, step: int) -> None:
        """Records that the state after this step is saved; the seconds restart."""
        self._last, self._ask = step, step + 1
        self._since = self._clock() if self._seconds else 0.0

    def due(self, step: int) -> bool:
        """Whether to save after this step; all processes ask after the same steps."""
        if any(step % each == 0 for each in self.every):
            return True
        if self._seconds is None or step < self._ask:
            return False
        passed, self._ask = agreement.from_first(lambda: self._passed(step))
        return passed >= self._seconds

    def _passed(self, step: int) -> tuple[float, int]:
        """The seconds that have passed, and the step to ask after again."""
        passed = self._clock() - self._since
        share = max(passed / (self._seconds or 1), 1e-9)
        left = (step - self._last) * (1 - share) / share if hosts.several() else 0
        return passed, step + max(1, int(left / 2))
