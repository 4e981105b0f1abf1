"""Any value of any setting: a run that can be traced, or one sentence."""

import random

import numpy as np
import pytest

from sam_jax.train import build, cards, evaluation, sharding
from tests.train import fuzz

SLOW, FAST, TRAINED = 1400, 40, 30


@pytest.fixture(scope="module")
def every():
    """All cases in the order of a draw that is always the same."""
    cases = list(fuzz.cases())
    random.Random(0).shuffle(cases)
    return cases


def test_every_setting_is_tried(every):
    assert len(every) > 25_000
    assert {case.card.partition(":")[0] for case in every} == set(map(str, fuzz.CARDS))
    cadence, nested = fuzz.chosen("cadence.every_k.k"), "cadence.every_k.k"
    assert cadence == ("--config.cadence.name=every_k",) and nested in fuzz.leaves()


def test_some_cases(every):
    seen = [isinstance(fuzz.outcome(case), str) for case in every[:FAST]]
    assert 0 < sum(seen) < FAST


def test_a_fault_is_seen(every, monkeypatch):
    def broken(*args):
        raise TypeError("a mistake")

    case = fuzz.Case(str(fuzz.ROOT / "configs" / "cifar10_sam.py"), ())
    monkeypatch.setattr(build, "steps", broken)
    with pytest.raises(TypeError, match="a mistake"):
        fuzz.outcome(case)
    monkeypatch.setattr(fuzz, "SECONDS", 0.5)  # in the step, not in reading the card
    monkeypatch.setattr(build, "steps", lambda *_: [i for i in range(10**8) if i < 0])
    with pytest.raises(fuzz.TooLongError):
        fuzz.outcome(case)


@pytest.mark.slow("traces hundreds of steps")
def test_many_cases(every):
    runs = 0
    for case in every[FAST : FAST + SLOW]:
        try:
            runs += not isinstance(fuzz.outcome(case), str)
        except (Exception, fuzz.TooLongError) as error:
            raise AssertionError(f"{case}: {error!r}") from error
    assert SLOW / 20 < runs < SLOW / 2


@pytest.mark.slow("compiles thirty steps")
def test_cases_that_run_are_trained(every):
    small = ("--config.data.train_examples=64", "--config.epochs=1")
    trained = 0
    for case in every:
        if trained == TRAINED:
            return
        tried = fuzz.Case(case.card, (*small, *case.changes))
        if "digits_sam" not in case.card or isinstance(fuzz.outcome(tried), str):
            continue
        config = cards.load(case.card, *fuzz.SMALL, *tried.changes)
        if config.data.name in fuzz.ABSENT:  # as with --config.data={}
            continue
        run = build.build(config)
        state = run.init(run.seed)
        batches = run.dataset.train.batches(
            batch_size=run.config.batch_size, seed=run.config.seed
        )
        for _ in range(2):
            batch = sharding.put_batch(next(batches), run.mesh)
            state, metrics = run.train_step(state, batch)
        assert int(state.step) == 2
        assert np.isfinite(float(metrics["loss"])) or not float(metrics["finite"])
        scores = evaluation.evaluate(run, state)["test"]
        assert 0 <= scores["accuracy"] <= 1
        trained += 1
    raise AssertionError(f"only {trained} cases run")
