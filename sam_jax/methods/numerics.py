"""Norms and angles of trees, safe in low precision and at the edges of the range."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp


def norm(tree: Any) -> jax.Array:
    """Global 2-norm over all leaves, in float32 or wider.

    It neither overflows nor underflows (float16 squares overflow beyond 256, float32
    ones beyond 1.8e19): the sum of squares is taken twice, the second time of entries
    times a power of two if the first one has left the range.

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
    plain = _sum(jnp.square(x) for x in leaves)
    limits = jnp.finfo(plain.dtype)
    in_range = (plain > limits.tiny**0.5) & (plain < jnp.inf)
    # Large enough to bring the square of the smallest normal number into the range, and
    # its inverse that of the largest.
    power = jnp.asarray(2.0 ** (limits.maxexp // 2 + 8), plain.dtype)
    factor = jnp.where(in_range, 1, jnp.where(plain < 1, power, 1 / power))
    total = _sum(jnp.square(x * factor.astype(x.dtype)) for x in leaves)
    return _root(total) / factor


def cosine(a: Any, b: Any) -> jax.Array:
    """Cosine of the angle between two trees, in float32 or wider.

    Args:
        a: arrays.
        b: arrays of the same structure and shapes.

    Returns:
        A scalar in [-1, 1]; zero where one of the trees is zero.
    """
    # Each side is brought to unit length before the product, so nothing overflows.
    inverse_a, inverse_b = safe_inverse(norm(a)), safe_inverse(norm(b))
    pairs = zip(_wide_leaves(a), _wide_leaves(b), strict=True)
    return _sum(
        (x * inverse_a.astype(x.dtype)) * (y * inverse_b.astype(y.dtype))
        for x, y in pairs
    )


def orthogonal(a: Any, b: Any) -> Any:
    r"""The part of ``a`` orthogonal to ``b``.

    .. math::

        a - \langle a, \hat b \rangle\, \hat b, \qquad \hat b = b / \|b\|

    Args:
        a: arrays.
        b: arrays of the same structure and shapes; zero leaves ``a`` as it is.

    Returns:
        Arrays of the dtypes of ``a``.

    Example:
        >>> import jax.numpy as jnp
        >>> print(orthogonal(jnp.array([1.0, 2.0]), jnp.array([0.0, 3.0])))
        [1. 0.]
    """
    inverse = safe_inverse(norm(b))
    # Not <a, b> / |b|^2, whose parts leave the range where the lengths are far apart.
    unit = jax.tree.map(lambda x: wide(x) * inverse.astype(wide(x).dtype), b)
    return combine((1.0, a), (-dot(a, unit), unit))


def dot(a: Any, b: Any) -> jax.Array:
    """Inner product over all leaves, summed in float32 or wider.

    Args:
        a: arrays.
        b: arrays of the same structure and shapes.

    Returns:
        A scalar, at least float32. Bring one side to unit length first if the product
        of the norms may overflow.
    """
    pairs = zip(_wide_leaves(a), _wide_leaves(b), strict=True)
    return _sum(x * y for x, y in pairs)


def combine(*terms: tuple[Any, Any]) -> Any:
    """The linear combination of trees, computed in float32 or wider.

    Args:
        terms: pairs of a scalar and a tree, the trees of the same structure and shapes.

    Returns:
        The sum, in the dtypes of the first tree.

    Example:
        >>> import jax.numpy as jnp
        >>> print(combine((2.0, jnp.array([1.0])), (-1.0, jnp.array([3.0]))))
        [-1.]
    """
    factors, trees = zip(*terms, strict=True)

    def add(*leaves: jax.Array) -> jax.Array:
        total = sum(
            jnp.asarray(factor).astype(x.dtype) * x
            for factor, x in zip(factors, map(wide, leaves), strict=True)
        )
        return jnp.asarray(total).astype(leaves[0].dtype)

    return jax.tree.map(add, *trees)


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
        product = wide(x) * jnp.asarray(factor).astype(wide(x).dtype)
        return product.astype(x.dtype)

    return jax.tree.map(times, tree)


def wide(x: Any) -> jax.Array:
    """The array in the dtype of our arithmetic: float64, or else float32."""
    x = jnp.asarray(x)
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def _wide_leaves(tree: Any) -> list[jax.Array]:
    return [wide(x) for x in jax.tree.leaves(tree)]


def _sum(arrays: Iterable[jax.Array]) -> jax.Array:
    """Sum of all entries of all arrays, float32 if there are none."""
    sums = [jnp.sum(x) for x in arrays]
    widest = max((x.dtype for x in sums), key=lambda d: d.itemsize, default=jnp.float32)
    return jnp.stack([x.astype(widest) for x in [jnp.zeros([], widest), *sums]]).sum()


def _root(x: jax.Array) -> jax.Array:
    """Square root whose derivative at zero is zero, not infinite."""
    return jnp.where(x == 0, 0, jnp.sqrt(jnp.where(x == 0, 1, x)))
