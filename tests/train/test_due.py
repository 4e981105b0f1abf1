"""When the state is saved: by epochs, steps and seconds, on all processes alike."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sam_jax import errors
from sam_jax.train import agreement, cards, due, hosts, settings
from tests.train import runs


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def steps_saved(config, seconds, start=0):
    """The steps after which is a save, of steps that take so many seconds each."""
    clock, found = Clock(), []
    saves = due.Saves(config, 10, start, clock)
    for step, took in enumerate(seconds, start=start + 1):
        clock.now += took
        if saves.due(step):
            found.append(step)
            saves.saved(step)
    return found


@pytest.mark.parametrize(
    ("settings_of", "expected"),
    [
        ({}, [10, 20]),
        ({"every_epochs": None}, []),
        ({"every_steps": 8}, [8, 10, 16, 20, 24]),
        ({"every_epochs": None, "every_seconds": 7.0}, [7, 14, 21]),
        ({"every_seconds": 7.0}, [7, 10, 17, 20]),
    ],
)
def test_in_one_process(settings_of, expected):
    assert steps_saved(settings.Checkpoint(**settings_of), [1.0] * 25) == expected


def test_a_run_that_goes_on_saves_after_the_same_steps():
    config = settings.Checkpoint(every_steps=8)
    assert steps_saved(config, [1.0] * 9, start=16) == [20, 24]


@example(paces=[1.0] * 60, every=3.0000000000000004)
@given(
    paces=st.lists(st.floats(0.5, 2), min_size=60, max_size=60), every=st.floats(3, 30)
)
def test_several_processes_save_after_the_same_steps(paces, every):
    """They do what the first one's clock says, and rarely ask for it."""
    config = settings.Checkpoint(every_epochs=None, every_seconds=every)
    told = []

    def of_the_first(make):
        told.append(make())
        return told[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosts, "several", lambda: True)
        patch.setattr(agreement, "from_first", of_the_first)
        first = steps_saved(config, paces)
        asked = list(told)
        # The other one's clock stands still.
        patch.setattr(agreement, "from_first", lambda make: told.pop(0))
        assert steps_saved(config, [0.0] * 60) == first and told == []
    at = [0, *first]
    for before, after in itertools.pairwise(at):
        # Not early; late by a step, or by a guess from a speed that has changed.
        passed = sum(paces[before:after])
        assert every <= passed <= 2 * every + 2
    assert len(asked) <= (len(first) + 1) * 10


def test_a_run_saves_where_it_is_told_to(tiny, tmp_path):
    chosen = {"every_epochs": None, "every_steps": 5, "keep_last": 9}
    changes = {f"checkpoint.{key}": value for key, value in chosen.items()}
    run = runs.Finished(tiny("none", **changes), tmp_path)
    best = run.results["best"]["step"]
    assert runs.checkpoints(tmp_path) >= {5, 10, 12, best}
    assert runs.checkpoints(tmp_path) <= {4, 5, 8, 10, 12}


def test_the_old_name_is_answered_with_the_new_one():
    with pytest.raises(errors.UserError) as raised:
        cards.load(runs.DIGITS, "--config.checkpoint_every_epochs=3")
    assert str(raised.value) == (
        "setting config.checkpoint_every_epochs is now config.checkpoint.every_epochs"
    )
