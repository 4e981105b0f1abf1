"""Eigenvalues of a curvature matrix, and the density of all of them."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from sam_jax import checks
from sam_jax.methods import noise, numerics
from sam_jax.sharpness import products

# A Krylov vector of this part of the matrix' size is rounding: the space is complete.
_BREAKDOWN = 8.0


class Eigenvalues(NamedTuple):
    """The largest eigenvalues of a symmetric matrix.

    Attributes:
        values: [k], the largest first.
        vectors: a tree like the parameters, of unit length, with a leading axis k.
        residuals: [k], the norms of ``H v - value * v``, as Lanczos knows them.
        products: how many products with a vector it took.
    """

    values: Any
    vectors: Any
    residuals: Any
    products: int


class Density(NamedTuple):
    r"""The spectral density: the part of the eigenvalues near each number.

    Attributes:
        grid: [points], eigenvalues.
        values: [points], density; its integral is 1.
        nodes: [probes, steps], Ritz values.
        weights: [probes, steps], of the nodes; each row sums to 1.
        products: how many products with a vector it took.
    """

    grid: np.ndarray
    values: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray
    products: int


class _Krylov(NamedTuple):
    """The first steps of Lanczos; rows beyond them are zero."""

    basis: Any  # each leaf [steps + 1, ...]
    alphas: Any  # [steps], diagonal of the tridiagonal matrix
    betas: Any  # [steps], below it


def top_eigenvalues(
    loss: products.Loss,
    params: Any,
    k: int = 1,
    *,
    batches: Iterable[Any] | None = None,
    product: products.Product = products.hessian_product,
    tolerance: float = 1e-2,
    steps: int = 100,
    seed: int = 0,
) -> Eigenvalues:
    """The k largest eigenvalues and their vectors, by Lanczos.

    With full reorthogonalization. It ends when all k residuals are below
    ``tolerance * |value|``, or after ``steps`` products: look at the residuals. Memory:
    a copy of the parameters for each product. Inside of ``jax.jit`` it takes all steps,
    in a loop.

    Args:
        loss: ``loss(params)``, or ``loss(params, batch)`` with ``batches``.
        params: the parameters.
        k: how many, at most as many as there are parameters.
        batches: to average over; iterated once for every product.
        product: the matrix: `hessian_product` or `gauss_newton_product`.
        tolerance: of the residuals, relative to the eigenvalues.
        steps: at most this many products, at least k.
        seed: of the first vector.

    Returns:
        `Eigenvalues`; on a matrix of the negative loss the smallest ones, negated.

    Raises:
        ValueError: if ``k`` is larger than the number of parameters or of steps, or the
            loss is not a finite scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = lambda w: jnp.sum(jnp.array([1.0, 5.0, 3.0]) * w**2) / 2
        >>> found = top_eigenvalues(loss, jnp.ones(3), k=2)
        >>> print(found.values.round(4))
        [5. 3.]
    """
    checks.integer("k", k, 1)
    checks.integer("steps", steps, k)
    checks.positive("tolerance", tolerance)
    checks.seed("seed", seed)
    parameters = size(params)
    if k > parameters:
        raise checks.BadValue(f"k must be at most the {parameters} parameters, got {k}")
    matrix = matrix_of(loss, params, product, batches)

    def converged(alphas: np.ndarray, betas: np.ndarray) -> bool:
        values, _, residuals = _ritz(np, alphas, betas)
        return len(values) >= k and bool(
            np.all(residuals[:k] <= tolerance * np.abs(values[:k]))
        )

    krylov = _lanczos(
        matrix, params, min(steps, parameters), jax.random.key(seed), converged
    )
    traced = isinstance(krylov.alphas, jax.core.Tracer)
    module = jnp if traced else np
    values, coordinates, residuals = _ritz(module, krylov.alphas, krylov.betas)
    count = len(krylov.alphas)
    rows = jax.tree.leaves(krylov.basis)[0].shape[0]
    chosen = module.pad(coordinates[:, :k], [(0, rows - count), (0, 0)])
    vectors = _combined(chosen, krylov.basis)
    return Eigenvalues(values[:k], vectors, residuals[:k], count)


@jax.jit
def _combined(coordinates: Any, basis: Any) -> Any:
    """Sums of the rows of a basis, by coordinates [rows, k]."""
    return jax.tree.map(
        lambda q: jnp.tensordot(
            coordinates.T.astype(q.dtype), q, axes=1, precision="highest"
        ),
        basis,
    )


def density(
    loss: products.Loss,
    params: Any,
    *,
    batches: Iterable[Any] | None = None,
    product: products.Product = products.hessian_product,
    probes: int = 4,
    steps: int = 40,
    points: int = 512,
    width: float | None = None,
    seed: int = 0,
) -> Density:
    r"""The density of all eigenvalues, by stochastic Lanczos quadrature.

    .. math::

        \phi(\lambda) = \frac{1}{p} \sum_i \sum_j \tau_{ij}\,
        \mathcal{N}(\lambda;\ \theta_{ij}, \sigma^2)

    with the Ritz values and weights of p random vectors.

    Args:
        loss: ``loss(params)``, or ``loss(params, batch)`` with ``batches``.
        params: the parameters.
        batches: to average over.
        product: the matrix: `hessian_product` or `gauss_newton_product`.
        probes: random vectors p.
        steps: products for each.
        points: of the grid, from below the smallest Ritz value to above the largest.
        width: :math:`\sigma`; None takes a hundredth of the range.
        seed: of the random vectors.

    Returns:
        `Density`.

    References:
        Ghorbani, Krishnan, Xiao, "An Investigation into Neural Net Optimization via
        Hessian Eigenvalue Density", ICML 2019, `1901.10159
        <https://arxiv.org/abs/1901.10159>`_

    Example:
        >>> import jax.numpy as jnp
        >>> loss = lambda w: jnp.sum(jnp.array([1.0, 5.0, 3.0]) * w**2) / 2
        >>> found = density(loss, jnp.ones(3), probes=50)
        >>> print(round(float((found.nodes * found.weights).sum(1).mean())))  # the mean
        3
    """
    for name, value in {"probes": probes, "steps": steps, "points": points}.items():
        checks.integer(name, value, 1)
    checks.seed("seed", seed)
    if width is not None:
        checks.positive("width", width)
    matrix = matrix_of(loss, params, product, batches)
    steps = min(steps, size(params))
    nodes, weights = np.zeros((2, probes, steps))
    for i in range(probes):
        key = jax.random.fold_in(jax.random.key(seed), i)
        krylov = _lanczos(matrix, params, steps, key, lambda *_: False)
        values, coordinates, _ = _ritz(np, *krylov[1:])
        nodes[i], weights[i] = values, coordinates[0] ** 2
    low, high = nodes.min(), nodes.max()
    sigma = width or max(high - low, abs(high), 1e-30) / 100
    grid = np.linspace(low - 4 * sigma, high + 4 * sigma, points)
    bumps = np.exp(-(((grid[:, None, None] - nodes) / sigma) ** 2) / 2)
    values = (bumps * weights).sum(2).mean(1) / (sigma * np.sqrt(2 * np.pi))
    return Density(grid, values, nodes, weights, probes * steps)


def matrix_of(
    loss: products.Loss,
    params: Any,
    product: products.Product,
    batches: Iterable[Any] | None,
) -> Callable[[Any, Any], Any]:
    """Checks the loss; the matrix, compiled, as ``(params, vector) -> vector``."""
    loss = products.checked(loss, params, batches)
    return products.mean_over(batches, loss.program(product))


def size(params: Any) -> int:
    """How many parameters there are."""
    return sum(x.size for x in jax.tree.leaves(params))


def random_like(key: jax.Array, params: Any) -> Any:
    """Independent normal numbers in the place of the parameters, float32 or wider."""
    return noise.normal_like(key, jax.tree.map(numerics.wide, params))


def _lanczos(
    matrix: Callable[[Any, Any], Any],
    params: Any,
    steps: int,
    key: jax.Array,
    converged: Callable[[np.ndarray, np.ndarray], bool],
) -> _Krylov:
    """Up to that many steps, from a random vector.

    On the host, one after the other, until ``converged(alphas, betas)``; under a trace
    all of them, in a loop.
    """
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(params))
    room = steps if traced else min(steps, 16)
    krylov = _grown(_start(params, key), room)

    def step(i: Any, krylov: _Krylov) -> _Krylov:
        image = matrix(params, _row(krylov.basis, i, params))
        return _extend(krylov, image, i, jax.random.fold_in(key, 1 + i))

    if traced:
        return jax.lax.fori_loop(0, steps, step, krylov)
    for i in range(steps):
        if i == room:
            krylov = _grown(krylov, min(steps, 2 * room) - room)
            room = min(steps, 2 * room)
        krylov = step(i, krylov)
        # Cut on the host: on the device each length is a program.
        alphas, betas = (np.asarray(x)[: i + 1] for x in krylov[1:])
        products.finite("a product of the matrix", alphas[i])
        if i + 1 == steps or converged(alphas, betas):
            return _Krylov(krylov.basis, alphas, betas)
    raise AssertionError("at least one step is asked for")


@jax.jit
def _row(basis: Any, i: Any, params: Any) -> Any:
    """Row i of a basis, in the dtypes of the parameters."""
    return products.like(jax.tree.map(lambda q: q[i], basis), params)


@jax.jit
def _start(params: Any, key: jax.Array) -> _Krylov:
    vector = numerics.unit(random_like(key, params))
    dtype = numerics.norm(vector).dtype
    return _Krylov(
        basis=jax.tree.map(lambda v: v[None], vector),
        alphas=jnp.zeros(0, dtype),
        betas=jnp.zeros(0, dtype),
    )


@functools.partial(jax.jit, static_argnums=1)
def _grown(krylov: _Krylov, more: int) -> _Krylov:
    """With room for more steps."""

    def longer(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, more)] + [(0, 0)] * (x.ndim - 1))

    return jax.tree.map(longer, krylov)


@jax.jit
def _extend(krylov: _Krylov, image: Any, i: Any, key: jax.Array) -> _Krylov:
    """One more step: the image of basis vector i, made orthogonal to all of them."""
    size = numerics.norm(image)
    vector, along = orthogonal(krylov.basis, image)
    alpha = along[i]
    beta = numerics.norm(vector)
    limit = _BREAKDOWN * jnp.finfo(beta.dtype).eps * size
    # The space is invariant: another one begins, from a vector orthogonal to it.
    other, _ = orthogonal(krylov.basis, random_like(key, image))
    complete = beta <= limit
    vector = jax.tree.map(lambda a, b: jnp.where(complete, b, a), vector, other)
    beta = jnp.where(complete, 0, beta)
    following = numerics.unit(vector)
    return _Krylov(
        jax.tree.map(
            lambda q, v: jax.lax.dynamic_update_index_in_dim(
                q, v.astype(q.dtype), i + 1, axis=0
            ),
            *(krylov.basis, following),
        ),
        krylov.alphas.at[i].set(alpha),
        krylov.betas.at[i].set(beta),
    )


def orthogonal(basis: Any, vector: Any) -> tuple[Any, jax.Array]:
    """The part of a vector orthogonal to the rows of a basis, and the coordinates."""
    vector = jax.tree.map(lambda q, v: v.astype(q.dtype), basis, vector)
    first, along = _without(basis, vector)
    second, rest = _without(basis, first)  # once leaves too much by rounding
    return second, along + rest


def _without(basis: Any, vector: Any) -> tuple[Any, jax.Array]:
    # Over the arrays' own axes: flattened, those that are cut over devices would meet.
    parts = jax.tree.map(
        lambda q, v: jnp.tensordot(
            q,
            v,
            axes=(list(range(1, q.ndim)), list(range(v.ndim))),
            precision="highest",
        ),
        *(basis, vector),
    )
    along = jnp.sum(jnp.stack(jax.tree.leaves(parts)), axis=0)
    return jax.tree.map(
        lambda q, v: (
            v - jnp.tensordot(along.astype(q.dtype), q, 1, precision="highest")
        ),
        *(basis, vector),
    ), along


def _ritz(module: Any, alphas: Any, betas: Any) -> tuple[Any, Any, Any]:
    """Eigenvalues, the largest first, eigenvectors and residuals of a tridiagonal."""
    below = betas[: len(alphas) - 1]
    matrix = module.diag(alphas) + module.diag(below, 1) + module.diag(below, -1)
    values, vectors = module.linalg.eigh(matrix)
    values, vectors = values[::-1], vectors[:, ::-1]
    return values, vectors, module.abs(betas[len(alphas) - 1] * vectors[-1])
