"""Trace, Frobenius norm and diagonal of a curvature matrix, from random vectors."""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import checks
from sam_jax.methods import numerics
from sam_jax.sharpness import products, spectrum


class Estimate(NamedTuple):
    """The mean of independent measurements.

    Attributes:
        value: the mean; a number, or a tree like the parameters.
        standard_error: of the mean, of the same form; NaN from a single measurement.
        evaluations: how many products with a vector, or losses, it took.
    """

    value: Any
    standard_error: Any
    evaluations: int


def trace(
    loss: products.Loss,
    params: Any,
    *,
    batches: Iterable[Any] | None = None,
    product: products.Product = products.hessian_product,
    probes: int = 32,
    deflate: int = 0,
    seed: int = 0,
) -> Estimate:
    r"""The sum of all eigenvalues, by Hutchinson's estimator.

    .. math::

        \operatorname{tr} H = \mathbb{E}\, z^\top H z, \qquad z_i = \pm 1

    With ``deflate`` the part of the matrix on that many directions (the span of H times
    random vectors) is summed exactly, and only the rest is estimated: Hutch++, better
    where few eigenvalues are large.

    Args:
        loss: ``loss(params)``, or ``loss(params, batch)`` with ``batches``.
        params: the parameters.
        batches: to average over.
        product: the matrix: `hessian_product` or `gauss_newton_product`.
        probes: random vectors, one product each; at least 2.
        deflate: directions, two products each; fewer than there are parameters.
        seed: of the random vectors.

    Returns:
        `Estimate`.

    References:
        Hutchinson, "A Stochastic Estimator of the Trace of the Influence Matrix for
        Laplacian Smoothing Splines", 1989; Meyer, Musco, Musco, Woodruff, "Hutch++:
        Optimal Stochastic Trace Estimation", 2021, `2010.09649
        <https://arxiv.org/abs/2010.09649>`_

    Example:
        >>> import jax.numpy as jnp
        >>> loss = lambda w: jnp.sum(jnp.array([1.0, 5.0, 3.0]) * w**2) / 2
        >>> print(trace(loss, jnp.ones(3)).value)  # exact for a diagonal matrix
        9.0
    """
    matrix, signs = _prepared(loss, params, batches, product, probes, seed)
    checks.integer("deflate", deflate, 0)
    if deflate >= spectrum.size(params):
        raise checks.BadValue("deflate must be fewer directions than parameters")
    # Rows that are still zero take nothing away.
    basis = jax.tree.map(
        lambda w: jnp.zeros((max(deflate, 1), *w.shape), numerics.wide(w).dtype),
        params,
    )
    exact = 0.0
    for i in range(deflate):
        image = matrix(params, signs(probes + i))
        direction = products.like(numerics.unit(_rest(basis, image)), params)
        basis = jax.tree.map(
            lambda q, v, i=i: q.at[i].set(v.astype(q.dtype)), basis, direction
        )
        exact += float(_dot(direction, matrix(params, direction)))
    samples = []
    for i in range(probes):
        z = products.like(_rest(basis, signs(i)), params)
        samples.append(float(_dot(z, matrix(params, z))))
    value, error = mean_and_error(np.array(samples))
    return Estimate(exact + value, error, probes + 2 * deflate)


def frobenius_norm(
    loss: products.Loss,
    params: Any,
    *,
    batches: Iterable[Any] | None = None,
    product: products.Product = products.hessian_product,
    probes: int = 32,
    seed: int = 0,
) -> Estimate:
    r"""The root of the sum of all squared entries, :math:`\sqrt{\mathbb{E} \|H z\|^2}`.

    Args:
        loss: ``loss(params)``, or ``loss(params, batch)`` with ``batches``.
        params: the parameters.
        batches: to average over.
        product: the matrix: `hessian_product` or `gauss_newton_product`.
        probes: random vectors, one product each; at least 2.
        seed: of the random vectors.

    Returns:
        `Estimate`; the error by the delta method.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = lambda w: jnp.sum(jnp.array([3.0, 4.0]) * w**2) / 2
        >>> print(frobenius_norm(loss, jnp.ones(2)).value)
        5.0
    """
    matrix, signs = _prepared(loss, params, batches, product, probes, seed)
    norms = [float(numerics.norm(matrix(params, signs(i)))) for i in range(probes)]
    square, error = mean_and_error(np.square(norms))
    value = float(np.sqrt(square))
    return Estimate(value, error / (2 * value) if value else error, probes)


def diagonal(
    loss: products.Loss,
    params: Any,
    *,
    batches: Iterable[Any] | None = None,
    product: products.Product = products.hessian_product,
    probes: int = 32,
    seed: int = 0,
) -> Estimate:
    r"""The diagonal, :math:`\mathbb{E}\, z \odot H z` with signs z.

    Args:
        loss: ``loss(params)``, or ``loss(params, batch)`` with ``batches``.
        params: the parameters.
        batches: to average over.
        product: the matrix: `hessian_product` or `gauss_newton_product`.
        probes: random vectors, one product each; at least 2.
        seed: of the random vectors.

    Returns:
        `Estimate` of trees like the parameters, float32 or wider.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = lambda w: jnp.sum(jnp.array([3.0, 4.0]) * w**2) / 2
        >>> print(diagonal(loss, jnp.ones(2)).value)
        [3. 4.]
    """
    matrix, signs = _prepared(loss, params, batches, product, probes, seed)
    sums = squares = jax.tree.map(lambda w: jnp.zeros_like(numerics.wide(w)), params)
    for i in range(probes):
        z = signs(i)
        sums, squares = _add(sums, squares, z, matrix(params, z))
    mean = jax.tree.map(lambda s: s / probes, sums)
    error = jax.tree.map(
        lambda s, m: jnp.sqrt(jnp.maximum(s / probes - m * m, 0) / (probes - 1)),
        *(squares, mean),
    )
    return Estimate(mean, error, probes)


def _prepared(
    loss: products.Loss,
    params: Any,
    batches: Iterable[Any] | None,
    product: products.Product,
    probes: int,
    seed: int,
) -> tuple[Any, Any]:
    """The matrix, and the i-th random vector of signs."""
    checks.integer("probes", probes, 2)
    checks.seed("seed", seed)
    matrix = spectrum.matrix_of(loss, params, product, batches)

    keys = functools.partial(jax.random.fold_in, jax.random.key(seed))
    return matrix, lambda i: _signs(keys(i), params)


@jax.jit
def _signs(key: jax.Array, params: Any) -> Any:
    """Random signs in the place of the parameters."""
    drawn = spectrum.random_like(key, params)
    return products.like(jax.tree.map(jnp.sign, drawn), params)


@jax.jit
def _rest(basis: Any, vector: Any) -> Any:
    """The part of a vector orthogonal to the rows of a basis."""
    return spectrum.orthogonal(basis, vector)[0]


@jax.jit
def _add(sums: Any, squares: Any, z: Any, image: Any) -> tuple[Any, Any]:
    new = jax.tree.map(lambda z, x: z * numerics.wide(x), z, image)
    squared = jax.tree.map(lambda s, x: s + x * x, squares, new)
    return jax.tree.map(jnp.add, sums, new), squared


_dot = jax.jit(numerics.dot)


def mean_and_error(samples: np.ndarray) -> tuple[float, float]:
    """Mean of independent measurements and its standard error."""
    products.finite("a measurement", samples.sum())
    error = samples.std(ddof=1) / np.sqrt(len(samples)) if len(samples) > 1 else np.nan
    return float(samples.mean()), float(error)
