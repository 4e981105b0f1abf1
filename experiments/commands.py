"""What the command lines of the experiments share: parsers, checked values, ends.

Whatever is wrong with a command line is said before the first run, in one sentence.
"""

import argparse
import collections
import contextlib
import functools
import math
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from sam_jax import commands as verbs
from sam_jax import errors
from sam_jax.commands import count as count
from sam_jax.commands import with_settings as with_settings
from sam_jax.train import interrupt

P = ParamSpec("P")
T = TypeVar("T")


def parser(doc: str | None, **settings: Any) -> argparse.ArgumentParser:
    """A command line with one line for a mistake, and flags that are written out.

    Example:
        >>> made = parser("Compares.")
        >>> _ = made.add_argument("--seeds", type=count, default=5)
        >>> made.parse_known_args(["--seed=3"])
        (Namespace(seeds=5), ['--seed=3'])
    """
    line = str(doc).partition("\n")[0]
    return verbs.Parser(description=line, **settings)


def ends(main: Callable[P, int]) -> Callable[P, int]:
    """As that of the package's own commands, also where the system refuses a file."""

    @verbs.ends
    @functools.wraps(main)
    def run(*args: P.args, **settings: P.kwargs) -> int:
        try:
            with verbs.quiet_pipe():
                return main(*args, **settings)
        except ValueError as error:
            from sam_jax import checks  # which loads JAX

            if isinstance(error, checks.BadValue):
                raise errors.UserError(str(error)) from error
            raise
        except OSError as error:
            raise errors.WriteError(str(error)) from error

    return run


def child(
    command: Sequence[str],
    *,
    seconds: float | None = None,
    env: Mapping[str, str] | None = None,
    seen: Callable[[str], object] = lambda line: print("  " + line, end="", flush=True),
) -> tuple[int, str]:
    """Runs a command in a session of its own, which never outlives this process.

    Args:
        command: program and arguments.
        seconds: after which it is killed with all that it has started.
        env: its variables; those of this process by default.
        seen: is given each line of its output, errors among it, as it comes.
    """
    last: collections.deque[str] = collections.deque(maxlen=40)
    with subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)

        timer = threading.Timer(seconds or threading.TIMEOUT_MAX, kill)
        timer.start()
        try:
            with interrupt.first(kill):
                for line in running.stdout or ():
                    seen(line)
                    last.append(line)
                code = running.wait()
        finally:
            timer.cancel()
            kill()
    return code, "".join(last)


# ── Values of flags ──────────────────────────────────────────────────────────────────


def positive(text: str) -> float:
    """A finite number above 0.

    Example:
        >>> positive("1e-3")
        0.001
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def several(of: Callable[[str], T]) -> Callable[[str], list[T]]:
    """Makes the type of a flag of several values with commas between them, each once.

    Example:
        >>> several(positive)("1,3,10")
        [1.0, 3.0, 10.0]
    """

    def read(text: str) -> list[T]:
        values = [of(part) for part in text.split(",")]
        if len(set(values)) < len(values) or "" in text.split(","):
            raise argparse.ArgumentTypeError(
                f"must be different values with commas between them, got {text!r}"
            )
        return values

    return read


def folder(text: str) -> pathlib.Path:
    """A folder that can be written to; it is made."""
    path = pathlib.Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"must be a folder that can be written to, got {text!r} ({error})"
        ) from error
    return path


def file(text: str) -> pathlib.Path:
    """A file that can be written, in a folder that is made."""
    path = pathlib.Path(text)
    folder(str(path.parent))
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, got the folder {text!r}")
    return path
