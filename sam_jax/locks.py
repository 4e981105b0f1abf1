"""A lock between processes: a file that one of them holds, whatever the system."""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None


@contextlib.contextmanager
def held(path: pathlib.Path, *, wait: bool) -> Iterator[None]:
    """Holds a lock, on any host that sees the file, until the end of the ``with``.

    Args:
        path: of the file; made if it does not exist.
        wait: until another process lets it go; else that is an error.

    Yields:
        Nothing.

    Raises:
        BlockingIOError: if another process holds it.
        OSError: if the file cannot be opened, or cannot be locked.

    Example:
        >>> import tempfile
        >>> lock = pathlib.Path(tempfile.mkdtemp()) / "lock"
        >>> with held(lock, wait=True), held(lock, wait=False):  # doctest: +ELLIPSIS
        ...     pass
        Traceback (most recent call last):
        ...
        BlockingIOError: ...
    """
    # Not through a link, which would create or open a file elsewhere.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        if fcntl:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        else:
            _lock_first_byte(descriptor, wait)
        yield
    finally:
        os.close(descriptor)


def _lock_first_byte(descriptor: int, wait: bool) -> None:
    """As ``flock``, on Windows, which waits ten seconds at most by itself."""
    import msvcrt  # pyright: ignore

    while True:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore
            return
        except PermissionError as error:
            if not wait:
                raise BlockingIOError(error.errno, error.strerror) from error
            time.sleep(0.1)
