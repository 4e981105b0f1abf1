"""Convolution whose gradient XLA runs as fast inside of a ``cond`` or ``scan``.

On CPUs XLA brings the convolutions of a gradient into the layout of its fast kernels in
the outermost computation only; inside of ``lax.cond`` and ``lax.scan`` they take the
slow path, about 15 times slower (jax-ml/jax issue 12868). Methods that skip their
second gradient have it in a ``cond``. Here the derivative is written in the layout
whose transposition, the gradient, is that of the fast kernels; elsewhere than on CPUs
it is left to JAX. It is one rule for all: gradients, ``jax.jvp``, Hessian products.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

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


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _conv(
    inputs: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair]
) -> jax.Array:
    return _plain(inputs, kernel, strides, padding)


def _plain(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Pair,
    padding: tuple[Pair, Pair],
    layout: tuple[str, str, str] = LAYOUT,
) -> jax.Array:
    return lax.conv_general_dilated(
        inputs, kernel, strides, padding, dimension_numbers=layout
    )


def _derivative(
    strides: Pair,
    padding: tuple[Pair, Pair],
    primals: tuple[jax.Array, jax.Array],
    tangents: tuple[jax.Array | SymbolicZero, jax.Array | SymbolicZero],
) -> tuple[jax.Array, jax.Array]:
    def conv(
        inputs: jax.Array, kernel: jax.Array, layout: tuple[str, str, str] = LAYOUT
    ) -> jax.Array:
        return _plain(inputs, kernel, strides, padding, layout)

    def of_inputs(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        turned = kernel.transpose(0, 1, 3, 2)
        return conv(inputs, turned, ("NHWC", "HWOI", "NHWC"))

    def of_kernel(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        turned = inputs.transpose(3, 1, 2, 0), kernel.transpose(2, 0, 1, 3)
        return conv(*turned, ("CHWN", "IHWO", "HWNC")).transpose(2, 0, 1, 3)

    inputs, kernel = primals
    inputs = lax.platform_dependent(inputs, cpu=_computed_once, default=lambda x: x)
    terms = [
        lax.platform_dependent(*operands, cpu=turned, default=conv)
        for turned, operands in (
            (of_inputs, (tangents[0], kernel)),
            (of_kernel, (inputs, tangents[1])),
        )
        if not any(isinstance(operand, SymbolicZero) for operand in operands)
    ]
    # Not _conv: a Hessian-vector product differentiates this forwards, and JAX's own
    # rule has the layout of the fast kernels for that.
    return conv(inputs, kernel), functools.reduce(jnp.add, terms)


def _computed_once(x: jax.Array) -> jax.Array:
    """The same numbers, for several uses.

    XLA computes what has one operand, such as a ReLU, again inside of the transposition
    for the gradient, and with it the layers before. This has two: a mask and ``x``.
    """
    return jnp.where(x == x, x, jnp.nan)


_conv.defjvp(_derivative, symbolic_zeros=True)
