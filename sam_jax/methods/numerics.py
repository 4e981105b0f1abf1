"""Norms and angles of trees, safe in low precision and at the edges of the range."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp


def norm(tree: Any) -> jax.Array:
    """Global 2-norm over all leaves, in float32 or wider.

    It neither overflows nor underflows (float16 squares overflow beyond 256, float32
    ones beyond 1.8e19): the sum of squares is taken twice, the second time of entries
    times a power of two if the first one has left the range. Subnormal numbers count
    as zero where the backend takes them for that, as XLA's does on a CPU.

    Args:
        tree: arrays of any shapes and real dtypes.

    Returns:
        A scalar, at least float32; zero for a tree without leaves.

    Example:
        >>> import jax.numpy as jnp
        >>> float(norm({"a": jnp.array([3e30]), "b": jnp.array([4e30])}) / 1e30)
        5.0
    """
    return norm_and_shares(tree)[0]


def norm_and_shares(tree: Any) -> tuple[jax.Array, jax.Array]:
    """The `norm`, and the share of each leaf in its square, [leaves].

    The shares are zero where that square is zero, or out of the range of floats.
    """
    leaves = jax.tree.leaves(tree)
    sums = _sums(jnp.square(x) for x in _common(leaves))
    plain = sums.sum()
    limits = jnp.finfo(plain.dtype)
    in_range = (plain > limits.tiny**0.5) & (plain < jnp.inf)
    # Large enough to bring the square of the smallest normal number into the range, and
    # its inverse that of the largest.
    power = jnp.asarray(2.0 ** (limits.maxexp // 2 + 8), plain.dtype)
    factor = jnp.where(in_range, 1, jnp.where(plain < 1, power, 1 / power))
    leaves, factor = _unknown(leaves, factor)
    total = _sum(jnp.square(x * factor) for x in _common(leaves))
    shares = jnp.where(in_range, sums[1:] / jnp.where(in_range, plain, 1), 0)
    return _root(total) / factor, shares


def quotient(
    a: jax.Array | float, b: jax.Array, floor: float | jax.Array = 0.0
) -> tuple[jax.Array, jax.Array]:
    """``a / max(b, floor)`` as the product of two factors, for `multiply`.

    Args:
        a: a finite number >= 0.
        b: a norm.
        floor: of ``b``.

    Returns:
        A power of two, 1 unless the quotient or ``1 / b`` leaves the range of normal
        numbers, and the rest. Zero where ``b`` is zero.
    """
    a, floor = jnp.asarray(a, b.dtype), jnp.asarray(floor, b.dtype)
    limits = jnp.finfo(b.dtype)
    low, high = 4 * limits.tiny, limits.max / 4
    length = jnp.maximum(b, floor)
    whole = jnp.where(b > high, a / length, a * safe_inverse(b, floor))
    small = (whole < low) & (a > 0) & (b > 0)
    large = whole > high
    # No product with an entry leaves the range that would be in it with both.
    power = jnp.asarray(2.0 ** (limits.maxexp - 4), b.dtype)
    part = jnp.where(small, 1 / power, jnp.where(large, power, 1))
    rest = jnp.where(large, a / (length * power), whole)
    return part, jnp.where(small, a * power / length, rest)


def unit(tree: Any, floor: float | jax.Array = 0.0) -> Any:
    """A tree divided by its norm, or by ``floor`` if that is larger; zero for zero."""
    return multiply(tree, *quotient(1.0, norm(tree), floor))


def cosine(a: Any, b: Any) -> jax.Array:
    """Cosine of the angle between two trees, in float32 or wider.

    Args:
        a: arrays.
        b: arrays of the same structure and shapes.

    Returns:
        A scalar in [-1, 1]; zero where one of the trees is zero.
    """
    # Each side is brought to unit length before the product, so nothing overflows.
    return dot(_unit(a), _unit(b))


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
    # Not <a, b> / |b|^2, whose parts leave the range where the lengths are far apart.
    along = _unit(b)
    return combine((1.0, a), (-dot(a, along), along))


def dot(a: Any, b: Any) -> jax.Array:
    """Inner product over all leaves, summed in float32 or wider.

    Args:
        a: arrays.
        b: arrays of the same structure and shapes.

    Returns:
        A scalar, at least float32. Bring one side to unit length first if the product
        of the norms may overflow.
    """
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return _sum(x * y for x, y in map(_common, pairs))


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
        def total(scale: float) -> Any:
            return sum(
                jnp.asarray(factor).astype(x.dtype) * scale * x
                for factor, x in zip(factors, map(wide, leaves), strict=True)
            )

        plain = total(1.0)
        # Terms that cancel may be beyond the largest number, each of them.
        small = 2.0**-16
        found = jnp.where(jnp.isfinite(plain), plain, total(small) / small)
        return found.astype(leaves[0].dtype)

    return jax.tree.map(add, *trees)


def safe_inverse(x: jax.Array, floor: float | jax.Array = 0.0) -> jax.Array:
    """Returns ``1 / max(x, floor)`` for x >= 0, and zero where ``x`` is zero."""
    return jnp.where(x == 0, 0, 1 / jnp.where(x == 0, 1, jnp.maximum(x, floor)))


def multiply(tree: Any, *factors: Any) -> Any:
    """Multiplies every leaf by scalars, one by one, in float32 or wider; dtypes stay.

    Args:
        tree: arrays.
        factors: scalars.

    Returns:
        The products, in the leaves' own dtypes.
    """
    return jax.tree.map(
        lambda x, product: product.astype(x.dtype), tree, _products(tree, *factors)
    )


def added(params: Any, displacement: Any) -> Any:
    """What is left of a displacement when it has been added to the parameters.

    Args:
        params: arrays.
        displacement: arrays of the same structure and shapes.

    Returns:
        Arrays, float32 or wider: in leaves narrower than float32 what rounding leaves,
        in the others the displacement.
    """

    def difference(w: jax.Array, e: jax.Array) -> jax.Array:
        if wide(w).dtype == w.dtype:
            return e
        return wide(_moved(w, e)) - wide(w)

    return jax.tree.map(difference, params, displacement)


def moved(params: Any, displacement: Any) -> Any:
    """Displaced parameters, in their own dtypes.

    Args:
        params: arrays.
        displacement: arrays of the same structure and shapes.

    Returns:
        The sums.

    Example:
        >>> import jax.numpy as jnp
        >>> print(moved(jnp.ones(1, jnp.bfloat16), jnp.full(1, 1e-3, jnp.bfloat16)))
        [1]
    """
    return jax.tree.map(_moved, params, displacement)


def _moved(w: jax.Array, e: jax.Array) -> jax.Array:
    if wide(w).dtype == w.dtype:
        return (w + e).astype(w.dtype)
    # A compiled program may keep the digits that the dtype does not have.
    limits = jnp.finfo(w.dtype)
    rounded = jax.lax.reduce_precision(wide(w) + wide(e), limits.nexp, limits.nmant)
    return rounded.astype(w.dtype)


def wide(x: Any) -> jax.Array:
    """The array in the dtype of our arithmetic: float64, or else float32."""
    x = jnp.asarray(x)
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def wide_tree(tree: Any) -> Any:
    """The arrays as `wide` has them."""
    return jax.tree.map(wide, tree)


def _common(leaves: Iterable[Any]) -> list[jax.Array]:
    """The arrays in one dtype: that of the widest, float32 if there are none."""
    arrays = [wide(x) for x in leaves]
    widest = max((x.dtype for x in arrays), key=lambda d: d.itemsize, default=None)
    return [x.astype(widest) for x in arrays]


def _unit(tree: Any) -> Any:
    """As `unit`, not rounded to the dtypes of the leaves."""
    return _products(tree, *quotient(1.0, norm(tree)))


def _products(tree: Any, *factors: Any) -> Any:
    if len(factors) > 1:
        tree, factors = _unknown(tree, factors)

    def times(x: Any) -> jax.Array:
        product = wide(x)
        # In the wider dtype: the norm of other leaves may be out of the range of this.
        for factor in map(wide, factors):
            widest = max(product.dtype, factor.dtype, key=lambda d: d.itemsize)
            product = product.astype(widest) * factor.astype(widest)
        return product

    return jax.tree.map(times, tree)


def _unknown(*trees: Any) -> Any:
    """The arrays, as such that XLA does not know when it compiles.

    From ``(x * y) * (x * y)`` with a constant ``x`` or ``y`` it makes
    ``(x * x) * (y * y)``, which for 0 and 2**72 is zero times infinity.
    """
    return jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, trees))


def _sum(arrays: Iterable[jax.Array]) -> jax.Array:
    """Sum of all entries of all arrays, float32 if there are none."""
    return _sums(arrays).sum()


def _sums(arrays: Iterable[jax.Array]) -> jax.Array:
    """A zero, and the sum of the entries of each array."""
    sums = _common(jnp.sum(x) for x in arrays)
    zero = jnp.zeros_like(sums[0]) if sums else jnp.zeros([], jnp.float32)
    return jnp.stack([zero, *sums])


def _root(x: jax.Array) -> jax.Array:
    """Square root whose derivative at zero is zero, not infinite."""
    return jnp.where(x == 0, 0, jnp.sqrt(jnp.where(x == 0, 1, x)))
