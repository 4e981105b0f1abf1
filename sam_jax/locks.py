"""A lock between processes: a file, or an object in a store, that one of them holds."""

import contextlib
import errno
import json
import logging
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from sam_jax import storage

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

BEAT_SECONDS = 15.0  # between two signs of life of who holds an object
STALE_SECONDS = 60.0  # without one, after which it counts as dead

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(path: pathlib.Path, *, wait: bool) -> Iterator[None]:
    """Holds a lock, on any host that sees the file, until the end of the ``with``.

    An object, which no kernel frees when its holder dies, says who holds it, and is
    written again every `BEAT_SECONDS`. It is taken over from a process that is known to
    be gone, or was silent for `STALE_SECONDS`.

    Args:
        path: of the file or object; made if it does not exist.
        wait: until another process lets it go; else that is an error.

    Raises:
        BlockingIOError: if another process holds it; of an object, ``strerror`` says
            which.
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
    if isinstance(path, storage.Remote):
        with _object_held(path, wait):
            yield
        return
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


def holder(error: BlockingIOError) -> str:
    """What `held` knows of who holds an object, in brackets; of a file, nothing."""
    return f" ({error.strerror})" if error.filename else ""


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


# ── Objects ──────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _object_held(path: storage.Remote, wait: bool) -> Iterator[None]:
    own = {"host": socket.gethostname(), "process": os.getpid(), "place": _place()}
    own |= {"token": secrets.token_hex(8), "beat": 0}
    _take(path, own, wait)
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(path, own, ended), daemon=True)
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join()
        with contextlib.suppress(OSError):  # it will count as dead
            if _read(path).get("token") == own["token"]:
                path.unlink()


def _take(path: storage.Remote, own: dict[str, Any], wait: bool) -> None:
    while True:
        with contextlib.suppress(FileExistsError):
            path.write_bytes(json.dumps(own).encode(), new=True)
            # Where a store knows no "only if new", the last of several has it.
            if _read(path).get("token") == own["token"]:
                return
        version = ""
        with contextlib.suppress(FileNotFoundError):
            version = path.stat().version
        if before := _read(path):
            gone = _is_gone(before)
            if not gone and _shows_life(path, before):
                if not wait:
                    said = f"held by {_owner(before)}"
                    raise BlockingIOError(errno.EAGAIN, said, str(path))
                continue
            if _read(path) != before:
                continue
            why = "is gone" if gone else f"was silent for {STALE_SECONDS:g} s"
            _log.warning(
                f"{path} was held by {_owner(before)}, which {why}: taken over"
            )
        if version:  # of this owner, or of none: the lock of a disk that was copied
            path.unlink(missing_ok=True, version=version)


def _shows_life(path: storage.Remote, before: dict[str, Any]) -> bool:
    """Whether the object changes while it is watched; clocks of hosts may differ."""
    _log.info(f"{path} is held by {_owner(before)}: waiting for a sign of life")
    end = time.monotonic() + STALE_SECONDS
    while time.monotonic() < end:
        time.sleep(BEAT_SECONDS / 10)
        if _read(path) != before:
            return True
    return False


def _beat(path: storage.Remote, own: dict[str, Any], ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # the next one may come through
            if _read(path).get("token") != own["token"]:
                return  # taken over: what this process writes next will be refused
            own["beat"] += 1
            path.write_bytes(json.dumps(own).encode())


def _read(path: storage.Remote) -> dict[str, Any]:
    """What the object says; nothing if it is not there, or says nothing."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        if isinstance(error, storage.StorageError):
            raise
        return {}
    return found if isinstance(found, dict) else {}


def _owner(record: dict[str, Any]) -> str:
    return f"process {record.get('process', '?')} on {record.get('host', '?')}"


def _place() -> str | None:
    """Where numbers of processes mean the same: a boot, and a container in it."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _is_gone(record: dict[str, Any]) -> bool:
    """Whether the process was one of this machine, and is not there any more."""
    process = record.get("process")
    if not isinstance(process, int) or record.get("place") != _place() or not _place():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
