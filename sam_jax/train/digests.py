"""Digests of the files of a checkpoint, in the format of ``sha256sum``.

The format of arrays itself does not notice a flipped bit.
"""

import errno
import hashlib
import pathlib
from typing import Any

from sam_jax import errors
from sam_jax.train import files

FILE = "SHA256SUMS"  # in the folder of a checkpoint, written last
_RECORD = "metrics/metrics"
# No such file, no name of one, or a disk that has lost it.
_LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EIO)


class DamagedError(errors.UserError):
    """A checkpoint is not what was written."""


def write(folder: pathlib.Path) -> None:
    """Notes the digests of a checkpoint, and makes it survive a power loss."""
    lines = [f"{_digest(folder / name)}  {name}\n" for name in _names(folder)]
    files.replace(folder / FILE, "".join(lines))
    for path in folder.rglob("*"):
        files.sync(path)


def record(folder: pathlib.Path) -> dict[str, Any]:
    """What was saved beside the state.

    Raises:
        DamagedError: if it is not as written.
        UserError: if it cannot be read, or the folder is that of another step.
    """
    check(folder, only=_RECORD)
    found = files.from_json(files.read(folder / _RECORD))
    step = found.get("step", int(folder.name))  # which earlier versions did not note
    if step != int(folder.name):
        raise errors.UserError(
            f"checkpoint {folder} is that of step {step}: rename it back"
        )
    return found


def check(folder: pathlib.Path, only: str | None = None) -> None:
    """Checks that the files of a checkpoint are as written.

    Args:
        folder: of the checkpoint.
        only: one of the files; all by default.

    Raises:
        DamagedError: naming the first that is not.
        UserError: if one is there and cannot be read.
    """
    with files.reading(folder):
        try:
            lines = (folder / FILE).read_bytes().decode().splitlines()
        except (OSError, ValueError) as error:
            lines = _nothing(error) or []
        parts = [line.partition("  ") for line in lines]
        noted = {name: digest for digest, gap, name in parts if gap}
        if _RECORD not in noted:
            raise DamagedError(
                f"{folder} is not a complete checkpoint (no readable {FILE} in it)"
            )
        for name in [only] if only else sorted({*noted, *_names(folder)}):
            if _digest(folder / name) != noted.get(name):
                there = (folder / name).exists()
                raise DamagedError(
                    f"checkpoint {folder} is damaged "
                    f"({name} is {'not as written' if there else 'missing'})"
                )


def _names(folder: pathlib.Path) -> list[str]:
    """The files of state and record; not what a file manager may add."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.parent != folder and not path.name.startswith(".")
    )


def _digest(path: pathlib.Path) -> str | None:
    """Of the content; None if there is no such file, or it is not a name of one."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        return _nothing(error)


def _nothing(error: OSError | ValueError) -> None:
    """Raises an error that does not mean that the content is lost."""
    if isinstance(error, OSError) and error.errno not in _LOST:
        raise error
