"""Signals are remembered while a run listens, and handlers are given back."""

import os
import signal
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.experimental import multihost_utils

from sam_jax.train import hosts, interrupt


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
