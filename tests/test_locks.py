"""Locks between processes, on systems with `fcntl` and without."""

import fcntl
import sys
import threading
import types

import pytest

from sam_jax import locks


@pytest.fixture
def windows(monkeypatch):
    """No `fcntl`; Microsoft's call with the same effect, which never waits."""

    def locking(descriptor, mode, size):
        assert (mode, size) == (2, 1)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PermissionError(error.errno, "denied") from error

    msvcrt = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    monkeypatch.setattr(locks, "fcntl", None)


@pytest.mark.parametrize("system", ["", "windows"])
def test_one_holds_it_others_wait_or_are_told(system, tmp_path, request):
    if system:
        request.getfixturevalue(system)
    path, inside = tmp_path / "lock", threading.Event()

    def wait():
        with locks.held(path, wait=True):
            inside.set()

    with locks.held(path, wait=False):
        with pytest.raises(BlockingIOError), locks.held(path, wait=False):
            pass
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not inside.wait(0.3)
    assert inside.wait(5)
    waiting.join()
    with pytest.raises(ZeroDivisionError), locks.held(path, wait=False):
        raise ZeroDivisionError
    with locks.held(path, wait=False):
        pass


def test_not_through_a_link(tmp_path):
    (tmp_path / "theirs").write_text("kept")
    (tmp_path / "lock").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError), locks.held(tmp_path / "lock", wait=True):
        pass
    assert (tmp_path / "theirs").read_text() == "kept"
