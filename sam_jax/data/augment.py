"""Random changes of training images, as functions inside the jitted step.

Every example gets separate draws. Crop and flip work on the bytes, cutout on the
normalized floats. How the work is divided among devices is left to the compiler: a
batch sharded over the (Auto) axes of a mesh gives the same images as on one device.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import checks, errors
from sam_jax.data import cropping
from sam_jax.data.randaugment import rand_augment

# Of the key of a batch; `split` gives crop, flip and cutout those of 0 to 2, and 4 is
# the user's own.
_RESIZED_CROP, _RANDAUGMENT = 5, 3


def random_crop(key: jax.Array, images: jax.Array, padding: int) -> jax.Array:
    """Shifts every image by up to ``padding`` pixels, filling with zeros.

    The same as padding with zeros on all sides and cutting out a window of the old
    size at a uniformly drawn place.

    Args:
        key: of the draws.
        images: [B, H, W, C], any dtype; zero is black before normalization.
        padding: pixels per side, 0 to the smaller side of the image.

    Returns:
        [B, H, W, C], same dtype.

    Raises:
        BadValue: the padding is out of range.

    Example:
        >>> images = jnp.ones((4, 8, 8, 3), jnp.uint8)
        >>> random_crop(jax.random.key(0), images, padding=2).shape
        (4, 8, 8, 3)
    """
    batch, height, width, channels = images.shape
    _check_pixels("crop", padding, images)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    offsets = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)

    def window(image: jax.Array, offset: jax.Array) -> jax.Array:
        start = (offset[0], offset[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(window)(padded, offsets)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors left and right, every image with probability one half.

    Args:
        key: of the draws.
        images: [B, H, W, C], any dtype.

    Returns:
        [B, H, W, C], same dtype.
    """
    flipped = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def random_cutout(
    key: jax.Array, images: jax.Array, size: int, probability: float = 1.0
) -> jax.Array:
    """Sets a square of every image to zero.

    Meant for normalized images, where zero is the mean colour. The centre is a
    uniformly drawn pixel, so that the square may reach over the border and then covers
    less of the image, as in the authors' code.

    Args:
        key: of the draws.
        images: [B, H, W, C], any dtype.
        size: side of the square in pixels, 0 to the smaller side of the image.
        probability: with which an image is changed at all, in [0, 1].

    Returns:
        [B, H, W, C], same dtype.

    Raises:
        BadValue: size or probability out of range.

    References:
        DeVries, Taylor, "Improved Regularization of Convolutional Neural Networks with
        Cutout", 2017, arXiv:1708.04552.
    """
    batch, height, width, _ = images.shape
    _check_pixels("cutout", size, images)
    checks.between("cutout_probability", probability, 0, 1)
    row_key, column_key, use_key = jax.random.split(key, 3)

    def covered(key: jax.Array, length: int) -> jax.Array:
        first = jax.random.randint(key, (batch, 1), 0, length) - size // 2
        pixels = jnp.arange(length).reshape(1, length)
        return (first <= pixels) & (pixels < first + size)

    rows = covered(row_key, height).reshape(batch, height, 1, 1)
    columns = covered(column_key, width).reshape(batch, 1, width, 1)
    used = jax.random.bernoulli(use_key, probability, (batch, 1, 1, 1))
    return jnp.where(rows & columns & used, jnp.zeros((), images.dtype), images)


def normalize(
    images: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
    """Turns bytes into floats of mean 0 and standard deviation 1 per channel.

    Args:
        images: uint8 [B, H, W, C].
        mean: per channel, in units of pixel / 255.
        std: per channel, in units of pixel / 255, positive.

    Returns:
        float32 [B, H, W, C], ``(images / 255 - mean) / std``.

    Raises:
        UserError: not one mean and one positive standard deviation per channel.

    Example:
        >>> images = jnp.full((1, 1, 1, 1), 255, jnp.uint8)
        >>> normalize(images, mean=(0.5,), std=(0.25,)).item()
        2.0
    """
    channels = images.shape[-1]
    if not len(mean) == len(std) == channels or min(std) <= 0:
        raise errors.UserError(
            f"mean={tuple(mean)} and std={tuple(std)} do not fit images of {channels} "
            f"channels: pass {channels} numbers each, those of std above 0"
        )
    shape = (1, 1, 1, channels)
    offset = np.asarray(mean, np.float32).reshape(shape)
    scale = np.asarray(std, np.float32).reshape(shape)
    return (images.astype(jnp.float32) / 255 - offset) / scale


def make_augment(
    *,
    crop: int = 0,
    flip: bool = False,
    cutout: int = 0,
    cutout_probability: float = 1.0,
    resized_crop: float = 0.0,
    randaugment: int = 0,
    randaugment_magnitude: float = 9.0,
    mean: Sequence[float],
    std: Sequence[float],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Composes what happens to a training batch.

    Resized crop or crop, flip, RandAugment, normalize, cutout.

    Args:
        crop: padding of ``random_crop`` in pixels; 0 for none.
        flip: whether to mirror at random.
        cutout: side of the square of ``random_cutout`` in pixels; 0 for none.
        cutout_probability: with which an image is cut out at all.
        resized_crop: smallest area of `cropping.random_resized_crop`; 0 for none.
        randaugment: operations of `randaugment.rand_augment`; 0 for none.
        randaugment_magnitude: of them.
        mean: see ``normalize``.
        std: see ``normalize``.

    Returns:
        Function ``(key, uint8 images [B, H, W, C]) -> float32 [B, H, W, C]``. Switching
        one of its parts off leaves the draws of the others as they are.

    Raises:
        BadValue: a setting out of range; what depends on the size of the images is
            checked when the function is traced.

    Example:
        >>> augment = make_augment(crop=1, flip=True, mean=(0.5,), std=(0.5,))
        >>> images = jnp.zeros((2, 4, 4, 1), jnp.uint8)
        >>> augment(jax.random.key(0), images).dtype
        dtype('float32')
    """
    checks.integer("crop", crop, 0)
    checks.integer("cutout", cutout, 0)
    checks.between("cutout_probability", cutout_probability, 0, 1)
    checks.between("resized_crop", resized_crop, 0, 1)
    if crop and resized_crop:
        raise errors.UserError(
            f"crop={crop} and resized_crop={resized_crop:g} are both crops: leave one "
            "of them out"
        )

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        crop_key, flip_key, cutout_key = jax.random.split(key, 3)
        if resized_crop:
            own = jax.random.fold_in(key, _RESIZED_CROP)
            images = cropping.random_resized_crop(own, images, resized_crop)
        if crop:
            images = random_crop(crop_key, images, crop)
        if flip:
            images = random_flip(flip_key, images)
        if randaugment:
            images = rand_augment(
                jax.random.fold_in(key, _RANDAUGMENT),
                *(images, randaugment, randaugment_magnitude),
            )
        floats = normalize(images, mean, std)
        if cutout:
            floats = random_cutout(cutout_key, floats, cutout, cutout_probability)
        return floats

    return augment


def make_normalize(
    *, mean: Sequence[float], std: Sequence[float]
) -> Callable[[jax.Array], jax.Array]:
    """What happens to a batch in evaluation: nothing random.

    Args:
        mean: see ``normalize``; empty of inputs that are not images.
        std: see ``normalize``.

    Returns:
        Function ``uint8 images [B, H, W, C] -> float32 [B, H, W, C]``; of other inputs
        the identity.
    """
    if not mean:
        return lambda inputs: inputs
    return lambda images: normalize(images, mean, std)


def _check_pixels(what: str, pixels: int, images: jax.Array) -> None:
    checks.integer(what, pixels, 0)
    side = min(images.shape[1:3])
    if pixels > side:
        raise checks.BadValue(
            f"{what} must be in [0, {side}], the image's side in pixels, got {pixels}"
        )
