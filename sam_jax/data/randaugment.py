"""RandAugment: operations of Pillow, drawn for every image, inside the jitted step.

An operation moves pixels by an affine map, then replaces values by a table, then blends
with a plainer image; most of them do one of the three. So a batch passes once through
each stage, whatever operation each image has drawn.

References:
    Cubuk, Zoph, Shlens and Le, RandAugment: practical automated data augmentation with
    a reduced search space, 2019, arXiv:1909.13719.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import checks

MOST = 30  # the strongest magnitude
OPERATIONS = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "color", "contrast", "sharpness"),
    *("posterize", "solarize", "autocontrast", "equalize"),
)
_GREY, _SMOOTH, _CONTRAST, _AUTOCONTRAST, _EQUALIZE = range(1, 6)
_KINDS = {
    "color": _GREY,
    "sharpness": _SMOOTH,
    "contrast": _CONTRAST,
    "autocontrast": _AUTOCONTRAST,
    "equalize": _EQUALIZE,
}
_VALUES = np.arange(256)


class Plan(NamedTuple):
    """What operations do to images, one row for each of them.

    Attributes:
        inverse: where pixels come from, ``x = (a x' + b y' + c) / 2**16`` and likewise
            y, int32 [R, 6]; for centres of pixels c and f have their half in them.
        table: value -> value, uint8 [R, 256].
        factor: of the blend, 1 for none, float32 [R].
        kind: of what the pixels decide, int32 [R]; 0 for nothing.
    """

    inverse: Any
    table: Any
    factor: Any
    kind: Any


def rand_augment(
    key: jax.Array, images: jax.Array, count: int, magnitude: float = 9.0
) -> jax.Array:
    """Does that many operations on every image, each drawn from 14, with its sign.

    Args:
        key: of the draws.
        images: uint8 [B, H, W, C], of 1 or 3 channels; floats of 0 to 255 are rounded.
        count: operations one after another.
        magnitude: of all of them, 0 to 30; the scales are those of torchvision. What
            moves pixels takes the nearest one, and black from outside.

    Returns:
        uint8 [B, H, W, C].

    Raises:
        BadValue: a number out of range.

    Example:
        >>> import functools
        >>> images = jnp.zeros((4, 8, 8, 3), jnp.uint8)
        >>> twice = functools.partial(rand_augment, count=2)
        >>> jax.eval_shape(twice, jax.random.key(0), images).shape
        (4, 8, 8, 3)
    """
    checks.integer("randaugment", count, 0)
    checks.between("randaugment_magnitude", magnitude, 0, MOST)
    height, width = images.shape[1:3]
    plans = [
        plan(name, sign * magnitude, height, width)
        for name in OPERATIONS
        for sign in (1, -1)
    ]
    rows = Plan(*map(np.stack, zip(*plans, strict=True)))
    if images.dtype != jnp.uint8:
        images = jnp.clip(jnp.round(images), 0, 255).astype(jnp.uint8)
    for part in jax.random.split(key, count):
        drawn = jax.random.randint(part, [len(images)], 0, len(plans))
        images = apply(images, Plan(*(jnp.asarray(x)[drawn] for x in rows)))
    return images


def plan(name: str, magnitude: float, height: int, width: int) -> Plan:
    """What one operation does, without the axis of rows.

    Args:
        name: one of `OPERATIONS`.
        magnitude: in [-30, 30]; of those without a direction the sign does nothing.
        height: of the images, in pixels.
        width: likewise.
    """
    share = magnitude / MOST
    affine, table, factor = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), _VALUES, 1.0
    match name:
        case "shear_x":
            affine = (1.0, 0.3 * share, 0.0, 0.0, 1.0, 0.0)
        case "shear_y":
            affine = (1.0, 0.0, 0.0, 0.3 * share, 1.0, 0.0)
        case "translate_x":
            affine = (1.0, 0.0, int(150 / 331 * width * share), 0.0, 1.0, 0.0)
        case "translate_y":
            affine = (1.0, 0.0, 0.0, 0.0, 1.0, int(150 / 331 * height * share))
        case "rotate":
            affine = _rotation(np.deg2rad(30 * share), height, width)
        case "brightness":
            table = _blended(0, _VALUES, np.float32(1 + 0.9 * share), np)
        case "color" | "contrast" | "sharpness":
            factor = 1 + 0.9 * share
        case "posterize":
            bits = 8 - round(4 * abs(share))
            table = _VALUES & (256 - 2 ** (8 - bits))
        case "solarize":
            threshold = 255 * (1 - abs(share))
            table = np.where(threshold > _VALUES, _VALUES, 255 - _VALUES)
    a, b, c, d, e, f = affine
    centred = (a, b, c + (a + b) / 2, d, e, f + (d + e) / 2)
    return Plan(
        np.floor(np.array(centred) * 2**16 + 0.5).astype(np.int32),
        table.astype(np.uint8),
        np.float32(factor),
        np.int32(_KINDS.get(name, 0)),
    )


def apply(images: jax.Array, rows: Plan) -> jax.Array:
    """Does the operation of its row on each image.

    Args:
        images: uint8 [B, H, W, C].
        rows: of as many operations.

    Returns:
        uint8 [B, H, W, C].
    """
    images = jax.vmap(_moved)(images, jnp.asarray(rows.inverse))
    tables = jax.vmap(_tables)(images, Plan(*map(jnp.asarray, rows)))
    images = jax.vmap(jax.vmap(lambda x, t: t[x], (2, 0), 2))(images, tables)
    kind = jnp.asarray(rows.kind).reshape(-1, 1, 1, 1)
    plainer = jnp.where(kind == _GREY, _grey(images), _smooth(images))
    factor = jnp.asarray(rows.factor).reshape(-1, 1, 1, 1)
    blended = _blended(plainer.astype(jnp.float32), images, factor, jnp)
    return jnp.where((kind == _GREY) | (kind == _SMOOTH), blended, images)


def _rotation(angle: float, height: int, width: int) -> tuple[float, ...]:
    """About the middle, counter-clockwise by this angle, from new to old pixels."""
    cos, sin, x, y = np.cos(angle), np.sin(angle), width / 2, height / 2
    return (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def _moved(image: jax.Array, inverse: jax.Array) -> jax.Array:
    height, width, channels = image.shape
    down, right = jnp.arange(height)[:, None], jnp.arange(width)
    a, b, c, d, e, f = inverse
    x, y = (a * right + b * down + c) >> 16, (d * right + e * down + f) >> 16
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    flat = jnp.clip(y * width + x, 0, height * width - 1)
    moved = image.reshape(-1, channels)[flat]
    return jnp.where(inside[..., None], moved, 0)


def _tables(image: jax.Array, row: Plan) -> jax.Array:
    """The table of each channel, uint8 [C, 256]."""
    channels = image.shape[-1]
    pixels = image.reshape(-1, channels)
    counts = _histogram(pixels)
    values, there = jnp.arange(256), counts > 0
    low = jnp.argmax(there, axis=1, keepdims=True)
    high = 255 - jnp.argmax(there[:, ::-1], axis=1, keepdims=True)

    stretched = 255 * (values - low) // jnp.maximum(high - low, 1)
    last = jnp.take_along_axis(counts, high, axis=1)
    step = (len(pixels) - last) // 255
    before = jnp.cumsum(counts, axis=1) - counts
    equal = (step // 2 + before) // jnp.maximum(step, 1)
    grey = _grey(image[None])[0].astype(jnp.int32)
    mean = jnp.floor(jnp.sum(grey[..., 0]) / (grey.size // channels) + 0.5)
    contrast = _blended(mean, values, row.factor, jnp)

    def chosen(kind: int, table: jax.Array, otherwise: jax.Array) -> jax.Array:
        table = jnp.clip(table, 0, 255).astype(jnp.uint8)
        return jnp.where(row.kind == kind, table, otherwise)

    tables = jnp.broadcast_to(jnp.asarray(row.table), (channels, 256))
    tables = chosen(_CONTRAST, contrast, tables)
    tables = chosen(_AUTOCONTRAST, jnp.where(high > low, stretched, values), tables)
    return chosen(_EQUALIZE, jnp.where(step > 0, equal, values), tables)


def _histogram(pixels: jax.Array) -> jax.Array:
    """How often each value is in each channel, int32 [C, 256], of uint8 [N, C]."""
    # As a product of matrices, which accelerators compute faster than they count.
    upper, lower = (
        jax.nn.one_hot(half, 16, dtype=jnp.float32)
        for half in (pixels >> 4, pixels & 15)
    )
    counts = jnp.einsum("nci,ncj->cij", upper, lower)
    return counts.reshape(-1, 256).astype(jnp.int32)


def _grey(images: jax.Array) -> jax.Array:
    """Luma of ITU-R 601-2, in every channel, uint8."""
    if images.shape[-1] == 1:
        return images
    shares = jnp.array([19595, 38470, 7471])
    luma = (jnp.sum(images * shares, axis=-1, keepdims=True) + 2**15) >> 16
    return jnp.broadcast_to(luma, images.shape).astype(jnp.uint8)


def _smooth(images: jax.Array) -> jax.Array:
    """Mean of 3x3 pixels, the middle one counted 5 times; the border stays. uint8."""
    inner = images[:, 1:-1, 1:-1]
    height, width = inner.shape[1:3]
    total = 4 * inner.astype(jnp.int32)
    for down in range(3):
        for right in range(3):
            total += images[:, down : down + height, right : right + width]
    rounded = ((2 * total + 13) // 26).astype(jnp.uint8)
    return images.at[:, 1:-1, 1:-1].set(rounded)


def _blended(plainer: Any, values: Any, factor: Any, xp: Any) -> Any:
    """``plainer + factor * (values - plainer)``, cut off to uint8 as Pillow does."""
    values = xp.asarray(values, xp.float32)
    found = plainer + factor * (values - plainer)
    return xp.clip(found, 0, 255).astype(xp.uint8)
