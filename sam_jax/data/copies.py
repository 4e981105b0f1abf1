"""Copies of data in a store, on the disk of the host that reads them.

The trainer reads all examples before it begins, so that a copy costs one pass; the next
start fetches what has changed since.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from sam_jax import errors, locks, storage

_INDEX = "index.json"  # of the files that are complete: name -> size and version

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def local(
    address: str | None, cache_dir: str = "", part: str = ""
) -> Iterator[str | None]:
    """A path on the disk for what is at an address.

    Args:
        address: of a file or folder in a store; anything else is left alone.
        cache_dir: where copies wait for the next run; empty keeps none.
        part: of the folder that alone is needed.

    Yields:
        The path. Mistakes that are found in the copy are reported for the address.

    Raises:
        UserError: if nothing is there, it cannot be reached, or the disk is full.

    Example:
        >>> storage.path("memory://data/a.txt").write_bytes(b"text")
        >>> with local("memory://data/a.txt") as path:
        ...     pathlib.Path(path).read_text()
        'text'
    """
    remote = None if address is None else storage.path(address)
    if not isinstance(remote, storage.Remote):
        yield address
        return
    with contextlib.ExitStack() as stack:
        root = os.path.expanduser(cache_dir) or stack.enter_context(
            tempfile.TemporaryDirectory()
        )
        digest = hashlib.sha256(os.fsencode(remote / part)).hexdigest()[:16]
        folder = pathlib.Path(root) / "copies" / digest
        copy = folder / "data" / remote.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locks.held(folder / ".lock", wait=True):
                _fetch(remote / part, folder / _INDEX, copy / part)
        except OSError as error:
            if isinstance(error, storage.StorageError):
                raise
            raise errors.UserError(
                f"{remote} cannot be copied to {copy} ({error.strerror}): make room, "
                "or give another cache_dir"
            ) from error
        try:
            yield str(copy)
        except errors.UserError as error:
            said = str(error).replace(str(copy), str(remote))
            raise type(error)(said) from error


def _fetch(remote: storage.Remote, index: pathlib.Path, copy: pathlib.Path) -> None:
    """Makes the copy what is there now."""
    found = {"": remote} if remote.is_file() else {}
    found |= {
        str(x.relative_to(remote)): x for x in ([] if found else remote.rglob("*"))
    }
    if not found:
        raise errors.UserError(
            f"{remote} does not exist: put it there, or fix its name"
        )
    now = {name: list(each.stat()) for name, each in found.items()}
    try:
        before = json.loads(index.read_bytes())
    except (OSError, ValueError):  # none, or one that was not finished
        before = {}
        shutil.rmtree(copy, ignore_errors=True)
    if before == now:
        return
    index.unlink(missing_ok=True)
    for name in before.keys() - now.keys():
        (copy / name).unlink(missing_ok=True)
    new = {
        each: copy / name
        for name, each in found.items()
        if before.get(name) != now[name]
    }
    _log.info(f"copying {len(new)} files of {remote}")
    for path in new.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    storage.fetch(new)
    index.write_text(json.dumps(now))
