import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import checks, errors
from sam_jax.data import augment

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def random_images(num_examples=64, height=9, width=7, channels=3):
    generator = np.random.default_rng(0)
    # Above zero, so that filling can be told from images.
    return generator.integers(
        1, 256, (num_examples, height, width, channels), dtype=np.uint8
    )


def reference_windows(image, padding):
    """All that a crop may give, by offset: padded by hand, pixel by pixel."""
    height, width = image.shape[:2]
    windows = {}
    for down in range(-padding, padding + 1):
        for right in range(-padding, padding + 1):
            window = np.zeros_like(image)
            for row in range(height):
                for column in range(width):
                    if 0 <= row + down < height and 0 <= column + right < width:
                        window[row, column] = image[row + down, column + right]
            windows[down, right] = window
    return windows


def test_crop_is_a_shift_of_each_example_filled_with_zeros():
    images = random_images(num_examples=200)
    cropped = np.asarray(augment.random_crop(jax.random.key(0), images, 2))
    assert cropped.dtype == np.uint8
    offsets = []
    for image, found in zip(images, cropped, strict=True):
        windows = reference_windows(image, 2)
        fits = [o for o, window in windows.items() if np.array_equal(window, found)]
        assert len(fits) == 1
        offsets += fits
    # 25 offsets, 8 times each on average: all occur, in both directions.
    assert len(set(offsets)) == 25


def test_crop_without_padding_changes_nothing():
    images = random_images()
    cropped = augment.random_crop(jax.random.key(0), images, 0)
    np.testing.assert_array_equal(cropped, images)


def test_flip_mirrors_half_of_the_examples():
    images = random_images(num_examples=400)
    found = np.asarray(augment.random_flip(jax.random.key(1), images))
    mirrored = np.array(
        [np.array_equal(f, i[:, ::-1]) for f, i in zip(found, images, strict=True)]
    )
    unchanged = np.array(
        [np.array_equal(f, i) for f, i in zip(found, images, strict=True)]
    )
    assert (mirrored ^ unchanged).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize("size", [1, 4, 5, 7])
def test_cutout_is_one_square_clipped_at_the_border(size):
    images = random_images(num_examples=500).astype(np.float32)
    found = np.asarray(augment.random_cutout(jax.random.key(2), images, size))
    assert found.dtype == np.float32
    # A reference square around every possible centre.
    masks = {}
    for row in range(9):
        for column in range(7):
            mask = np.zeros((9, 7), bool)
            top, left = row - size // 2, column - size // 2
            mask[max(top, 0) : top + size, max(left, 0) : left + size] = True
            masks[mask.tobytes()] = mask.sum()
    areas = []
    for image, changed in zip(images, found, strict=True):
        zero = (changed == 0).all(axis=-1)
        assert zero.tobytes() in masks
        np.testing.assert_array_equal(changed[~zero], image[~zero])
        areas.append(zero.sum())
    assert max(areas) == size * size
    assert min(areas) == min(masks.values())


def test_cutout_changes_the_given_share_of_examples():
    images = np.ones((400, 6, 6, 1), np.float32)

    def changed(probability):
        found = augment.random_cutout(jax.random.key(3), images, 2, probability)
        return int((np.asarray(found) == 0).any(axis=(1, 2, 3)).sum())

    assert changed(0.0) == 0
    assert changed(1.0) == 400
    assert 60 < changed(0.25) < 140


def test_normalize_is_the_formula():
    images = random_images()
    found = augment.normalize(images, MEAN, STD)
    assert found.dtype == jnp.float32
    expected = (images.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_the_composition_is_crop_then_flip_then_normalize_then_cutout():
    images = random_images()
    key = jax.random.key(4)
    crop_key, flip_key, cutout_key = jax.random.split(key, 3)
    expected = augment.random_crop(crop_key, images, 3)
    expected = augment.random_flip(flip_key, expected)
    expected = augment.normalize(expected, MEAN, STD)
    expected = augment.random_cutout(cutout_key, expected, 4, 0.5)
    settings = dict(crop=3, flip=True, cutout=4, cutout_probability=0.5)
    composed = augment.make_augment(**settings, mean=MEAN, std=STD)
    np.testing.assert_array_equal(composed(key, images), expected)
    jitted = jax.jit(composed)(key, images)
    np.testing.assert_allclose(jitted, expected, rtol=0, atol=2e-6)


def test_with_nothing_on_training_and_evaluation_agree():
    images = random_images()
    training = augment.make_augment(mean=MEAN, std=STD)
    evaluation = augment.make_normalize(mean=MEAN, std=STD)
    np.testing.assert_array_equal(
        training(jax.random.key(0), images), evaluation(images)
    )


def test_the_key_decides_and_the_devices_do_not():
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=auto)
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    composed = jax.jit(
        augment.make_augment(crop=2, flip=True, cutout=3, mean=MEAN, std=STD)
    )
    images = random_images()
    one = composed(jax.random.key(5), images)
    eight = composed(jax.random.key(5), jax.device_put(images, sharding))
    np.testing.assert_array_equal(one, eight)
    assert not np.array_equal(one, composed(jax.random.key(6), images))


def test_strict_promotion_is_kept():
    composed = augment.make_augment(crop=1, flip=True, cutout=2, mean=MEAN, std=STD)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        found = composed(jax.random.key(0), jnp.asarray(random_images()))
    assert found.dtype == jnp.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": -1}, "crop must be an integer >= 0, got -1"),
        ({"resized_crop": 1.5}, "resized_crop must be .* 1.5"),
        ({"crop": 2, "resized_crop": 0.1}, "both crops"),
        ({"crop": 1.5}, "crop must be .* 1.5"),
        ({"cutout": -2}, "cutout must be .* -2"),
        ({"cutout_probability": 1.5}, r"cutout_probability must .*\[0, 1\], got 1.5"),
        ({"cutout_probability": -0.1}, "cutout_probability must be .* -0.1"),
    ],
)
def test_settings_out_of_range_are_refused_at_construction(settings, message):
    with pytest.raises((errors.UserError, checks.BadValue), match=message):
        augment.make_augment(**settings, mean=MEAN, std=STD)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cutout": 8}, r"cutout must be in \[0, 7\].* got 8"),
        ({"crop": 8}, r"crop must be in \[0, 7\].* got 8"),
        ({"mean": (0.5,)}, "3 channels"),
        ({"std": (0.1, 0.1)}, "3 channels"),
        ({"std": (0.1, 0.0, 0.1)}, "above 0"),
    ],
)
def test_settings_that_do_not_fit_the_images_are_refused(settings, message):
    composed = augment.make_augment(**{"mean": MEAN, "std": STD, **settings})
    with pytest.raises((errors.UserError, checks.BadValue), match=message):
        composed(jax.random.key(0), random_images())
