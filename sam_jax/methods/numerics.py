"""Norms and angles of trees, safe in low precision and at the edges of the range."""

from typing import Any

import jax
import jax.numpy as jnp


def norm(tree: Any) -> jax.Array:
    """Global 2-norm over all leaves, in float32 or wider.

    The sum of squares is taken of entries divided by a power of two near the largest
    one: it neither overflows nor underflows (float16 gradients overflow beyond 256
    otherwise, float32 ones beyond 1.8e19), and no digit changes where it would not.

    Args:
        tree: arrays of any shapes and real dtypes.

    Returns:
        A scalar, at least float32; zero for a tree without leaves.

    Example:
        >>> import jax.numpy as jnp
        >>> float(norm({"a": jnp.array([3e30]), "b": jnp.array([4e30])}) / 1e30)
        5.0
    """
    leaves = _wide_leaves(tree)
    if not leaves:
        return jnp.zeros([], jnp.float32)
    dtype = max((x.dtype for x in leaves), key=lambda dtype: dtype.itemsize)
    largest = jnp.stack(
        [jnp.max(jnp.abs(x), initial=0).astype(dtype) for x in leaves]
    ).max()
    # Kept inside the range in which the power of two and its inverse are both normal.
    limit = jnp.finfo(dtype).maxexp - 2
    exponent = jnp.clip(jnp.frexp(largest)[1], -limit, limit)
    shrink = jnp.ldexp(jnp.ones([], dtype), -exponent)
    squares = [jnp.sum(jnp.square(x.astype(dtype) * shrink)) for x in leaves]
    total = jnp.stack(squares).sum()
    # The root has no derivative at zero; this way it is zero there, not NaN.
    root = jnp.where(total == 0, 0, jnp.sqrt(jnp.where(total == 0, 1, total)))
    return root * jnp.ldexp(jnp.ones([], dtype), exponent)


def cosine(a: Any, b: Any) -> jax.Array:
    """Cosine of the angle between two trees, in float32 or wider.

    Args:
        a: arrays.
        b: arrays of the same structure and shapes.

    Returns:
        A scalar in [-1, 1]; zero where one of the trees is zero.
    """
    norm_a, norm_b = norm(a), norm(b)
    # Each side is brought to unit length before the product, so nothing overflows.
    scale_a, scale_b = safe_inverse(norm_a), safe_inverse(norm_b)
    products = [
        jnp.sum((x * scale_a.astype(x.dtype)) * (y * scale_b.astype(y.dtype)))
        for x, y in zip(_wide_leaves(a), _wide_leaves(b), strict=True)
    ]
    return jnp.stack(products).sum() if products else jnp.zeros([], jnp.float32)


def safe_inverse(x: jax.Array, floor: float = 0.0) -> jax.Array:
    """Returns ``1 / max(x, floor)`` for x >= 0, and zero where ``x`` is zero."""
    return jnp.where(x == 0, 0, 1 / jnp.where(x == 0, 1, jnp.maximum(x, floor)))


def multiply(tree: Any, factor: jax.Array) -> Any:
    """Multiplies every leaf by a scalar in float32 or wider; dtypes stay.

    Args:
        tree: arrays.
        factor: a scalar.

    Returns:
        The products, in the leaves' own dtypes.
    """

    def times(x: jax.Array) -> jax.Array:
        wide = _wide(x)
        return (wide * jnp.asarray(factor).astype(wide.dtype)).astype(x.dtype)

    return jax.tree.map(times, tree)


def _wide(x: Any) -> jax.Array:
    x = jnp.asarray(x)
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def _wide_leaves(tree: Any) -> list[jax.Array]:
    return [_wide(x) for x in jax.tree.leaves(tree)]
