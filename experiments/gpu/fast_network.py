"""The network of the fast recipe: frozen whitening, three groups of convolutions.

Written from the description in Keller Jordan, 94% on CIFAR-10 in 3.29 seconds on a
single GPU, 2024, arXiv:2404.00498, for its larger variant: each group has three
convolutions, the last two with a shortcut around them. The first layer's 2x2 filters
whiten the patches of the training images and are never trained, its bias is for a
while; the other convolutions start as the identity as far as they have channels for it;
BatchNorm has biases but no scales; GELU; the logits are scaled down.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

PATCH, FLOOR = 2, 5e-4
KEPT, SCALE = 0.6, 1 / 9  # of BatchNorm's statistics; of the logits
CONVOLUTIONS = 3  # of a group

Params = dict[str, Any]  # "whiten": bias; "groups": kernels and biases; "head"


class Statistics(NamedTuple):
    """Running means and variances of the BatchNorms, in order."""

    mean: list[jax.Array]
    variance: list[jax.Array]


def whitening(images: jax.Array) -> jax.Array:
    """Filters after which the patches of images have unit covariance.

    Args:
        images: normalized, [N, H, W, 3].

    Returns:
        [2, 2, 3, 24]: the 12 eigenvectors over the root of their variance, both signs.

    Example:
        >>> images = jax.random.normal(jax.random.key(0), (64, 8, 8, 3))
        >>> whitening(images).shape
        (2, 2, 3, 24)
    """
    channels = images.shape[-1]
    patches = lax.conv_general_dilated_patches(
        *(images, (PATCH, PATCH), (1, 1), "VALID"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ).reshape(-1, channels * PATCH**2)
    covariance = patches.T @ patches / len(patches)
    values, vectors = jnp.linalg.eigh(covariance)
    filters = vectors / jnp.sqrt(values + FLOOR)
    # Patches are laid out by channel, then place.
    filters = filters.reshape(channels, PATCH, PATCH, -1).transpose(1, 2, 0, 3)
    return jnp.concatenate([filters, -filters], axis=-1)


def init(
    key: jax.Array, widths: tuple[int, ...], classes: int = 10, channels: int = 3
) -> tuple[Params, Statistics]:
    """What is trained, and BatchNorm's statistics.

    Args:
        key: of the draws.
        widths: channels of the groups.
        classes: number of logits.
        channels: of the images.

    Returns:
        Parameters and statistics, float32.
    """
    inputs = 2 * channels * PATCH**2
    params: Params = {"whiten": jnp.zeros(inputs), "groups": []}
    statistics = Statistics([], [])
    for width in widths:
        kernels = []
        for _ in range(CONVOLUTIONS):
            key, own = jax.random.split(key)
            kernels.append(_identity(own, inputs, width))
            statistics.mean.append(jnp.zeros(width))
            statistics.variance.append(jnp.ones(width))
            inputs = width
        biases = [jnp.zeros(width) for _ in kernels]
        params["groups"].append({"kernels": kernels, "biases": biases})
    bound = inputs**-0.5
    params["head"] = jax.random.uniform(
        key, (inputs, classes), minval=-bound, maxval=bound
    )
    return params, statistics


def _identity(key: jax.Array, inputs: int, outputs: int) -> jax.Array:
    """A 3x3 kernel whose first outputs are its inputs; the others are drawn."""
    bound = (9 * inputs) ** -0.5
    kernel = jax.random.uniform(
        key, (3, 3, inputs, outputs), minval=-bound, maxval=bound
    )
    same = min(inputs, outputs)
    kernel = kernel.at[..., :same].set(0)
    return kernel.at[1, 1, jnp.arange(same), jnp.arange(same)].set(1)


def apply(
    params: Params,
    statistics: Statistics,
    filters: jax.Array,
    images: jax.Array,
    *,
    train: bool,
    dtype: Any = jnp.bfloat16,
) -> tuple[jax.Array, Statistics]:
    """Images to logits.

    Args:
        params: trained.
        statistics: running ones.
        filters: of `whitening`.
        images: normalized, [B, 32, 32, 3].
        train: normalize by the batch and move the statistics.
        dtype: of the activations.

    Returns:
        Logits, float32 [B, classes], and the statistics after the batch.
    """
    moved = Statistics([], [])

    def normalized(x: jax.Array, bias: jax.Array) -> jax.Array:
        layer = len(moved.mean)
        mean, variance = statistics.mean[layer], statistics.variance[layer]
        if train:
            wide = x.astype(jnp.float32)
            of_batch = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
            moved.mean.append(KEPT * mean + (1 - KEPT) * of_batch[0])
            moved.variance.append(KEPT * variance + (1 - KEPT) * of_batch[1])
            mean, variance = of_batch
        else:
            moved.mean.append(mean)
            moved.variance.append(variance)
        scale = lax.rsqrt(variance + 1e-12)
        shift = bias - mean * scale
        return x * scale.astype(dtype) + shift.astype(dtype)

    x = convolved(images.astype(dtype), filters, "VALID")
    x = jax.nn.gelu(x + params["whiten"].astype(dtype), approximate=False)
    for group in params["groups"]:
        first, *others = zip(group["kernels"], group["biases"], strict=True)
        x = pooled(convolved(x, first[0], "SAME"), 2)
        x = jax.nn.gelu(normalized(x, first[1]), approximate=False)
        shortcut = x
        for kernel, bias in others[:-1]:
            x = normalized(convolved(x, kernel, "SAME"), bias)
            x = jax.nn.gelu(x, approximate=False)
        kernel, bias = others[-1]
        x = normalized(convolved(x, kernel, "SAME"), bias) + shortcut
        x = jax.nn.gelu(x, approximate=False)
    x = pooled(x, 3).reshape(len(images), -1)
    logits = x @ params["head"].astype(dtype)
    return SCALE * logits.astype(jnp.float32), moved


def convolved(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """A convolution in the type of its input."""
    return lax.conv_general_dilated(
        *(x, kernel.astype(x.dtype), (1, 1), padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def pooled(x: jax.Array, side: int) -> jax.Array:
    """The largest of each window of so many pixels squared; the rest is cut off."""
    window = (1, side, side, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
