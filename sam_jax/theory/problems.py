"""Objectives with known constants: minimum, smoothness, curvature.

``start`` is the point to start from. If the constants hold only in a ball around the
origin, ``radius`` is the radius of this ball. The property tests check all constants at
random points.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

Value = Callable[[jax.Array], jax.Array]  # x [d] -> f(x), a scalar


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A function to minimize, and its known constants.

    Attributes:
        value: x [d] -> f(x), a scalar; differentiable by JAX.
        start: a point to start from, [d].
        smoothness: L, a Lipschitz constant of the gradient.
        minimum: f*, the infimum; a lower bound of it where ``minimizer`` is None.
        minimizer: a point where f is ``minimum``, [d], or None if none is known.
        strong_convexity: mu >= 0; 0 makes no claim.
        pl: constant of the Polyak-Lojasiewicz inequality,
            ||grad f||^2 >= 2 pl (f - f*); 0 makes no claim.
        convex: whether f is known to be convex.
        radius: the constants hold where ||x|| <= radius.
    """

    value: Value
    start: np.ndarray
    smoothness: float
    minimum: float
    minimizer: np.ndarray | None = None
    strong_convexity: float = 0.0
    pl: float = 0.0
    convex: bool = False
    radius: float = math.inf

    def gradient(self, x: jax.Array) -> jax.Array:
        """Gradient of f at x, [d]."""
        return jax.grad(self.value)(x)

    def squared_gradient(self, x: jax.Array) -> jax.Array:
        """||grad f||^2 at x, a scalar."""
        return jnp.sum(self.gradient(x) ** 2)

    def gap(self, x: jax.Array) -> jax.Array:
        """f(x) - f*, a scalar."""
        return self.value(x) - self.minimum


def quadratic(eigenvalues: Sequence[float], start: Sequence[float]) -> Problem:
    """The quadratic f(x) = sum_i l_i x_i^2 / 2 with its minimum 0 at the origin.

    Raises:
        ValueError: if an eigenvalue l_i is not positive or the lengths differ.

    Example:
        >>> problem = quadratic([1.0, 10.0], [1.0, 1.0])
        >>> problem.smoothness, problem.pl, float(problem.gap(jnp.ones(2)))
        (10.0, 1.0, 5.5)
    """
    curvature = np.asarray(eigenvalues, np.float64)
    if len(curvature) != len(start) or not (curvature > 0).all():
        raise ValueError(
            "eigenvalues must be positive numbers, one for each entry of start, got "
            f"{eigenvalues!r} for {start!r}"
        )
    return Problem(
        value=lambda x: jnp.sum(curvature * x**2) / 2,
        start=np.asarray(start, np.float64),
        smoothness=float(curvature.max()),
        minimum=0.0,
        minimizer=np.zeros(len(curvature)),
        strong_convexity=float(curvature.min()),
        pl=float(curvature.min()),
        convex=True,
    )


def power(exponent: float, start: float = 1.0) -> Problem:
    """The flat minimum f(x) = |x|^p on the line, 0 at 0; the larger p, the flatter.

    A Kurdyka-Lojasiewicz function with exponent q = 1 - 1/p. Constants hold where |x|
    <= |start|.

    Raises:
        ValueError: if the exponent p is below 2 or the start is 0.
    """
    if exponent < 2 or start == 0:
        raise ValueError(
            f"exponent must be >= 2 and start not 0, got {exponent!r} and {start!r}"
        )
    curvature = exponent * (exponent - 1) * abs(start) ** (exponent - 2)
    return Problem(
        value=lambda x: jnp.sum(jnp.abs(x) ** exponent),
        start=np.array([start]),
        smoothness=curvature,
        minimum=0.0,
        minimizer=np.zeros(1),
        convex=True,
        radius=abs(start),
    )


def log_residuals(matrix: np.ndarray, target: np.ndarray, start: np.ndarray) -> Problem:
    r"""The toy problem f(x) = sum_i log(1 + (Ax - b)_i^2) (Khanh et al. 2024, App. E).

    The second derivative of log(1 + r^2) lies in [-1/4, 2], so L = 2 ||A||^2. Not
    convex; ``matrix`` A [n, n] is invertible, and the minimum 0 is where Ax = b.
    """
    return Problem(
        value=lambda x: jnp.sum(jnp.log1p((matrix @ x - target) ** 2)),
        start=np.asarray(start, np.float64),
        smoothness=2 * float(np.linalg.norm(matrix, 2)) ** 2,
        minimum=0.0,
        minimizer=np.linalg.solve(matrix, target),
    )


def _check_inside(start: Sequence[float], radius: float) -> None:
    if not (length := float(np.linalg.norm(start))) <= radius:
        raise ValueError(
            f"the start must be where the constants hold, within {radius:g} of the "
            f"origin, got {length:g}"
        )


def hyperbola(start: Sequence[float] = (3.0, 0.2), radius: float = 4.0) -> Problem:
    """The valley f(x, y) = (xy - 1)^2, flattest at (1, 1) (Si and Yun 2023, Figure 1).

    Not convex; its minimum 0 is wherever xy = 1.

    Raises:
        ValueError: if the start is not within the radius.
    """
    _check_inside(start, radius)
    # Hessian [[2y^2, 4xy - 2], [4xy - 2, 2x^2]]: its trace and twice the off-diagonal
    # entry bound its norm.
    return Problem(
        value=lambda x: (x[0] * x[1] - 1) ** 2,
        start=np.asarray(start, np.float64),
        smoothness=2 * radius**2 + 2 * radius**2 + 2,
        minimum=0.0,
        minimizer=np.ones(2),
        radius=radius,
    )


def double_well(start: float = 0.3, radius: float = 2.0) -> Problem:
    """The wells f(x) = x^4/4 - x^2/2: minima -1/4 at -1 and 1, a maximum at 0.

    Raises:
        ValueError: if the start is not within the radius.
    """
    _check_inside([start], radius)
    return Problem(
        value=lambda x: jnp.sum(x**4 / 4 - x**2 / 2),
        start=np.array([start]),
        smoothness=max(3 * radius**2 - 1, 1.0),
        minimum=-0.25,
        minimizer=np.ones(1),
        radius=radius,
    )


def saddle(start: Sequence[float] = (0.5, 0.03), radius: float = 2.0) -> Problem:
    """The saddle (x^2 - y^2)/2 + y^4/4 at the origin, minima -1/4 at (0, +-1).

    Raises:
        ValueError: if the start is not within the radius.
    """
    _check_inside(start, radius)
    return Problem(
        value=lambda x: (x[0] ** 2 - x[1] ** 2) / 2 + x[1] ** 4 / 4,
        start=np.asarray(start, np.float64),
        smoothness=max(3 * radius**2 - 1, 1.0),
        minimum=-0.25,
        minimizer=np.array([0.0, 1.0]),
        radius=radius,
    )


def sinusoid(smoothness: float, rho: float, start: float) -> Problem:
    r"""The stall f(x) = 9 beta rho^2 / (25 pi^2) sin(5 pi x / (3 rho)).

    A counterexample for deterministic SAM on non-convex functions (after Si and Yun
    2023, Theorem 3.5): a shift by rho is 5/6 of a period, so SAM stops where the
    *perturbed* point is a minimum and ||grad f||^2 = 0.0273567 beta^2 rho^2. The minima
    are at -0.3 rho plus the multiples of 1.2 rho.
    """
    scale, frequency = 9 * smoothness * rho**2 / (25 * np.pi**2), 5 * np.pi / (3 * rho)
    return Problem(
        value=lambda x: jnp.sum(scale * jnp.sin(frequency * x)),
        start=np.array([start]),
        smoothness=smoothness,
        minimum=-scale,
        minimizer=np.array([-0.3 * rho]),
    )


def perceptron(
    features: np.ndarray, labels: np.ndarray, hidden: int, seed: int = 0
) -> Problem:
    """Mean cross-entropy of a network with one hidden tanh layer, full batch.

    The smoothness is unknown: infinite. The lower bound of the minimum is 0.

    Args:
        features: [n, d].
        labels: classes [n], integers from 0.
        hidden: number of hidden units.
        seed: of the initial weights, normal with variance 1 / fan-in.

    Returns:
        The problem; x holds both weight matrices and both bias vectors, flat.
    """
    size, classes = features.shape[1], int(labels.max()) + 1
    shapes = [(size, hidden), (hidden,), (hidden, classes), (classes,)]
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def value(x: jax.Array) -> jax.Array:
        parts = jnp.split(x, ends[:-1])
        w1, b1, w2, b2 = (p.reshape(s) for p, s in zip(parts, shapes, strict=True))
        logits = jnp.tanh(features @ w1 + b1) @ w2 + b2
        log_probabilities = jax.nn.log_softmax(logits)
        return -jnp.mean(log_probabilities[np.arange(len(labels)), labels])

    generator = np.random.default_rng(seed)
    drawn = [
        generator.normal(size=shape) / math.sqrt(shape[0])
        if len(shape) == 2
        else np.zeros(shape)
        for shape in shapes
    ]
    return Problem(
        value=value,
        start=np.concatenate([part.ravel() for part in drawn]),
        smoothness=math.inf,
        minimum=0.0,
    )
