"""Files of a run: written whole or not at all, read with one sentence of what is wrong.

Numbers that JSON does not know are the strings ``"NaN"``, ``"Infinity"`` and
``"-Infinity"`` (as in the JSON form of protocol buffers), so that every file of a run
is valid JSON.
"""

import contextlib
import errno
import json
import math
import os
import pathlib
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from sam_jax import errors, storage

_TO_JSON = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_FROM_JSON = {name: float(name) for name in _TO_JSON.values()}

TEMPORARY = ".*.tmp"  # what a kill in the middle of `replace` leaves


def replace(path: str | os.PathLike[str], data: str | bytes) -> None:
    """Writes a file so that it has all of the old or all of the new content.

    This holds for a kill, a full disk and a power loss, and in a store.

    Args:
        path: of the file; a link is replaced, not followed.
        data: the new content; text is written as UTF-8.

    Raises:
        WriteError: naming the file, if that cannot be done.
    """
    path = storage.path(path)
    if isinstance(data, str):
        data = data.encode(errors="replace")  # a path in it need not be text
    if isinstance(path, storage.Remote):
        with writing(path):
            path.write_bytes(data)
        return
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")
    try:
        with writing(path):
            with temporary.open("xb") as file:  # new, hence no link to somewhere else
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(path: pathlib.Path) -> None:
    """Waits until a file, or the names in a folder, would survive a power loss.

    Raises:
        OSError: if a file cannot be written; not all systems know this of folders.
    """
    if isinstance(path, storage.Remote):  # is safe once it is written
        return
    folder = path.is_dir()
    with contextlib.suppress(*([OSError] if folder else [])):
        # Windows syncs nothing that is open to be read only.
        descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(path: pathlib.Path, flag: str = "--workdir") -> None:
    """Makes a folder and those that it is in; one that is there will do."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
        for each in (path, *path.parents):
            if os.path.lexists(each) and not each.is_dir():
                dangling = each.is_symlink() and not each.exists()
                what = "a link to nothing" if dangling else "not a folder"
                reason = f"{each} is {what}"
        raise errors.UserError(
            f"cannot write to {path} ({reason}): give another {flag}"
        ) from error


def check_new(path: pathlib.Path) -> None:
    """Refuses a file to write that is there, or could not be made.

    Worth to know before what takes long.
    """
    try:
        if path.exists() or path.is_symlink():
            raise FileExistsError(errno.EEXIST, "it exists, and is not replaced")
        if isinstance(path, storage.Remote):
            path.write_bytes(b"")
            path.unlink()
        else:
            tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise errors.UserError(
            f"cannot write {path} ({error.strerror}): give another --out"
        ) from error


class Closing(contextlib.AbstractContextManager[Any]):
    """What is closed at the end of a ``with``; the first error is reported."""

    def close(self) -> None:
        """Gives back what it holds."""
        raise NotImplementedError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(*([] if error is None else [Exception])):
            self.close()


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Where a file is written."""
    try:
        yield
    except OSError as error:
        raise errors.WriteError(
            f"cannot write {path} ({error.strerror}): fix that, then start the same "
            "command again"
        ) from error


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[None]:
    """Where files are read that are there."""
    try:
        yield
    except OSError as error:
        raise errors.UserError(
            f"cannot read {error.filename or path} ({error.strerror}): fix that, then "
            "start the same command again"
        ) from error


def read(path: pathlib.Path) -> bytes:
    """The content of a file."""
    with reading(path):
        return path.read_bytes()


def to_json(tree: Any, **style: Any) -> str:
    """Valid JSON, whatever the numbers.

    Example:
        >>> to_json({"loss": float("nan"), "steps": [1, 2.5]})
        '{"loss": "NaN", "steps": [1, 2.5]}'
    """
    return json.dumps(_mapped(_encoded, tree), allow_nan=False, **style)


def to_lines(tree: Any, depth: int = 0) -> str:
    """As `to_json`, for people: what fits into a line of 100 characters is one.

    So is a list of numbers or words, however long.

    Example:
        >>> print(to_lines({"runs": [{"loss": 1 / 3}] * 4, "steps": [1, 2]}))
        {
         "runs": [
          {"loss": 0.3333333333333333},
          {"loss": 0.3333333333333333},
          {"loss": 0.3333333333333333},
          {"loss": 0.3333333333333333}
         ],
         "steps": [1, 2]
        }
        >>> len(to_lines({"steps": list(range(60))}).splitlines())
        3
    """
    line = to_json(tree)
    several = Mapping | list | tuple
    if len(line) <= 100 - depth or not isinstance(tree, several):
        return line
    pad = "\n" + " " * depth
    if isinstance(tree, Mapping):
        parts = (f"{json.dumps(k)}: {to_lines(v, depth + 1)}" for k, v in tree.items())
    elif any(isinstance(value, several) for value in tree):
        parts = (to_lines(value, depth + 1) for value in tree)
    else:
        return line
    return line[0] + ",".join(f"{pad} {part}" for part in parts) + pad + line[-1]


def from_json(data: str | bytes) -> Any:
    """What `to_json` was given.

    Raises:
        ValueError: if it is not JSON.

    Example:
        >>> from_json('{"loss": "NaN", "steps": [1, 2.5]}')
        {'loss': nan, 'steps': [1, 2.5]}
    """
    try:
        return decoded(json.loads(data))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_mapping(path: pathlib.Path, remedy: str) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        UserError: if it cannot be read, or holds none: then with the remedy.
    """
    try:
        tree = from_json(read(path))
    except ValueError as error:
        if isinstance(error, errors.UserError):
            raise
        tree = None
    if not isinstance(tree, dict):
        raise errors.UserError(f"{path} is damaged: {remedy}")
    return tree


def decoded(tree: Any) -> Any:
    """JSON in which the words for numbers are numbers."""
    return _mapped(_decoded, tree)


def _encoded(value: Any) -> Any:
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if finite else _TO_JSON[str(float(value))]


def _decoded(value: Any) -> Any:
    return _FROM_JSON.get(value, value) if isinstance(value, str) else value


def _mapped(function: Any, tree: Any) -> Any:
    """The function of each leaf."""
    if isinstance(tree, Mapping):
        return {key: _mapped(function, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_mapped(function, value) for value in tree]
    return function(tree)
