"""Problems whose examples are drawn for the moment: no data set, no epoch."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.theory import problems


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Stream(problems.Problem):
    """An expectation f(x) = E l(x; z), and what is known about it.

    Attributes:
        draw: key -> loss of an example, x [d] -> l(x; z).
        largest_smoothness: of l(.; z) for all z, L_max.
        interpolation_gap: sigma* = f* - E inf l(.; z).
    """

    draw: Callable[[jax.Array], problems.Value]
    largest_smoothness: float
    interpolation_gap: float


def least_squares(dimension: int, condition: float, noise: float, seed: int) -> Stream:
    """Least squares on examples a = sqrt(d S) u, u uniform on the sphere.

    E a a^T = S is diagonal with eigenvalues log-spaced from 1 / condition to 1; the
    target is a . x* + noise * (a fair sign), so that f* = noise^2 / 2.

    Args:
        dimension: d >= 2.
        condition: of S, >= 1.
        noise: >= 0; 0 interpolates.
        seed: of x*, standard normal.

    Returns:
        The stream; it starts at the origin.

    Raises:
        ValueError: if an argument is outside its range.
    """
    if dimension < 2 or condition < 1 or noise < 0:
        raise ValueError(
            "dimension must be >= 2, condition >= 1 and noise >= 0, got "
            f"{dimension!r}, {condition!r} and {noise!r}"
        )
    spectrum = np.geomspace(1 / condition, 1.0, dimension)
    minimizer = np.random.default_rng(seed).normal(size=dimension)

    def draw(key: jax.Array) -> problems.Value:
        direction_key, sign_key = jax.random.split(key)
        normal = jax.random.normal(direction_key, (dimension,), float)
        row = jnp.sqrt(dimension * spectrum) * normal / jnp.linalg.norm(normal)
        sign = jax.random.rademacher(sign_key, (), float)
        target = row @ minimizer + noise * sign
        return lambda x: (row @ x - target) ** 2 / 2

    def value(x: jax.Array) -> jax.Array:
        return jnp.sum(spectrum * (x - minimizer) ** 2) / 2 + noise**2 / 2

    return Stream(
        value=value,
        start=np.zeros(dimension),
        smoothness=1.0,
        minimum=noise**2 / 2,
        minimizer=minimizer,
        strong_convexity=1 / condition,
        pl=1 / condition,
        convex=True,
        draw=draw,
        # ||a||^2 <= d * (largest eigenvalue); each example alone is fitted exactly.
        largest_smoothness=float(dimension),
        interpolation_gap=noise**2 / 2,
    )
