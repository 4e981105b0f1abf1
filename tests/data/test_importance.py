"""Examples that are drawn more often than others, and weighted for it."""

import io
import itertools
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_jax import checks, data, errors
from sam_jax.data import importance


def source(probabilities):
    count = len(probabilities)
    labels = np.arange(count, dtype=np.int32)
    images = np.zeros((count, 1, 1, 1), np.uint8)
    return data.SampledSource(
        data.Split(images, labels, labels), np.asarray(probabilities)
    )


def drawn(made, steps, **settings):
    found = itertools.islice(made.batches(**settings), steps)
    return [(batch["label"], batch["weight"]) for batch in found]


def test_frequencies_and_weights():
    q = np.array([0.05, 0.15, 0.3, 0.5])
    batches = drawn(source(q), 2000, batch_size=4, seed=0)
    rows, weights = (np.concatenate(part) for part in zip(*batches, strict=True))
    frequencies = np.bincount(rows) / rows.size
    errors_of_them = np.sqrt(q * (1 - q) / rows.size)
    assert (np.abs(frequencies - q) < 4 * errors_of_them).all()
    np.testing.assert_allclose(weights, 0.25 / q[rows], rtol=1e-6)
    assert weights.dtype == np.float32
    # Unbiased: every example counts 1 / N on average.
    counted = np.bincount(rows, weights) / rows.size
    np.testing.assert_allclose(counted, 0.25, rtol=0.1)


def test_a_batch_is_a_function_of_seed_and_number():
    made = source([0.1, 0.2, 0.3, 0.4])
    from_start = drawn(made, 12, batch_size=3, seed=5)
    from_seven = drawn(made, 5, batch_size=3, seed=5, start_step=7)
    for (rows, weights), (same_rows, same_weights) in zip(
        from_seven, from_start[7:], strict=True
    ):
        np.testing.assert_array_equal(rows, same_rows)
        np.testing.assert_array_equal(weights, same_weights)
    other = drawn(made, 12, batch_size=3, seed=6)
    assert any((a != b).any() for (a, _), (b, _) in zip(from_start, other, strict=True))


def test_shuffled_batches_weigh_all_alike():
    made = source([0.5, 0.5])
    plain = data.ArraySource(made.split)
    batch = next(plain.batches(batch_size=2, seed=0))
    np.testing.assert_array_equal(batch["weight"], np.ones(2, np.float32))
    assert "weight" not in next(made.eval_batches(2))


def test_probabilities():
    scores = np.array([1.0, 2.0, 5.0])
    np.testing.assert_allclose(importance.probabilities(scores, 0.0), scores / 8)
    np.testing.assert_allclose(importance.probabilities(scores, 1.0), 1 / 3)
    mixed = importance.probabilities(scores, 0.1)
    np.testing.assert_allclose(mixed, 0.9 * scores / 8 + 0.1 / 3)
    assert (1 / (3 * mixed)).max() <= 10  # the weights are bounded by 1 / share
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(checks.BadValue, match=r"uniform must be .*\[0, 1\]"):
            importance.probabilities(scores, share)


def test_squared_norms_of_many_images():
    images = np.random.default_rng(0).integers(0, 256, (5000, 2, 2, 3), np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    expected = (((images / 255 - mean) / std).reshape(5000, -1) ** 2).sum(1) + 1
    found = importance.squared_norms(images, mean, std)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# The header of an array of 8 PB.
HUGE = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,)}"
HUGE = HUGE.ljust(117) + b"\n" + bytes(64)


@pytest.mark.parametrize("scale", [1e308, 1.0, 1e-300])
def test_scores_of_any_size_are_proportions(scale):
    scores = np.array([0.25, 1.0, 1.0]) * scale
    found = importance.probabilities(scores, 0.0)
    np.testing.assert_allclose(found, np.array([1, 4, 4]) / 9, rtol=1e-15)


def test_scaling_changes_no_digit():
    scores = np.random.default_rng(0).lognormal(sigma=5, size=1000)
    plain = 0.9 * scores / scores.sum() + 0.1 / len(scores)
    found = importance.probabilities(scores, 0.1)
    np.testing.assert_array_equal(found, plain / plain.sum())


@given(st.binary(max_size=40), st.integers(0, 170), st.sampled_from(["cut", "write"]))
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_of_scores_is_refused_or_holds_scores(garbage, place, how):
    file = io.BytesIO()
    np.save(file, np.arange(1.0, 6.0))
    content = file.getvalue()
    end = place + len(garbage) if how == "write" else len(content)
    content = content[:place] + garbage + content[end:]
    images = np.zeros((5, 1, 1, 1), np.uint8)
    with tempfile.NamedTemporaryFile() as damaged:
        damaged.write(content)
        damaged.flush()
        try:
            found = importance.scores(images, (0.5,), (0.5,), damaged.name)
        except errors.UserError as error:
            assert damaged.name in str(error) and "\n" not in str(error)
        else:
            assert found.shape == (5,) and found.dtype == np.float64
            assert np.isfinite(found).all() and (found > 0).all()


def digits(path, **settings):
    return data.load(
        "digits",
        validation=97,
        train_examples=600,
        sampling=data.Importance(str(path), **settings),
    )


def test_scores_of_a_file_belong_to_the_original_examples(tmp_path):
    plain = data.load("digits", validation=97, train_examples=600)
    everything = data.load("digits", validation=0)
    path = tmp_path / "scores.npy"
    brightness = everything.train.split.images.sum((1, 2, 3)) + 1.0
    np.save(path, brightness)
    made = digits(path)
    np.testing.assert_array_equal(made.train.split.images, plain.train.split.images)
    kept = plain.train.split.images.sum((1, 2, 3)) + 1.0
    np.testing.assert_allclose(made.train.probabilities, kept / kept.sum())
    assert isinstance(made.validation, data.ArraySource)
    assert not isinstance(made.validation, data.SampledSource)


def test_an_archive_is_no_scores(tmp_path):
    np.savez(tmp_path / "scores.npz", np.ones(1297))
    with pytest.raises(errors.UserError, match=r"scores.npz is an archive"):
        digits(tmp_path / "scores.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.ones(5), r"each of the 1297 examples .* got shape \(5,\)"),
        (np.zeros(1297), r"positive .* smallest 0.0"),
        (np.full(1297, np.nan), r"positive number"),
        (np.array(["a"] * 1297), r"of <U1"),
        (None, r"No such file"),
        (np.full(1297, 1j), r"of complex128"),
        (np.full(1297, np.longdouble("1e400")), r"positive number"),
        (b"not an array", r"it is not a file of numpy.save"),
        (b"\x93NUMPY\x01\x00\x76\x00" + HUGE, r"numpy.save wrote"),
        (b"", r"numpy.save wrote"),
    ],
)
def test_bad_scores_are_refused(tmp_path, content, message):
    path = tmp_path / "scores.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(errors.UserError, match=message):
        digits(path)
