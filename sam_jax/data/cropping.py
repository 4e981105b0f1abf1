"""Random resized crops: the boxes, for the loader and for the jitted step."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import checks

TRIES = 10
_RATIOS = (3 / 4, 4 / 3)


def boxes(draws: Any, height: int, width: int, smallest: float) -> Any:
    """Boxes of random area and shape, of NumPy or of JAX as the draws are.

    The first of ten tries that fits into the image, else the largest one in the middle.

    Args:
        draws: uniform in [0, 1), float [..., `TRIES`, 4].
        height: of the image, in pixels.
        width: likewise.
        smallest: share of the area, which is uniform in [smallest, 1]; the logarithm of
            width / height is uniform between those of 3/4 and 4/3.

    Returns:
        Top, left, height and width in pixels, int32 [..., 4].

    References:
        Szegedy et al., Going deeper with convolutions, 2015, arXiv:1409.4842.

    Example:
        >>> print(boxes(np.full((TRIES, 4), 0.5), 100, 200, smallest=0.5))
        [  0  33 100 133]
    """
    xp: Any = np if isinstance(draws, np.ndarray) else jnp
    low, high = map(math.log, _RATIOS)
    area = height * width * (smallest + (1 - smallest) * draws[..., 0])
    ratio = xp.exp(low + (high - low) * draws[..., 1])
    widths, heights = xp.round(xp.sqrt(area * ratio)), xp.round(xp.sqrt(area / ratio))
    fits = (widths <= width) & (heights <= height) & (xp.minimum(widths, heights) > 0)
    tops = xp.floor(draws[..., 2] * (height - heights + 1))
    lefts = xp.floor(draws[..., 3] * (width - widths + 1))
    tried = xp.stack([tops, lefts, heights, widths], -1)
    first = xp.argmax(fits, -1)[..., None, None]
    found = xp.take_along_axis(tried, first, -2)[..., 0, :]
    tall = min(height, round(width / _RATIOS[0]))
    wide = min(width, round(height * _RATIOS[1]))
    middle = xp.asarray([(height - tall) // 2, (width - wide) // 2, tall, wide])
    return xp.where(xp.any(fits, -1)[..., None], found, middle).astype(xp.int32)


def random_resized_crop(
    key: jax.Array, images: jax.Array, smallest: float
) -> jax.Array:
    """Cuts a box out of every image and scales it to the old size, bilinear.

    Args:
        key: of the draws.
        images: uint8 [B, H, W, C].
        smallest: share of the area, in (0, 1]; see `boxes`.

    Returns:
        uint8 [B, H, W, C].

    Raises:
        BadValue: if the share is out of range.

    Example:
        >>> import functools
        >>> images = jnp.ones((4, 8, 8, 3), jnp.uint8)
        >>> crop = functools.partial(random_resized_crop, smallest=0.08)
        >>> jax.eval_shape(crop, jax.random.key(0), images).shape
        (4, 8, 8, 3)
    """
    checks.between("resized_crop", smallest, 0, 1)
    batch, height, width, _ = images.shape
    draws = jax.random.uniform(key, (batch, TRIES, 4))
    return resized(images, boxes(draws, height, width, smallest))


def resized(images: jax.Array, boxes: jax.Array) -> jax.Array:
    """Boxes, no larger than the images, scaled to the size of the images.

    Args:
        images: uint8 [B, H, W, C].
        boxes: int32 [B, 4], as `boxes` gives them.

    Returns:
        uint8 [B, H, W, C]. At its border a box takes pixels from beside it, as in
        Pillow.
    """
    height, width = images.shape[1:3]
    rows = _weights(boxes[:, 0], boxes[:, 2], height)
    columns = _weights(boxes[:, 1], boxes[:, 3], width)
    found = jnp.einsum(
        "brh,bhwc,bsw->brsc",
        *(rows, images.astype(jnp.float32), columns),
        precision="highest",
    )
    return jnp.clip(jnp.round(found), 0, 255).astype(jnp.uint8)


def _weights(first: jax.Array, length: jax.Array, size: int) -> jax.Array:
    """Of the old pixels for each new one, float32 [B, size, size]; none is smaller."""
    first, length = (x[:, None, None].astype(jnp.float32) for x in (first, length))
    places = first + (jnp.arange(size)[:, None] + 0.5) * length / size - 0.5
    weights = jnp.maximum(0, 1 - jnp.abs(places - jnp.arange(size)))
    return weights / jnp.sum(weights, axis=-1, keepdims=True)
