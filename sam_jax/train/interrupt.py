"""SIGTERM and Ctrl-C: finish the step, save, leave."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from jax.experimental import multihost_utils

from sam_jax.train import hosts


@contextlib.contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals
) -> Iterator[None]:
    """Handles signals so; does nothing but in the main thread, which alone can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


class Interrupt(contextlib.ExitStack):
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
        super().__init__()
        self.received: signal.Signals | None = None

    def __enter__(self) -> "Interrupt":
        self.enter_context(_handled(self._handle, signal.SIGTERM, signal.SIGINT))
        return self

    def at_step(self) -> signal.Signals | None:
        """Whether to stop after the step just done.

        Returns:
            The signal, or None.
        """
        return self.received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is None:
            self.received = signal.Signals(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt


class Preemption(contextlib.ExitStack):
    """SIGTERM or Ctrl-C on any process stops all of them after the same step.

    The runtime, which handles SIGTERM from `hosts.join` on, tells all processes of it
    and finds the next call of `at_step` that none of them has made. Ctrl-C is turned
    into a SIGTERM; a second one raises.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0
        self._interrupted = False

    def __enter__(self) -> "Preemption":
        # The runtime takes the largest number that it was asked for, and one more: a
        # run before this one in the same processes may have counted further.
        multihost_utils.reached_preemption_sync_point(self._calls)
        self.enter_context(_handled(self._handle, signal.SIGINT))
        return self

    def at_step(self) -> signal.Signals | None:
        """Whether to stop after the step just done.

        All processes call this after the same steps.

        Returns:
            SIGTERM, or None.
        """
        # The calls are counted, and not the steps, of which a run that is continued or
        # several in a dispatch leave some out: the runtime's point may be one of them.
        self._calls += 1
        reached = multihost_utils.reached_preemption_sync_point(self._calls)
        return signal.SIGTERM if reached else None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        os.kill(os.getpid(), signal.SIGTERM)


def request() -> Interrupt | Preemption:
    """What remembers that a run shall stop, as a context.

    Returns:
        Of this process; or of all of the run, once `hosts.join` has connected them:
        from then on the runtime takes the SIGTERMs, also if there is only one process.
    """
    return Preemption() if hosts.connected() else Interrupt()
