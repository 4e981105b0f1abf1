import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_jax import checks, data


def numbered(num_examples):
    """Examples that say who they are: in the image, the label and the true label."""
    numbers = np.arange(num_examples)
    images = np.broadcast_to(
        numbers.astype(np.uint8).reshape(-1, 1, 1, 1), (*numbers.shape, 2, 3, 1)
    )
    return data.ArraySource(
        data.Split(images, numbers.astype(np.int32) + 1000, numbers.astype(np.int32))
    )


sizes = st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))
seeds = st.integers(0, 2**40)


@settings(max_examples=60, deadline=None)
@given(sizes, seeds, st.integers(0, 3))
def test_an_epoch_visits_every_example_once_up_to_the_dropped_rest(size, seed, epoch):
    num_examples, batch_size = size
    source = numbered(num_examples)
    steps = source.steps_per_epoch(batch_size)
    assert steps == num_examples // batch_size
    found = source.batches(batch_size=batch_size, seed=seed, start_step=epoch * steps)
    seen = [batch["true_label"] for batch in itertools.islice(found, steps)]
    assert all(len(part) == batch_size for part in seen)
    assert len(np.unique(np.concatenate(seen))) == steps * batch_size


@settings(max_examples=60, deadline=None)
@given(sizes, seeds, st.integers(0, 20))
def test_batches_do_not_depend_on_where_iteration_started(size, seed, step):
    num_examples, batch_size = size
    source = numbered(num_examples)
    # Over the ends of two epochs, wherever iteration started.
    length = 2 * source.steps_per_epoch(batch_size) + 1
    from_start = source.batches(batch_size=batch_size, seed=seed)
    from_step = source.batches(batch_size=batch_size, seed=seed, start_step=step)
    expected = list(itertools.islice(from_start, step, step + length))
    found = list(itertools.islice(from_step, length))
    for key in ("image", "label", "true_label"):
        np.testing.assert_array_equal(
            [batch[key] for batch in found], [batch[key] for batch in expected]
        )


@pytest.mark.parametrize("rows", [None, np.array([1, 2, 7])])
@pytest.mark.parametrize("sampled", [False, True])
def test_draws_say_which_examples_the_batches_have(sampled, rows):
    source = numbered(20)
    if sampled:
        probabilities = np.arange(1, 21) / 210
        source = data.SampledSource(source.split, probabilities)
    assert isinstance(source, data.IndexedSource)
    arguments = {"batch_size": 8, "seed": 3, "start_step": 1, "rows": rows}
    pairs = zip(source.draws(**arguments), source.batches(**arguments), strict=False)
    for draw, batch in itertools.islice(pairs, 5):
        np.testing.assert_array_equal(draw.indices, batch["true_label"])
        np.testing.assert_array_equal(draw.weights, batch["weight"])
        assert draw.weights.dtype == np.float32
        assert len(draw.indices) == (8 if rows is None else 3)
    assert sampled == (len(np.unique(draw.weights)) > 1)


@settings(max_examples=30, deadline=None)
@given(sizes, seeds, st.integers(0, 9))
def test_every_second_epoch_shows_the_other_side_of_an_image(size, seed, start):
    num_examples, batch_size = size
    plain = numbered(num_examples)
    images = plain.split.images.copy()
    images[:, :, 0] += 100  # mirrored, the right column has it
    plain = data.ArraySource(dataclasses.replace(plain.split, images=images))
    source = data.AlternatingSource.of(plain)
    assert isinstance(source, data.IndexedSource)
    assert source.num_examples == num_examples
    steps = source.steps_per_epoch(batch_size)
    found, sides = (
        source.batches(batch_size=batch_size, seed=seed, start_step=start),
        {},
    )
    of_plain = plain.batches(batch_size=batch_size, seed=seed, start_step=start)
    for step in range(start, start + 3 * steps):
        batch = next(found)
        np.testing.assert_array_equal(batch["label"], next(of_plain)["label"])
        mirrored = batch["image"][:, 0, 2, 0] > batch["image"][:, 0, 0, 0]
        for example, side in zip(batch["true_label"], mirrored, strict=True):
            # One bit of each example, which changes with the epoch.
            bit = bool(side) ^ bool(step // steps % 2)
            assert sides.setdefault(int(example), bit) == bit
    evaluated = [batch["true_label"] for batch in source.eval_batches(batch_size)]
    assert np.concatenate(evaluated)[:num_examples].tolist() == [*range(num_examples)]


def test_half_of_the_images_begin_mirrored():
    source = data.AlternatingSource.of(numbered(200))
    draw = next(source.draws(batch_size=200, seed=0))
    assert 70 < np.sum(draw.indices >= 200) < 130


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 80))
def test_evaluation_covers_every_example_once_in_order(num_examples, batch_size):
    batches = list(numbered(num_examples).eval_batches(batch_size))
    assert {batch["image"].shape for batch in batches} == {(batch_size, 2, 3, 1)}
    assert {batch["mask"].shape for batch in batches} == {(batch_size,)}
    seen = np.concatenate([batch["true_label"][batch["mask"]] for batch in batches])
    np.testing.assert_array_equal(seen, np.arange(num_examples))
    padding = np.concatenate([batch["mask"] for batch in batches])[num_examples:]
    assert len(padding) < batch_size
    assert not padding.any()


def test_images_and_labels_of_a_batch_belong_together():
    source = numbered(50)
    for batch in (
        next(source.batches(batch_size=20, seed=3)),
        next(source.eval_batches(20)),
    ):
        np.testing.assert_array_equal(batch["image"][:, 1, 2, 0], batch["true_label"])
        np.testing.assert_array_equal(batch["label"], batch["true_label"] + 1000)
        assert batch["image"].dtype == np.uint8
        assert batch["label"].dtype == batch["true_label"].dtype == np.int32


def test_epochs_and_seeds_have_orders_of_their_own():
    source = numbered(200)

    def order(seed, epoch):
        start = source.batches(batch_size=200, seed=seed, start_step=epoch)
        return tuple(next(start)["true_label"])

    orders = {order(seed, epoch) for seed in (0, 1, 2**32) for epoch in (0, 1, 2)}
    assert len(orders) == 9
    assert order(5, 7) == order(5, 7)
    # Uniform, not just different: few examples stay where they were.
    assert sum(place == who for place, who in enumerate(order(0, 0))) < 10


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_batch_size_out_of_range_is_refused_at_once(batch_size):
    source = numbered(10)
    with pytest.raises(checks.BadValue, match=f"batch_size .* got {batch_size}"):
        source.batches(batch_size=batch_size, seed=0)
    with pytest.raises(checks.BadValue, match=f"batch_size .* got {batch_size}"):
        source.steps_per_epoch(batch_size)


def test_evaluation_batch_size_below_one_is_refused_at_once():
    with pytest.raises(checks.BadValue, match=r"batch_size .* got 0"):
        numbered(10).eval_batches(0)
