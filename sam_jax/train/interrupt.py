"""SIGTERM and Ctrl-C: finish the step, save, leave."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from jax.experimental import multihost_utils

from sam_jax.train import hosts


class Interrupt:
    """Remembers the first SIGTERM or SIGINT while entered; a second SIGINT raises.

    Signals can only be caught in the main thread; elsewhere it never triggers.

    Attributes:
        received: the signal, or None.

    Example:
        >>> import os
        >>> with Interrupt() as interrupt:
        ...     os.kill(os.getpid(), signal.SIGTERM)
        >>> interrupt.received.name
        'SIGTERM'
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def at(self, step: int) -> signal.Signals | None:
        """Whether to stop after this step.

        Args:
            step: updates done; it does not matter here.

        Returns:
            The signal, or None.
        """
        del step
        return self.received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is None:
            self.received = signal.Signals(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt


class Preemption:
    """SIGTERM or Ctrl-C on any process stops all of them after the same step.

    The runtime, which handles SIGTERM from `hosts.join` on, tells all processes of it
    and finds a step that none of them has reached. Ctrl-C is turned into a SIGTERM; a
    second one raises.

    Args:
        step: updates done.
    """

    def __init__(self, step: int) -> None:
        self._step = step
        self._previous: Any = None
        self._interrupted = False

    def __enter__(self) -> "Preemption":
        self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def at(self, step: int) -> signal.Signals | None:
        """Whether to stop after this step.

        Args:
            step: updates done; the same sequence of them on all processes.

        Returns:
            SIGTERM, or None.
        """
        # Of several steps done at once each is asked for: any may be the one found.
        reached = [
            multihost_utils.reached_preemption_sync_point(each)
            for each in range(self._step + 1, step + 1)
        ]
        self._step = step
        return signal.SIGTERM if any(reached) else None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        os.kill(os.getpid(), signal.SIGTERM)


def request(step: int) -> Interrupt | Preemption:
    """What remembers that a run shall stop, as a context.

    Args:
        step: updates done.

    Returns:
        Of this process, or, if there are several, of all.
    """
    return Preemption(step) if hosts.several() else Interrupt()
