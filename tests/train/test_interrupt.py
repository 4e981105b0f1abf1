"""Signals are remembered while a run listens, and handlers are given back."""

import os
import pathlib
import runpy
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.experimental import multihost_utils

from sam_jax.train import hosts, interrupt
from tests.train import runs


@pytest.fixture(autouse=True)
def none_is_switched_off():
    """As under nohup, where the tests may run."""
    ignored = [
        number
        for number in interrupt.SIGNALS
        if signal.getsignal(number) == signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def handlers():
    return [signal.getsignal(number) for number in interrupt.SIGNALS]


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_remembers_the_signal_and_gives_the_handlers_back(number):
    before = handlers()
    with interrupt.Interrupt() as stop:
        assert stop.received is stop.at_step() is None
        os.kill(os.getpid(), number)
        assert stop.received == stop.at_step() == number
        assert handlers() != before
    assert handlers() == before


def test_the_first_signal_counts():
    with interrupt.Interrupt() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGINT


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_after_another_signal_leaves_at_once(first):
    before = handlers()
    with pytest.raises(KeyboardInterrupt), interrupt.Interrupt():
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), signal.SIGINT)
    assert handlers() == before


def test_a_second_ctrl_c_does_what_it_did_before():
    """An exception may be swallowed; what the command line does may not."""
    seen = []
    before = signal.signal(signal.SIGINT, lambda *args: seen.append(args[0]))
    try:
        with interrupt.Interrupt() as stop:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT and seen == [signal.SIGINT] * 2
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_is_switched_off_stays_so():
    """As by ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt.Interrupt() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_platform_may_lack_signals(monkeypatch):
    assert {x.name for x in interrupt.SIGNALS} == {
        *("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    }
    monkeypatch.delattr(signal, "SIGHUP")
    monkeypatch.delattr(signal, "SIGUSR1")
    path = pathlib.Path(interrupt.__file__)
    there = runpy.run_path(str(path))
    assert there["SIGNALS"] == (signal.SIGINT, signal.SIGTERM)
    with there["Interrupt"]() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.received == signal.SIGTERM


WINDOWS = """if True:
    import errno, os, runpy, signal, subprocess, sys, types
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGKILL"):
        delattr(signal, name)
    for name in ("O_NOFOLLOW", "O_DIRECTORY", "getuid", "geteuid", "fork", "killpg"):
        delattr(os, name)
    lacking = ("fcntl", "resource", "pwd", "grp", "termios", "array_record",
               "tensorflow", "tensorflow_datasets", "importlib_resources")
    sys.modules |= dict.fromkeys(lacking)
    sys.modules["msvcrt"] = types.SimpleNamespace(locking=lambda *_: None, LK_NBLCK=2)
    opened, fsync, unlink = os.open, os.fsync, os.unlink
    read_only = set()

    def open_no_folder(path, flags, *rest, **more):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "a folder")
        number = opened(path, flags, *rest, **more)
        (read_only.discard if flags & (os.O_RDWR | os.O_WRONLY) else read_only.add)(
            number
        )
        return number

    def fsync_what_is_written(number):
        if number in read_only:
            raise OSError(errno.EBADF, "read only")
        fsync(number)

    def unlink_what_is_closed(path, *rest, **more):
        full = os.path.realpath(path)
        for number in os.listdir("/proc/self/fd"):
            if os.path.realpath(f"/proc/self/fd/{number}") == full:
                raise PermissionError(errno.EACCES, "it is open", path)
        unlink(path, *rest, **more)

    os.open, os.fsync = open_no_folder, fsync_what_is_written
    os.unlink = unlink_what_is_closed
    sys.argv = ["main", *sys.argv[1:]]
    runpy.run_module("sam_jax.main", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow("starts a trainer")
def test_a_run_where_the_platform_has_no_more_than_windows(tmp_path):
    flags = ["--config=digits_sam", "--config.model.name=mlp", "--config.epochs=1"]
    flags += ["--config.data.train_examples=128", "--workdir=run"]
    for said in ("compiled", "This run is finished"):
        done = subprocess.run(
            [sys.executable, "-c", WINDOWS, *flags],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(runs.ROOT)} | runs.ONE_DEVICE,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout


LISTENING = """if True:
    import gc, os, signal, sys
    from sam_jax.train import interrupt
    assert "jax" not in sys.modules
    interrupt.listen("the same command continues from somewhere")
    print("before", end="")

    def swallow(phase, info):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))

    gc.callbacks.append(swallow)
    gc.collect()
    print("after")
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGUSR1"])
def test_before_training_a_signal_ends_the_process_wherever_it_comes(name):
    """Also in a callback of the garbage collector, which swallows exceptions."""
    ended = subprocess.run(
        [sys.executable, "-c", LISTENING, name],
        capture_output=True,
        text=True,
        check=False,
        cwd=runs.ROOT,
    )
    assert ended.returncode == 128 + getattr(signal, name)
    assert ended.stdout == "before"
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: ended by {name}; the same command continues from")


def test_handlers_are_given_back_after_an_error():
    before = handlers()
    with pytest.raises(ZeroDivisionError), interrupt.Interrupt():
        raise ZeroDivisionError
    assert handlers() == before


def test_outside_the_main_thread_it_never_triggers():
    before, seen = handlers(), []

    def work():
        with interrupt.Interrupt() as stop:
            seen.append((stop.received, handlers() == before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, True)]


# ── Several processes ────────────────────────────────────────────────────────────────


class Runtime:
    """As JAX's: the point is one after the largest number that a process asked for."""

    def __init__(self, processes):
        self.asked = [0] * processes
        self.current = 0  # the process that calls
        self.point = None

    def notice(self):
        if self.point is None:
            self.point = max(self.asked) + 1

    def reached(self, number):
        self.asked[self.current] = number
        return number == self.point


@given(
    before=st.integers(0, 5),
    order=st.lists(st.integers(0, 2), max_size=30),
    noticed=st.integers(0, 30),
)
def test_all_processes_stop_at_the_same_step(before, order, noticed):
    """Whatever they did before, and whoever is ahead when the signal comes."""
    runtime = Runtime(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multihost_utils, "reached_preemption_sync_point", runtime.reached)
        runtime.asked = [before] * 3
        stops = [interrupt.Preemption() for _ in range(3)]
        for runtime.current, stop in enumerate(stops):
            with stop:
                pass
        calls = [0, 0, 0]
        ended = [None, None, None]

        def step(process):
            if ended[process] is None:
                runtime.current = process
                calls[process] += 1
                if stops[process].at_step():
                    ended[process] = calls[process]

        for position, process in enumerate(order):
            if position == noticed:
                runtime.notice()
            step(process)
        runtime.notice()
        for _ in range(len(order) + 1):
            for process in range(3):
                step(process)
        assert ended[0] is not None
        assert ended == [ended[0]] * 3
        assert ended[0] <= max(order.count(process) for process in range(3)) + 1


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])
def test_other_signals_become_the_one_that_the_runtime_tells_all(name, monkeypatch):
    monkeypatch.setattr(
        multihost_utils, "reached_preemption_sync_point", lambda number: False
    )
    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append("SIGTERM"))
    try:
        with interrupt.Preemption():
            os.kill(os.getpid(), getattr(signal, name))
        assert received == ["SIGTERM"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_ctrl_c_is_left_alone(monkeypatch):
    monkeypatch.setattr(
        multihost_utils, "reached_preemption_sync_point", lambda number: number == 1
    )
    before, seen = handlers(), []

    def work():
        with interrupt.Preemption() as stop:
            seen.append((stop.at_step(), handlers() == before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(signal.SIGTERM, True)]


@pytest.mark.parametrize(
    ("connected", "kind"), [(True, interrupt.Preemption), (False, interrupt.Interrupt)]
)
def test_the_runtime_is_asked_wherever_it_takes_the_signals(
    connected, kind, monkeypatch
):
    monkeypatch.setattr(hosts, "connected", lambda: connected)
    assert isinstance(interrupt.request(), kind)


def test_ctrl_c_is_a_sigterm_and_the_second_one_raises():
    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append("SIGTERM"))
    interrupted = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt), interrupt.Preemption():
            os.kill(os.getpid(), signal.SIGINT)
            assert received == ["SIGTERM"]
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signal.getsignal(signal.SIGINT) is interrupted
    assert received == ["SIGTERM"]
