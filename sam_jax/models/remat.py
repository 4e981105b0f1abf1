"""Rematerialization: blocks that keep their input alone for the gradient.

What a block computes inside is computed again when the gradient of its output has come,
at the price of a second forward pass through it (Chen et al. 2016).

`jax.checkpoint` does the same in principle, but holds the second computation back with
an optimization barrier, which XLA's CPU backend drops before it orders the program: it
recomputes all blocks at once, early, and needs more memory than without. Here the block
is computed again from ``input + 0``, where the zero is made of the gradient of its
output, so that no compiler can start earlier or take both computations for the same.

References:
    Chen, Xu, Zhang and Guestrin, Training deep nets with sublinear memory cost, 2016,
    arXiv:1604.06174.
"""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import lift


def lifted(block: type[nn.Module]) -> type[nn.Module]:
    """The block, rematerialized; its parameters keep their names and values.

    Running statistics carry no gradient here. Give the block a name: the automatic one
    would differ.

    Args:
        block: a module called as ``block(x, train)`` with floats ``[batch, ...]``, that
            returns as many dimensions.
    """
    return cast(type[nn.Module], nn.transforms.lift_transform(_lift, block))


def _lift(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a Flax scope, rematerialized."""

    def inner(
        scope_fn: Any, repack_fn: Any, variables: Any, rngs: Any, x: Any, train: bool
    ) -> Any:
        def run(x: jax.Array, variables: Any, rngs: Any) -> tuple[jax.Array, Any]:
            scope = scope_fn(variables, rngs)
            return fn(scope, x, train), repack_fn(scope)

        # Traced once: each visit of the scope would draw another dropout mask.
        run, captured = jax.closure_convert(run, x, variables, rngs)
        return _recomputed(run)(x, variables, rngs, *captured)

    return lift.pack(inner, (True,), (True,), (True,), name="remat")


def _recomputed(
    run: Callable[..., tuple[jax.Array, Any]],
) -> Callable[..., tuple[jax.Array, Any]]:
    """``run(x, *others)``, which returns a result and what has no gradient."""
    call = jax.custom_vjp(run)

    def forward(*inputs: Any) -> tuple[tuple[jax.Array, Any], Any]:
        # As for a gradient: a Hessian-vector product differentiates this forwards, and
        # what has a derivative written by hand, the convolutions, is slow in that.
        y, _, state = jax.vjp(run, *inputs, has_aux=True)
        return (y, state), inputs

    def backward(inputs: Any, cotangents: tuple[jax.Array, Any]) -> Any:
        x, *others = inputs
        cotangent, _ = cotangents
        # One element of each example: nothing has to travel between devices.
        element = cotangent[:, *[slice(1)] * (cotangent.ndim - 1)]
        zero = jnp.minimum(jnp.abs(element), 0).astype(x.dtype)
        _, pullback, _ = jax.vjp(run, x + zero, *others, has_aux=True)
        return pullback(cotangent)

    call.defvjp(forward, backward)
    return call
