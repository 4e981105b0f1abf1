"""Convolution whose gradient XLA runs as fast inside of a ``cond`` or ``scan``.

On CPUs XLA brings the convolutions of a gradient into the layout of its fast kernels in
the outermost computation only; inside of ``lax.cond`` and ``lax.scan`` they take the
slow path, about 15 times slower (jax-ml/jax issue 12868). Methods that skip their
second gradient have it in a ``cond``. Here the gradient is written in that layout, with
transpositions, on CPUs; elsewhere it is left to JAX.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    inputs: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: Any,
    **options: Any,
) -> jax.Array:
    """A two-dimensional ``jax.lax.conv_general_dilated``, for ``flax.linen.Conv``.

    Only what the networks here need: channels last, no dilation, no groups.

    Args:
        inputs: [N, H, W, C].
        kernel: [h, w, C, F].
        window_strides: two.
        padding: ``"SAME"``, ``"VALID"``, or two pairs.
        **options: those of ``lax.conv_general_dilated`` that Flax passes; any value
            but the default is refused.

    Returns:
        [N, H', W', F].

    Raises:
        ValueError: for a dilation, groups, another precision or layout.
    """
    layout = lax.conv_dimension_numbers(inputs.shape, kernel.shape, LAYOUT)
    defaults = {
        "lhs_dilation": (1, 1),
        "rhs_dilation": (1, 1),
        "dimension_numbers": layout,
        "feature_group_count": 1,
        "precision": None,
    }
    for name, value in options.items():
        if value is not None and value != defaults.get(name):
            raise ValueError(f"{name} must be left at {defaults.get(name)}")
    strides = tuple(window_strides)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(
            inputs.shape[1:3], kernel.shape[:2], strides, padding
        )
    return _conv(inputs, kernel, strides, tuple(map(tuple, padding)))


Pair = tuple[int, int]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(
    inputs: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair]
) -> jax.Array:
    return _plain(inputs, kernel, strides, padding)


def _plain(
    inputs: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **dilation: Any
) -> jax.Array:
    return lax.conv_general_dilated(
        inputs, kernel, strides, padding, dimension_numbers=LAYOUT, **dilation
    )


def _forward(
    inputs: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    # Not _conv: a Hessian-vector product differentiates this forwards.
    return _plain(inputs, kernel, strides, padding), (inputs, kernel)


def _backward(
    strides: Pair,
    padding: tuple[Pair, Pair],
    residuals: tuple[jax.Array, jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    def default(
        inputs: jax.Array, kernel: jax.Array, cotangent: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        _, vjp = jax.vjp(lambda x, k: _plain(x, k, strides, padding), inputs, kernel)
        return vjp(cotangent)

    return lax.platform_dependent(
        *residuals,
        cotangent,
        cpu=functools.partial(_in_layout, strides, padding),
        default=default,
    )


def _in_layout(
    strides: Pair,
    padding: tuple[Pair, Pair],
    inputs: jax.Array,
    kernel: jax.Array,
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The gradients as convolutions of the layout of the forward one."""
    # For each axis: sides of kernel and inputs, padding in front, and the side of the
    # cotangent with the strides' zeros in between.
    sides = list(
        zip(
            kernel.shape[:2],
            inputs.shape[1:3],
            (low for low, _ in padding),
            (
                (n - 1) * s + 1
                for n, s in zip(cotangent.shape[1:3], strides, strict=True)
            ),
            strict=True,
        )
    )
    of_inputs = _plain(
        cotangent,
        jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2),
        (1, 1),
        [(k - 1 - low, n + low - spread) for k, n, low, spread in sides],
        lhs_dilation=strides,
    )
    # The batch is what is summed over, in the place of the channels.
    of_kernel = _plain(
        inputs.transpose(3, 1, 2, 0),
        cotangent.transpose(1, 2, 0, 3),
        (1, 1),
        [(low, k - 1 - n - low + spread) for k, n, low, spread in sides],
        rhs_dilation=strides,
    )
    return of_inputs, of_kernel.transpose(1, 2, 0, 3)


_conv.defvjp(_forward, _backward)
