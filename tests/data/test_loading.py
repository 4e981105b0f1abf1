import numpy as np
import pytest
from sklearn import datasets

from sam_jax import checks, data, errors


def test_digits_are_those_of_scikit_learn_scaled_to_bytes():
    digits = data.load("digits", validation=0)
    assert digits.validation is None
    assert (digits.train.num_examples, digits.test.num_examples) == (1297, 500)
    published, _ = datasets.load_digits(return_X_y=True)
    found = np.concatenate([digits.train.split.images, digits.test.split.images])
    assert found.shape == (1797, 8, 8, 1)
    assert found.dtype == np.uint8
    expected = np.floor(published * 255 / 16 + 0.5).reshape(1797, 64)
    found = found.reshape(1797, 64)
    np.testing.assert_array_equal(
        found[np.lexsort(found.T)], expected[np.lexsort(expected.T)]
    )


def test_digits_keep_their_labels():
    digits = data.load("digits", validation=0)
    published, labels = datasets.load_digits(return_X_y=True)
    answers = {
        np.rint(image * 255 / 16).astype(np.uint8).tobytes(): label
        for image, label in zip(published, labels, strict=True)
    }
    for split in (digits.train.split, digits.test.split):
        expected = [answers[image.tobytes()] for image in split.images]
        np.testing.assert_array_equal(split.labels, expected)


def test_the_test_split_of_digits_is_stratified_and_the_same_for_every_seed():
    first, second = (data.load("digits", seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(first.test.split.images, second.test.split.images)
    assert np.bincount(first.test.split.labels).min() >= 48
    assert np.bincount(first.test.split.labels).max() <= 52


def test_the_statistics_of_digits_are_those_of_its_training_set():
    digits = data.load("digits", validation=0)
    pixels = digits.train.split.images / 255
    assert digits.mean == pytest.approx([pixels.mean()], abs=1e-4)
    assert digits.std == pytest.approx([pixels.std()], abs=1e-4)


@pytest.mark.parametrize("std", [0.0, 1e-45, 1e-4, 1.5, float("nan")])
def test_a_deviation_that_no_images_have_is_refused(std):
    with pytest.raises(errors.UserError, match=r"give 1 numbers in \[0.001, 1\]"):
        data.load("digits", std=(std,))
    assert data.load("digits", std=(0.001,)).std == (0.001,)


def test_mean_and_deviation_may_be_arrays():
    found = data.load("digits", mean=np.array([0.0]), std=np.array([0.5], np.float32))
    assert (found.mean, found.std) == ((0.0,), (0.5,))
    assert {type(x) for x in (*found.mean, *found.std)} == {float}


def test_noise_is_in_the_labels_of_the_training_split_alone():
    noisy = data.load("digits", label_noise=0.25, validation=97, seed=3)
    clean = data.load("digits", validation=97, seed=3)
    train = noisy.train.split
    assert (train.labels != train.true_labels).sum() == 300
    np.testing.assert_array_equal(train.true_labels, clean.train.split.labels)
    np.testing.assert_array_equal(train.images, clean.train.split.images)
    for split in (noisy.validation.split, noisy.test.split):
        np.testing.assert_array_equal(split.labels, split.true_labels)


def test_the_catalog_agrees_with_what_is_read():
    digits = data.load("digits", validation=0)
    entry = data.CATALOG["digits"]
    assert entry.num_classes == digits.num_classes
    assert entry.image_shape == digits.image_shape
    assert entry.train_examples == digits.train.num_examples
    assert entry.test_examples == digits.test.num_examples


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": -1}, "validation=-1"),
        ({"label_noise": 1.5}, "label_noise .* 1.5"),
        ({"seed": -1}, "seed .* -1"),
    ],
)
def test_settings_are_checked_before_anything_is_read(settings, message):
    with pytest.raises((errors.UserError, checks.BadValue), match=message):
        data.load("there is no such data set", **settings)
