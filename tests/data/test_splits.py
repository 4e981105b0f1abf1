import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_jax import checks, data, errors
from sam_jax.data import splits


def numbered(num_examples):
    labels = np.arange(num_examples, dtype=np.int32)
    return data.Split(np.zeros((num_examples, 1, 1, 1), np.uint8), labels, labels)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(2, 80).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))),
    st.integers(0, 2**40),
)
def test_splits_are_disjoint_and_complete(sizes, seed):
    num_examples, held_out = sizes
    train, validation = splits.hold_out(
        num_examples, validation=held_out, train_examples=None, seed=seed
    )
    assert len(validation) == held_out
    np.testing.assert_array_equal(
        np.sort(np.concatenate([train, validation])), np.arange(num_examples)
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**40))
def test_fewer_training_examples_are_a_subset_beside_the_same_validation(a, b, seed):
    def divide(kept):
        return splits.hold_out(80, validation=20, train_examples=kept, seed=seed)

    (small, held_out), (large, same) = divide(min(a, b)), divide(max(a, b))
    assert len(small) == min(a, b)
    assert set(small) <= set(large)
    np.testing.assert_array_equal(held_out, same)
    assert not set(large) & set(held_out)


def test_the_seed_chooses_the_validation_examples():
    def held_out(seed):
        divided = splits.hold_out(1000, validation=0.1, train_examples=None, seed=seed)
        return set(divided[1].tolist())

    assert held_out(0) == held_out(0)
    # Independent choices of 100 of 1000 share about 10.
    assert len(held_out(0) & held_out(1)) < 30


@pytest.mark.parametrize(
    ("validation", "expected"),
    [(0, 0), (0.0, 0), (0.1, 5000), (0.5, 25000), (1, 1), (5000, 5000), (5000.0, 5000)],
)
def test_validation_is_a_share_or_a_number(validation, expected):
    assert splits.validation_examples(validation, 50_000) == expected


@pytest.mark.parametrize("validation", [-0.1, -3, 1.0, 1.5, float("nan"), float("inf")])
def test_validation_that_is_neither_is_refused(validation):
    with pytest.raises(errors.UserError, match=r"validation=.* share in \[0, 1\)"):
        splits.validation_examples(validation, 50_000)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (100, r"holds out 100 of 100 .* less than 100"),
        (250, r"holds out 250 of 100"),
        (0.999, r"validation=0.999 holds out 100 of 100"),
        (0.001, r"validation=0.001 of 100 .* empty"),
    ],
)
def test_validation_that_empties_a_split_is_refused(validation, message):
    with pytest.raises(errors.UserError, match=message):
        splits.validation_examples(validation, 100)


@pytest.mark.parametrize("train_examples", [0, -5, 81, 10.5])
def test_training_examples_out_of_range_are_refused(train_examples):
    with pytest.raises(
        errors.UserError, match=f"train_examples={train_examples} .* 1 to 80"
    ):
        splits.hold_out(100, validation=20, train_examples=train_examples, seed=0)


@pytest.mark.parametrize(
    ("num_classes", "labels", "message"),
    [
        (1, [0, 0], "has 1 class"),
        (3, [0, 3], "labels 0 to 3: with 3 classes, 0 to 2"),
        (3, [-1, 2], "labels -1 to 2"),
        (3, [], "test split of data set 'own' is empty"),
    ],
)
def test_labels_that_cannot_be_classified_are_refused(num_classes, labels, message):
    good = numbered(1)
    labels = np.array(labels, np.int32)
    bad = dataclasses.replace(
        good,
        images=np.zeros((len(labels), 1, 1, 1), np.uint8),
        labels=labels,
        true_labels=labels,
    )
    with pytest.raises(errors.UserError, match=message):
        splits.check_labels(
            splits.RawDataset(good, bad, tuple("abc"[:num_classes])), "own"
        )


def test_a_class_without_training_examples_is_logged(caplog):
    data.load("digits", train_examples=1000)
    assert not caplog.records
    splits.warn_of_missing(np.full(5, 3, np.int32), 10, "mine")
    (record,) = caplog.records
    assert record.getMessage() == (
        "data set 'mine' has no training example of 9 of its 10 classes "
        "(0, 1, 2, 4, 5, 6, 7, 8, 9): they cannot be learned"
    )
    data.load("digits", train_examples=3)
    assert "'digits' has no training example of" in caplog.records[1].getMessage()


def test_a_long_tail_leaves_validation_and_test_alone():
    plain, tailed = (
        data.load("digits", validation=97, imbalance=imbalance, seed=3)
        for imbalance in (1, 10)
    )
    most = max(plain.class_counts)
    wanted = [int(most * 10 ** (-c / 9) + 1e-9) for c in range(10)]
    assert tailed.class_counts == tuple(map(min, wanted, plain.class_counts))
    assert tailed.train.num_examples == sum(tailed.class_counts)
    assert tailed.test.num_examples == plain.test.num_examples
    kept = {image.tobytes() for image in tailed.train.split.images}
    assert kept < {image.tobytes() for image in plain.train.split.images}
    for dataset in (plain, tailed):
        np.testing.assert_array_equal(
            dataset.validation.split.images, plain.validation.split.images
        )


def test_a_tail_without_an_example_is_refused():
    with pytest.raises(errors.UserError, match="leaves no example of the last of 10"):
        data.load("digits", imbalance=1000)
    with pytest.raises(checks.BadValue, match=r"imbalance must be a number in"):
        data.load("digits", imbalance=0.5)


def test_classes_that_a_fifth_leaves_without_a_test_are_said(caplog):
    _, test = splits.divide(np.repeat(np.arange(10), 4), seed=0)
    assert len(test) == 8
    (line,) = caplog.messages
    assert "a fifth of 40 examples, has none of 2 of the classes" in line
    splits.divide(np.repeat(np.arange(10), 5), seed=0)
    assert len(caplog.messages) == 1
