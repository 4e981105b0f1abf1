"""Signals are remembered while a run listens, and handlers are given back."""

import os
import signal
import threading

import pytest

from sam_jax.train import interrupt


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_remembers_the_signal_and_gives_the_handlers_back(number):
    before = handlers()
    with interrupt.Interrupt() as stop:
        assert stop.received is stop.at(1) is None
        os.kill(os.getpid(), number)
        assert stop.received == stop.at(2) == number
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
