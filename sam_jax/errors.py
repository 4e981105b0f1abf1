"""Errors that speak to the user: what was wrong, what is allowed, what to do."""

import contextlib
import difflib
import sysconfig
import traceback
from collections.abc import Iterable, Iterator

_LIBRARIES = ("site-packages", "dist-packages", sysconfig.get_path("stdlib"), "<")


class UserError(ValueError):
    """A mistake that the user of the trainer can fix.

    Its message is one line that says what was wrong, what is allowed and what to do.
    ``python -m sam_jax.main`` prints it without a traceback and exits with code 2.
    """


class WriteError(UserError):
    """A file that cannot be written, as on a full disk; the exit code is 1."""


def unknown(
    kind: str, name: object, valid: Iterable[str], nearest: str | None = None
) -> str:
    """Message for a name that is not known: the nearest one first, then all.

    Args:
        kind: what the name stands for, such as ``"method"``.
        name: what the user wrote.
        valid: the names that exist.
        nearest: what the user may have meant; None looks for it among them.

    Returns:
        One line.

    Example:
        >>> unknown("method", "vaso", ["sam", "vasso"])
        "unknown method 'vaso': did you mean 'vasso'? There are: sam, vasso"
    """
    valid = sorted(valid)
    near = [nearest] if nearest else difflib.get_close_matches(str(name), valid, 1, 0.5)
    hint = f" did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}:{hint} There are: {', '.join(valid) or 'none'}"


@contextlib.contextmanager
def translated(what: str, remedy: str) -> Iterator[None]:
    """Turns whatever a library raises, such as a reader of files, into one sentence.

    Which classes these are depends on the damage and on the library that meets it: all
    are meant but a package that is missing. An error that a line of this package or of
    the user's own program raises is a mistake in a program, and keeps its traceback.

    Args:
        what: could not be done.
        remedy: what to do.

    Raises:
        UserError: from the library's error.

    Example:
        >>> import json
        >>> with translated("costs.json is damaged", "delete it"):
        ...     json.loads("{")
        Traceback (most recent call last):
        ...
        sam_jax.errors.UserError: costs.json is damaged: Expecting property name \
enclosed in double quotes: line 1 column 2 (char 1); delete it
    """
    try:
        yield
    except (UserError, ImportError):
        raise
    except Exception as error:
        if not _of_a_library(error):
            raise
        said = one_line(error) or type(error).__name__
        raise UserError(f"{what}: {said}; {remedy}") from error


@contextlib.contextmanager
def needing(extra: str) -> Iterator[None]:
    """Says what to install where packages are imported that may be missing.

    Args:
        extra: of ``pip install "sam_jax[...]"``, which brings them.

    Raises:
        ModuleNotFoundError: naming the package and the extra.

    Example:
        >>> with needing("train"):
        ...     import no_such_package
        Traceback (most recent call last):
        ...
        ModuleNotFoundError: no_such_package is not installed: this part of sam_jax \
needs pip install "sam_jax[train]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package == "sam_jax":
            raise
        raise ModuleNotFoundError(
            f"{package} is not installed: this part of sam_jax needs pip install "
            f'"sam_jax[{extra}]"',
            name=error.name,
        ) from error


def _of_a_library(error: BaseException) -> bool:
    """Whether the innermost line, where it began, is of an installed library."""
    while error.__cause__ is not None:
        error = error.__cause__
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    ours = frame.f_globals.get("__name__", "").partition(".")[0] == "sam_jax"
    return not ours and any(part in frame.f_code.co_filename for part in _LIBRARIES)


def one_line(value: object, limit: int = 300) -> str:
    r"""Text of ``value`` on one line; of a long one the beginning and the end.

    Example:
        >>> one_line("a   b\nc"), one_line("x" * 99, limit=9)
        ('a b c', 'xxx ... xxxxxx')
    """
    text = " ".join(str(value).split())
    if len(text) <= limit:
        return text
    return f"{text[: limit // 3]} ... {text[-(limit - limit // 3) :]}"
