"""Errors against times: ratios between neighbours, shares of a gain, the picture."""

import itertools

import pytest

from experiments.training import price, written
from experiments.training.table import Table
from sam_jax.train.comparison import Run

TABLE = Table(
    "toy",
    "Toy",
    baseline={"method.name": "none"},
    gain_of={"method.name": "sam", "cadence.name": "always"},
)


def runs(errors, seconds, **chosen):
    """One for each seed."""
    plain = {"method.name": "sam", "cadence.name": "always"}
    plain |= {key.replace("__", "."): value for key, value in chosen.items()}
    return [
        Run(f"{chosen}{seed}", plain | {"seed": seed}, last, None, 1.0, time)
        for seed, (error, time) in enumerate(zip(errors, seconds, strict=True))
        for last in [{"test": {"accuracy": 1 - error / 100}}]
    ]


SGD = runs([20.0, 22.0], [10.0, 40.0], method__name="none", optimizer__name="sgd")
SAM = runs([10.0, 12.0], [20.0, 81.0], method__rho=0.1)
RARELY = {"cadence__name": "every_k", "cadence__every_k__k": 10}
OFTEN = RARELY | {"cadence__every_k__k": 5}


def rows(*others):
    every = itertools.chain(SAM, SGD, *others)
    [groups] = written.parts(TABLE, [*every]).values()
    return groups, written.gainer(TABLE, groups)


def test_times_are_compared_seed_by_seed_and_gains_with_that_of_one_row():
    groups, whole = rows(runs([10.9, 12.9], [12.0, 49.0], **OFTEN))
    assert [group.label for group in groups[:2]] == ["sgd", whole.label]
    # 20 / 10 and 81 / 40, though a seed took four times as long as the other.
    assert price.ratio(whole, groups[0]) == pytest.approx((2.0125, 2.0, 2.025))
    assert [price.gain(g, groups[0], whole) for g in groups] == pytest.approx(
        [0, 1, 0.91]
    )
    head, *cells = written.cells(TABLE, groups)
    assert [head[5], head[6]] == ["time / sgd", "of the gain (%)"]
    assert [row[6] for row in cells] == ["0", "100", "91"]
    assert "1.212 [1.200, 1.225]" in cells[2]
    said = price.sentence(groups, whole)
    assert said.endswith(
        "for at most 1.25 times the time: " + f"{groups[2].label} (91 %, 1.21 x)."
    )


@pytest.mark.parametrize(
    ("errors", "seconds"),
    [([11.1, 13.1], [12.0, 49.0]), ([10.9, 12.9], [12.6, 51.0])],
    ids=["gains too little", "takes too long"],
)
def test_what_does_not_keep_the_gain_or_costs_more_is_not_named(errors, seconds):
    assert price.sentence(*rows(runs(errors, seconds, **OFTEN))).endswith(": none.")


def test_rows_of_one_cadence_have_names_of_their_own():
    groups, _ = rows(
        *(runs([12.0, 14.0], [12.0, 49.0], **each) for each in (OFTEN, RARELY))
    )
    assert len({group.label for group in groups}) == 4
    assert "cadence.every_k.k=10" in groups[3].label


def test_the_picture_stands_beside_the_table(tmp_path):
    written.write(tmp_path, TABLE, [*SGD, *SAM], {})
    assert (tmp_path / "price.png").stat().st_size > 10_000
    assert "1.25 times the time: none." in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("runs", [SAM, SGD, []], ids=["SAM", "SGD", "nothing"])
def test_nothing_is_said_of_a_gain_that_was_not_measured(runs, tmp_path):
    written.write(tmp_path, TABLE, runs, {})
    assert "of the gain of" not in (tmp_path / "table.md").read_text()


def test_gains_are_of_the_seeds_that_all_rows_have():
    [groups] = written.parts(TABLE, [*SGD, SAM[1]]).values()
    assert price.gain(groups[0], *groups) == 0.0
    [groups] = written.parts(TABLE, [*SGD[:1], *SAM[1:]]).values()
    assert price.gain(groups[0], *groups) is None


def test_no_gain_has_no_shares():
    assert (
        price.gain(*(written.parts(TABLE, x)["Toy"][0] for x in (SAM, SAM, SGD)))
        is None
    )
