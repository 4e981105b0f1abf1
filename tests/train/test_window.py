"""Rows of the log: the right means, one call late, and no step that is not finite."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.train import window


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: ``clock.now += 2``."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(window.time, "perf_counter", lambda: Clock.now)
    return Clock


def metrics(loss, finite=1.0):
    return {"loss": jnp.float32(loss), "finite": jnp.float32(finite)}


def make(start=0, size=2, most_skips=0):
    return window.Window(start, size, 10, most_skips=most_skips)


def test_a_row_is_ready_once_a_later_step_was_dispatched(clock):
    recent = make()
    seen = []
    for loss in (1, 2, 3, 4, 5):
        clock.now += 1
        recent.add(metrics(loss))
        seen.append(list(recent.ready()))
    assert [[row.step for row in rows] for rows in seen] == [[], [], [2], [], [4]]
    [first], [second] = seen[2], seen[4]
    assert first.metrics == {"loss": 1.5, "examples_per_second": pytest.approx(20 / 3)}
    assert (second.steps, second.metrics["loss"]) == (2, 3.5)
    assert second.metrics["examples_per_second"] == pytest.approx(20 / 2)


def test_flush_takes_the_rest_and_then_there_is_none(clock):
    recent = make(start=40, size=10)
    for loss in (1, 2, 6):
        clock.now += 1
        recent.add(metrics(loss))
    [row] = recent.flush()
    assert (row.step, row.steps, row.metrics["loss"]) == (43, 3, 3.0)
    assert list(recent.flush()) == []
    assert list(recent.ready()) == []


def test_other_work_is_left_out_of_the_speed(clock):
    recent = make()
    clock.now += 50
    recent.restart_clock()
    clock.now += 4
    recent.add(metrics(1))
    [row] = recent.flush()
    assert row.metrics["examples_per_second"] == pytest.approx(10 / 4)


@pytest.mark.parametrize("fetch", ["ready", "flush"])
def test_names_the_first_step_that_is_not_finite(clock, fetch):
    recent = make(start=40, size=3)
    clock.now += 1
    for loss, finite in ((1, 1), (math.nan, 0), (math.inf, 0), (2, 1)):
        recent.add(metrics(loss, finite))
    message = r"of step 42 is not finite \(finite 0, loss nan\)"
    with pytest.raises(window.NotFiniteError, match=message):
        list(getattr(recent, fetch)())


def test_leaves_steps_that_are_not_finite_out_of_the_means(clock):
    recent = make(size=4, most_skips=1)
    clock.now += 1
    for loss, finite in ((1, 1), (math.nan, 0), (5, 1), (math.inf, 0)):
        recent.add(metrics(loss, finite))
    [row] = recent.flush()
    assert row.metrics["loss"] == 3.0
    assert row.skipped == 2


def test_gives_up_after_so_many_in_a_row(clock):
    # Two are left out, also across rows and calls; the third in a row is too many.
    recent = make(size=2, most_skips=2)
    clock.now += 1
    finite = (0, 0, 1, 1, 0, 0)
    for each in finite:
        recent.add(metrics(1, each))
    assert [row.skipped for row in recent.flush()] == [2, 0, 2]
    clock.now += 1
    recent.add(metrics(math.nan, 0))
    with pytest.raises(
        window.NotFiniteError, match="step 7 is not finite, as the 2 before it"
    ):
        list(recent.flush())


def test_those_of_an_earlier_start_count_too(clock):
    recent = window.Window(40, 2, 10, most_skips=3, in_a_row=2)
    clock.now += 1
    recent.add(metrics(math.nan, 0))
    assert [row.skipped for row in recent.flush()] == [1]
    assert recent.in_a_row == 3
    recent.add(metrics(math.nan, 0))
    clock.now += 1
    with pytest.raises(window.UpdateNotFiniteError, match=r"step 42 .* the 3 before"):
        list(recent.flush())


def test_a_row_without_any_finite_step_says_so(clock):
    recent = make(most_skips=1)
    clock.now += 1
    recent.add(metrics(math.nan, 0))
    [row] = recent.flush()
    assert math.isnan(row.metrics["loss"])
    assert row.skipped == 1


def test_means_of_many_large_values_are_exact(clock):
    recent = make(size=100)
    clock.now += 1
    for _ in range(100):
        recent.add(metrics(16777217.0))  # 2**24 + 1: float32 sums would drift
    [row] = recent.flush()
    assert row.metrics["loss"] == float(jnp.float32(16777217.0))


# ── Several steps in one call ────────────────────────────────────────────────────────


def several(*losses, unused=2):
    """Metrics of as many steps, and of some that were not done."""
    rest = [math.nan] * unused
    return {
        "loss": jnp.float32([*losses, *rest]),
        "finite": jnp.float32([*np.isfinite(losses), *rest]),
    }


def rows(found):
    return [(row.step, row.steps, row.metrics["loss"]) for row in found]


def test_rows_are_those_of_steps_one_by_one(clock):
    recent = make(start=40, size=3)
    recent.add(several(1, 2, 3, 4, 5), 5)
    assert rows(recent.ready()) == []
    recent.add(several(6, 7), 2)
    clock.now += 4
    assert rows(recent.ready()) == [(43, 3, 2.0)]
    recent.add(several(8, 9, 10, 11), 4)
    clock.now += 5
    assert rows(recent.ready()) == [(46, 3, 5.0)]
    # What is left are whole rows first, as if it had been read after each step.
    clock.now += 1
    assert rows(recent.flush()) == [(49, 3, 8.0), (51, 2, 10.5)]
    assert rows(recent.flush()) == []


def test_rows_of_one_call_share_its_time(clock):
    recent = make(size=2)
    recent.add(several(1, 2, 3, 4, 5), 5)
    clock.now += 4
    speeds = [row.metrics["examples_per_second"] for row in recent.flush()]
    assert speeds == [pytest.approx(5 * 10 / 4)] * 3


def test_rows_before_the_first_step_that_is_not_finite_are_there(clock):
    recent = make(start=40, size=2)
    recent.add(several(1, 2, 3, math.nan, 5, 6), 6)
    clock.now += 1
    found = recent.flush()
    assert next(found).step == 42
    with pytest.raises(window.NotFiniteError, match="of step 44 is not finite"):
        next(found)
