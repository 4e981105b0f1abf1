"""Signals that end a run: finish the step, save, leave; before and after it, leave."""

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# Ctrl-C, a scheduler's end, a lost terminal, SLURM's --signal=USR1, Ctrl-Break of
# Windows: those that the platform has.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGBREAK")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


def listen(advice: str = "") -> None:
    """From now on each of the signals ends this process, with one line.

    To be called before JAX is imported. An exception would not do: one that is raised
    while JAX's callbacks of the garbage collector run is swallowed.
    """
    for number in _heeded(SIGNALS):
        signal.signal(number, functools.partial(_leave, advice))


def _leave(advice: str, number: int, frame: FrameType | None) -> None:
    del frame
    name = signal.Signals(number).name
    line = f"error: ended by {name}{'; ' * bool(advice)}{advice}\n"
    with contextlib.suppress(Exception):  # the signal may have come in a flush
        sys.stdout.flush()
    # A bar has hidden the cursor.
    os.write(2, (f"\n\x1b[?25h{line}" if os.isatty(2) else line).encode())
    os._exit(128 + number)


def _heeded(numbers: tuple[signal.Signals, ...]) -> list[signal.Signals]:
    """Those that nobody has switched off, as ``nohup`` does with SIGHUP."""
    return [n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN]


@contextlib.contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals
) -> Iterator[Any]:
    """Handles signals so; does nothing but in the main thread, which alone can."""
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    again = signal.getsignal(signal.SIGINT)
    previous = {number: signal.signal(number, handler) for number in _heeded(numbers)}
    try:
        yield again if callable(again) else signal.default_int_handler
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextlib.contextmanager
def first(end: Callable[[], object]) -> Iterator[None]:
    """While entered, a signal does this before what it did anyway."""
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        end()
        again = before[signal.Signals(number)]
        if callable(again):
            again(number, frame)
        else:
            _leave("", number, frame)

    with _handled(handle, *SIGNALS):
        yield


class Interrupt(contextlib.ExitStack):
    """Remembers the first signal while entered; a Ctrl-C after it acts as before.

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
        self._again = self.enter_context(_handled(self._handle, *SIGNALS))
        return self

    def at_step(self) -> signal.Signals | None:
        """Whether to stop after the step just done."""
        return self.received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
        elif number == signal.SIGINT:
            self._again(number, frame)


class Preemption(contextlib.ExitStack):
    """A signal on any process stops all of them after the same step.

    The runtime, which handles SIGTERM from `hosts.join` on, tells all processes of it
    and finds the next call of `at_step` that none of them has made. The other signals
    are turned into a SIGTERM; a second Ctrl-C acts as before.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0
        self._received = False

    def __enter__(self) -> "Preemption":
        # The runtime takes the largest number that it was asked for, and one more: a
        # run before this one in the same processes may have counted further.
        self._reached(self._calls)
        others = (number for number in SIGNALS if number != signal.SIGTERM)
        self._again = self.enter_context(_handled(self._handle, *others))
        return self

    def at_step(self) -> signal.Signals | None:
        """Whether to stop after the step just done.

        All processes call this after the same steps.
        """
        # The calls are counted, and not the steps, of which a run that is continued or
        # several in a dispatch leave some out: the runtime's point may be one of them.
        self._calls += 1
        return signal.SIGTERM if self._reached(self._calls) else None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._received:
            self._received = True
            signal.raise_signal(signal.SIGTERM)
        elif number == signal.SIGINT:
            self._again(number, frame)

    def _reached(self, calls: int) -> bool:
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(calls)


def request() -> Interrupt | Preemption:
    """What remembers that a run shall stop, as a context.

    Returns:
        Of this process; or of all of the run, once `hosts.join` has connected them:
        from then on the runtime takes the SIGTERMs, also if there is only one process.
    """
    from sam_jax.train import hosts

    return Preemption() if hosts.connected() else Interrupt()
