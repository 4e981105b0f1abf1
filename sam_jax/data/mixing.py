"""Mixup and cutmix: images of two examples in one, and the loss of both labels."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sam_jax import checks, errors


class Mixed(NamedTuple):
    """The second example in each image.

    Attributes:
        labels: of the second examples, int32 [B].
        shares: of the first ones, float32 [B] in [0, 1]: the loss is
            ``share * loss(label) + (1 - share) * loss(second label)``, which of the
            cross-entropy is that of the mixed label.
    """

    labels: jax.Array
    shares: jax.Array


Mix = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Mixed]]


def make_mix(mixup: float, cutmix: float, rows: int, groups: int) -> Mix:
    """Mixes every image with the one before it in its group.

    Each image has a separate share, drawn from Beta(alpha, alpha). With both, either
    is done to half of the images.

    Args:
        mixup: alpha of mixup, the mean of two images; 0 is off.
        cutmix: alpha of cutmix, a box of the second image on the first; 0 is off.
        rows: examples of a batch.
        groups: in a batch, of consecutive rows.

    Returns:
        ``(key, images [B, H, W, C] float, labels) -> (images, Mixed)``.

    Raises:
        BadValue: an alpha below 0.
        UserError: if a group has a single example.

    References:
        Zhang, Cisse, Dauphin and Lopez-Paz, mixup: beyond empirical risk minimization,
        2018, arXiv:1710.09412. Yun et al., CutMix, 2019, arXiv:1905.04899.

    Example:
        >>> mix = make_mix(0.2, 0.0, rows=4, groups=2)
        >>> images = jnp.arange(4.0).reshape(4, 1, 1, 1)
        >>> images, mixed = mix(jax.random.key(0), images, jnp.arange(4))
        >>> mixed.labels.tolist()
        [1, 0, 3, 2]
    """
    checks.nonnegative("mixup", mixup)
    checks.nonnegative("cutmix", cutmix)
    if rows // groups < 2:
        raise errors.UserError(
            "mixup and cutmix need two examples that share a perturbation, and groups "
            "have one: take a larger config.method_group_size"
        )

    def second(x: jax.Array) -> jax.Array:
        cut = x.reshape(groups, -1, *x.shape[1:])
        return jnp.roll(cut, 1, axis=1).reshape(x.shape)

    def mix(
        key: jax.Array, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, Mixed]:
        which_key, mean_key, box_key = jax.random.split(key, 3)
        others = second(images)
        means = _averaged(mean_key, images, others, mixup) if mixup else None
        boxed = _boxed(box_key, images, others, cutmix) if cutmix else None
        if means and boxed:
            is_mean = jax.random.bernoulli(which_key, 0.5, labels.shape)
            found = _where(is_mean, means[0], boxed[0])
            shares = jnp.where(is_mean, means[1], boxed[1])
        else:
            found, shares = means or boxed or (images, jnp.ones(labels.shape))
        return found, Mixed(second(labels), shares)

    return mix


def _where(rows: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.where(rows.reshape(-1, *[1] * (one.ndim - 1)), one, other)


def _averaged(
    key: jax.Array, images: jax.Array, others: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Means of two images, and the shares of the first ones."""
    shares = jax.random.beta(key, alpha, alpha, [len(images)])
    factor = shares.reshape(-1, *[1] * (images.ndim - 1)).astype(images.dtype)
    return factor * images + (1 - factor) * others, shares


def _boxed(
    key: jax.Array, images: jax.Array, others: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Images with a box of the others, and the shares that are left of them."""
    batch, height, width, _ = images.shape
    share_key, row_key, column_key = jax.random.split(key, 3)
    side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha, (batch, 1)))

    def covered(key: jax.Array, length: int) -> jax.Array:
        middle = jax.random.randint(key, (batch, 1), 0, length)
        half = (side * length).astype(jnp.int32) // 2
        pixels = jnp.arange(length)
        return (middle - half <= pixels) & (pixels < middle + half)

    rows = covered(row_key, height).reshape(batch, height, 1, 1)
    columns = covered(column_key, width).reshape(batch, 1, width, 1)
    box = rows & columns
    return jnp.where(box, others, images), 1 - jnp.mean(box, (1, 2, 3))
