"""What the command lines of the experiments share: parsers, checked values, ends.

Whatever is wrong with a command line is said before the first run, in one sentence.
"""

import argparse
import functools
import math
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from sam_jax import checks, commands, errors
from sam_jax.commands import count as count
from sam_jax.commands import with_settings as with_settings

P = ParamSpec("P")
T = TypeVar("T")


def parser(doc: str | None, **settings: Any) -> argparse.ArgumentParser:
    """A command line whose flags are written out: ``--seed`` is no ``--seeds``.

    Args:
        doc: of the module; its first line says what is done.
        **settings: of `argparse.ArgumentParser`.

    Example:
        >>> made = parser("Compares.")
        >>> _ = made.add_argument("--seeds", type=count, default=5)
        >>> made.parse_known_args(["--seed=3"])
        (Namespace(seeds=5), ['--seed=3'])
    """
    line = str(doc).partition("\n")[0]
    return argparse.ArgumentParser(description=line, allow_abbrev=False, **settings)


def ends(main: Callable[P, int]) -> Callable[P, int]:
    """Decorates the main function of a command: what its user can mend is one line.

    Args:
        main: returns the exit code.

    Returns:
        The same, which ends with 2 after a mistake of the user, 1 where a file or
        folder cannot be used, 130 after Ctrl-C, and 141 where nobody reads the output.
    """

    @functools.wraps(main)
    def run(*args: P.args, **settings: P.kwargs) -> int:
        try:
            with commands.quiet_pipe():
                return main(*args, **settings)
        except (errors.UserError, checks.BadValue) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1 if isinstance(error, errors.WriteError) else 2
        except subprocess.CalledProcessError as error:
            return error.returncode  # it has said why
        except OSError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            return 130

    return run


# ── Values of flags ──────────────────────────────────────────────────────────────────


def positive(text: str) -> float:
    """A finite number above 0.

    Raises:
        ArgumentTypeError: for anything else.

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

    Args:
        of: the type of one.

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
    """A folder that can be written to; it is made.

    Raises:
        ArgumentTypeError: if it cannot.
    """
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
    """A file that can be written, in a folder that is made.

    Raises:
        ArgumentTypeError: if it cannot.
    """
    path = pathlib.Path(text)
    folder(str(path.parent))
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, got the folder {text!r}")
    return path
