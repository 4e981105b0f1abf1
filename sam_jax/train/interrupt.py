"""SIGTERM and Ctrl-C: finish the step, save, leave."""

import signal
import threading
from types import FrameType, TracebackType


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
