import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from sam_jax import checks
from sam_jax.data import cropping, randaugment

HEIGHT, WIDTH = 20, 24
APPLY = jax.jit(randaugment.apply)


def pictures(channels):
    """Smooth ones with noise, a flat one, one of few values."""
    generator = np.random.default_rng(0)
    waves = np.sin(np.arange(HEIGHT)[:, None, None] / 3 + np.arange(WIDTH)[:, None] / 5)
    noisy = 128 + 90 * waves + generator.normal(0, 20, (3, HEIGHT, WIDTH, channels))
    flat = np.full((1, HEIGHT, WIDTH, channels), 7)
    few = generator.integers(100, 140, (1, HEIGHT, WIDTH, channels))
    return np.concatenate([noisy.clip(0, 255), flat, few]).astype(np.uint8)


def with_pillow(image, name, magnitude):
    share = magnitude / 30
    shift = int(150 / 331 * (WIDTH if name == "translate_x" else HEIGHT) * share)
    affine = {
        "shear_x": (1, 0.3 * share, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.3 * share, 1, 0),
        "translate_x": (1, 0, shift, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, shift),
    }
    if name in affine:
        return image.transform(image.size, Image.Transform.AFFINE, affine[name])
    if name == "rotate":
        return image.rotate(30 * share)
    if name in ("brightness", "color", "contrast", "sharpness"):
        enhance = getattr(ImageEnhance, name.capitalize())
        return enhance(image).enhance(1 + 0.9 * share)
    if name == "posterize":
        return ImageOps.posterize(image, 8 - round(4 * abs(share)))
    if name == "solarize":
        return ImageOps.solarize(image, 255 * (1 - abs(share)))
    same = {"identity": lambda image: image}
    return same.get(name, getattr(ImageOps, name, None))(image)


def to_pillow(image):
    return Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])


def assert_close(found, images, other):
    for one, image in zip(np.asarray(found), images, strict=True):
        expected = np.asarray(other(to_pillow(image))).reshape(image.shape)
        assert np.abs(one.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", randaugment.OPERATIONS)
def test_an_operation_is_pillows_to_a_grey_level(name, channels):
    images = pictures(channels)
    for magnitude in (30, -30, 9, -17):
        plan = randaugment.plan(name, magnitude, HEIGHT, WIDTH)
        rows = randaugment.Plan(*(np.stack([part] * len(images)) for part in plan))
        found = APPLY(images, rows)
        assert_close(
            found, images, lambda image, m=magnitude: with_pillow(image, name, m)
        )


def test_every_operation_is_drawn_for_some_image_and_none_is_left_out():
    images = np.repeat(pictures(3)[:1], 5, axis=0)
    plans = [
        randaugment.plan(name, sign * 30, HEIGHT, WIDTH)
        for name in (*randaugment.OPERATIONS, "identity")  # 30 in all
        for sign in (1, -1)
    ]
    known = set()
    for first in range(0, len(plans), 5):  # as many as compiled above
        rows = zip(*plans[first : first + 5], strict=True)
        found = APPLY(images, randaugment.Plan(*map(np.stack, rows)))
        known |= {one.tobytes() for one in np.asarray(found)}
    draw = jax.jit(randaugment.rand_augment, static_argnums=(2, 3))
    drawn = draw(jax.random.key(0), np.repeat(images[:1], 300, axis=0), 1, 30.0)
    assert {one.tobytes() for one in np.asarray(drawn)} == known


def test_floats_are_rounded_to_grey_levels():
    """As an augmentation of the user's may make them."""
    images = pictures(1)
    moved = images + np.where(images % 2, 0.4, -0.4).astype(np.float32)
    key = jax.random.key(3)
    found, expected = (
        randaugment.rand_augment(key, x, 1) for x in (jnp.asarray(moved), images)
    )
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("count", "magnitude"), [(-1, 9), (2, 31), (2, float("nan"))])
def test_numbers_out_of_range_are_refused(count, magnitude):
    with pytest.raises(checks.BadValue, match="randaugment"):
        randaugment.rand_augment(jax.random.key(0), pictures(1), count, magnitude)


def test_a_resized_box_is_pillows_to_a_grey_level():
    images = pictures(3)
    draws = np.random.default_rng(1).random((len(images), cropping.TRIES, 4))
    boxes = cropping.boxes(draws, HEIGHT, WIDTH, 0.08)
    found = cropping.resized(jnp.asarray(images), jnp.asarray(boxes))
    box = iter(boxes.tolist())

    def cut(image):
        top, left, height, width = next(box)
        edges = (left, top, left + width, top + height)
        return image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box=edges)

    assert_close(found, images, cut)


@pytest.mark.parametrize(("height", "width"), [(20, 24), (10, 200), (200, 10)])
def test_boxes_are_inside_and_of_the_areas_and_shapes_asked_for(height, width):
    draws = np.random.default_rng(2).random((2000, cropping.TRIES, 4), np.float32)
    boxes = cropping.boxes(draws, height, width, 0.3)
    top, left, tall, wide = boxes.T
    assert (boxes >= 0).all() and tall.min() > 0 and wide.min() > 0
    assert (top + tall <= height).all() and (left + wide <= width).all()
    if (height, width) == (20, 24):
        area, ratio = tall * wide / (height * width), wide / tall
        assert 0.27 < area.min() < 0.33 and area.max() > 0.9
        assert ratio.min() > 0.68 and ratio.max() < 1.46
        assert len(np.unique(boxes, axis=0)) > 500
    else:  # no try fits: the largest one in the middle
        long = 13
        expected = [0, 93, 10, long] if width == 200 else [93, 0, long, 10]
        assert (boxes == expected).all()
    of_jax = cropping.boxes(jnp.asarray(draws), height, width, 0.3)
    assert np.mean(np.asarray(of_jax) == boxes) > 0.999  # one may round otherwise
