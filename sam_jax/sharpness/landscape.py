"""The loss along lines and planes through the parameters, and along a training run."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import checks
from sam_jax.methods import numerics
from sam_jax.sharpness import products, spectrum


class Slice(NamedTuple):
    """Losses at points of a line or plane.

    Attributes:
        coordinates: one array of numbers for each direction.
        losses: [points of the first direction, points of the second one], or [points].
    """

    coordinates: tuple[np.ndarray, ...]
    losses: np.ndarray


class Trajectory(NamedTuple):
    """Some points of a training run, in the plane of their largest spread.

    Attributes:
        directions: two trees like the parameters, of length 1, orthogonal.
        coordinates: [points, 2], from the last point; give them to `landscape`.
        explained: [2], the part of the variance along each direction.
    """

    directions: tuple[Any, Any]
    coordinates: np.ndarray
    explained: np.ndarray


def random_direction(
    params: Any, seed: int = 0, *, normalize: Literal["filter", "none"] = "filter"
) -> Any:
    """A random direction, in proportion to the weights filter by filter.

    Args:
        params: the parameters; the last axis of an array counts its filters.
        seed: of the draw.
        normalize: ``"filter"``: each filter has the norm of the weights' filter, and
            arrays of less than two dimensions are left at zero, so that two networks
            look the same that differ by a factor for each layer. ``"none"``: length 1
            in all.

    Returns:
        A tree like the parameters.

    References:
        Li, Xu, Taylor, Studer, Goldstein, "Visualizing the Loss Landscape of Neural
        Nets", NeurIPS 2018, `1712.09913 <https://arxiv.org/abs/1712.09913>`_

    Example:
        >>> import jax.numpy as jnp
        >>> w = jnp.array([[3.0, 0.0], [4.0, 0.0]])
        >>> print(jnp.linalg.norm(random_direction(w), axis=0))
        [5. 0.]
    """
    checks.seed("seed", seed)
    checks.one_of("normalize", normalize, ("filter", "none"))
    return _random_direction(jax.random.key(seed), params, normalize)


@functools.partial(jax.jit, static_argnums=2)
def _random_direction(key: jax.Array, params: Any, normalize: str) -> Any:
    drawn = spectrum.random_like(key, params)
    if normalize == "none":
        return products.like(numerics.unit(drawn), params)

    def of_filters(d: jax.Array, w: jax.Array) -> jax.Array:
        if w.ndim < 2:
            return jnp.zeros_like(w)
        axes = tuple(range(w.ndim - 1))
        own, wanted = (
            jnp.sqrt(jnp.sum(numerics.wide(x) ** 2, axes, keepdims=True))
            for x in (d, w)
        )
        return (d * wanted / own).astype(w.dtype)

    return jax.tree.map(of_filters, drawn, params)


def landscape(
    loss: products.Loss,
    params: Any,
    directions: Sequence[Any],
    *coordinates: Any,
    batches: Iterable[Any] | None = None,
) -> Slice:
    """The loss at ``params + a * first + b * second``.

    Args:
        loss: ``loss(params)``, or ``loss(params, batch)`` with ``batches``.
        params: the centre.
        directions: one or two trees like the parameters: `random_direction`, the
            eigenvectors of `top_eigenvalues`, the plane of a `trajectory`.
        *coordinates: for each direction, the numbers to multiply it with; without them
            21 from -1 to 1.
        batches: to average over. BatchNorm statistics are what ``loss`` makes of them.

    Returns:
        `Slice`. A loss that overflows is infinite or NaN in it.

    Example:
        >>> import jax.numpy as jnp
        >>> w = jnp.ones(2)
        >>> print(landscape(lambda w: jnp.sum(w**2), w, [w], [-1, 0]).losses)
        [0. 2.]
    """
    if len(directions) not in (1, 2):
        raise checks.BadValue(f"give one or two directions, got {len(directions)}")
    given = coordinates or (np.linspace(-1, 1, 21),) * len(directions)
    axes = tuple(np.asarray(c, float) for c in given)
    if len(axes) != len(directions) or any(a.ndim != 1 or not a.size for a in axes):
        raise checks.BadValue("give a list of numbers for each direction")
    mean_loss = products.mean_over(batches, products.checked(loss, params, batches))
    losses = [
        float(mean_loss(_point(params, directions, jnp.asarray(along, jnp.float32))))
        for along in np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(
            -1, len(axes)
        )
    ]
    return Slice(axes, np.array(losses).reshape([a.size for a in axes]))


@jax.jit
def _point(params: Any, directions: Sequence[Any], along: jax.Array) -> Any:
    return numerics.combine((1.0, params), *zip(along, directions, strict=True))


def between(start: Any, end: Any, t: Any, *, bend: Any = None) -> Any:
    """A point of the line from one tree to another.

    Args:
        start: the parameters at 0.
        end: those at 1.
        t: a number in [0, 1].
        bend: None for the straight line, or the control point of a quadratic Bezier
            curve; train it by descending ``loss(between(start, end, t, bend=bend))`` at
            random t.

    Returns:
        A tree like ``start``.

    References:
        Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, "Loss Surfaces, Mode
        Connectivity, and Fast Ensembling of DNNs", NeurIPS 2018, `1802.10026
        <https://arxiv.org/abs/1802.10026>`_, equation 6

    Example:
        >>> import jax.numpy as jnp
        >>> print(between(jnp.zeros(1), jnp.ones(1), 0.5, bend=jnp.full(1, 2.0)))
        [1.25]
    """
    if bend is None:
        return numerics.combine((1 - t, start), (t, end))
    return numerics.combine(((1 - t) ** 2, start), (2 * t * (1 - t), bend), (t**2, end))


def path(
    loss: products.Loss,
    start: Any,
    end: Any,
    *,
    bend: Any = None,
    points: int = 21,
    batches: Iterable[Any] | None = None,
) -> Slice:
    """The loss on the line between two sets of parameters, such as two checkpoints.

    Args:
        loss: ``loss(params)``, or ``loss(params, batch)`` with ``batches``. BatchNorm's
            running statistics of neither end belong to the points between: take the
            batch's own in ``loss``.
        start: the parameters at 0.
        end: those at 1.
        bend: see `between`.
        points: how many, both ends included.
        batches: to average over.

    Returns:
        `Slice`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(path(jnp.sum, jnp.zeros(1), jnp.ones(1), points=3).losses)
        [0.  0.5 1. ]
    """
    checks.integer("points", points, 2)
    if jax.tree.structure(start) != jax.tree.structure(end) or any(
        a.shape != b.shape
        for a, b in zip(*map(jax.tree.leaves, (start, end)), strict=True)
    ):
        raise checks.BadValue("start and end are parameters of different networks")
    mean_loss = products.mean_over(batches, products.checked(loss, start, batches))
    along = np.linspace(0, 1, points)
    losses = [float(mean_loss(_between(start, end, t, bend=bend))) for t in along]
    return Slice((along,), np.array(losses))


_between = jax.jit(between)


def trajectory(checkpoints: Sequence[Any]) -> Trajectory:
    """The plane in which the points of a training run spread most (PCA).

    Args:
        checkpoints: at least three trees of parameters; the last one is the origin.

    Returns:
        `Trajectory`.

    Example:
        >>> import jax.numpy as jnp
        >>> walk = [jnp.array([2.0, 1.0, 0.0]), jnp.array([1.0, 0, 0]), jnp.zeros(3)]
        >>> found = trajectory(walk)
        >>> print(found.explained.sum().round(3))
        1.0
    """
    if len(checkpoints) < 3:
        raise checks.BadValue(
            f"a plane needs at least three checkpoints, got {len(checkpoints)}"
        )
    last = checkpoints[-1]
    steps = [numerics.combine((1.0, c), (-1.0, last)) for c in checkpoints[:-1]]
    gram = np.array([[numerics.dot(a, b) for a in steps] for b in steps])
    rounding = np.finfo(gram.dtype).eps
    squares, parts = np.linalg.eigh(gram.astype(float))
    if squares[-2] <= 100 * rounding * squares[-1]:
        raise checks.BadValue("the checkpoints are on one line, or are all the same")
    directions = tuple(
        numerics.combine(
            *(
                (p / np.sqrt(squares[i]), s)
                for p, s in zip(parts[:, i], steps, strict=True)
            )
        )
        for i in (-1, -2)
    )
    coordinates = np.array(
        [[float(numerics.dot(s, d)) for d in directions] for s in steps] + [[0.0, 0.0]]
    )
    return Trajectory(
        (directions[0], directions[1]), coordinates, squares[[-1, -2]] / squares.sum()
    )
