"""Finite sums f = (1/n) sum_i f_i with known constants of every component.

Of examples: ``matrix`` or ``features`` has the rows a_i, [n, d], ``target`` b [n],
``labels`` y_i, -1 or 1, [n]. ``l2`` >= 0 is the coefficient of ||x||^2 / 2,
``nonconvex`` >= 0 that of sum_j x_j^2 / (1 + x_j^2), whose curvature lies in [-1/2, 2].
``start`` is a point to start from.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from sam_jax import errors
from sam_jax.theory import problems

# Indices [k], or slice(None) for all n.
Rows = Any
ComponentValues = Callable[[jax.Array, Rows], jax.Array]  # x [d], rows -> f_i(x) [k]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FiniteSum(problems.Problem):
    """The mean of n functions, and what is known about each.

    Attributes:
        component_values: x [d] and rows (indices [k], or ``slice(None)``) -> f_i(x) of
            these rows, [k].
        component_smoothness: L_i, [n].
        component_minima: infimum of each f_i, or a lower bound of it, [n].
    """

    component_values: ComponentValues
    component_smoothness: np.ndarray
    component_minima: np.ndarray

    @property
    def size(self) -> int:
        """Number of components, n."""
        return len(self.component_smoothness)

    @property
    def largest_smoothness(self) -> float:
        """Largest L_i, L_max."""
        return float(self.component_smoothness.max())

    @property
    def interpolation_gap(self) -> float:
        """sigma* = f* - mean of the components' infima; 0 under interpolation."""
        return self.minimum - float(self.component_minima.mean())


def _finite_sum(component_values: ComponentValues, **known: Any) -> FiniteSum:
    return FiniteSum(
        value=lambda x: jnp.mean(component_values(x, slice(None))),
        component_values=component_values,
        **known,
    )


def least_squares(
    matrix: np.ndarray,
    target: np.ndarray,
    *,
    l2: float = 0.0,
    start: np.ndarray | None = None,
) -> FiniteSum:
    """Least squares, or ridge: f_i(x) = (a_i . x - b_i)^2 / 2 + l2 ||x||^2 / 2.

    f* is computed from the normal equations. The default start is the origin.

    Raises:
        ValueError: if ``l2`` is negative, or 0 with a singular matrix.

    Example:
        >>> problem = least_squares(np.eye(2), np.array([1.0, 2.0]))
        >>> problem.minimum, problem.smoothness, problem.largest_smoothness
        (0.0, 0.5, 1.0)
    """
    count, dimension = matrix.shape
    hessian = matrix.T @ matrix / count + l2 * np.eye(dimension)
    eigenvalues = np.linalg.eigvalsh(hessian)
    if l2 < 0 or eigenvalues[0] <= 1e-14 * eigenvalues[-1]:
        raise ValueError(
            f"l2 must be >= 0, and > 0 where the columns are dependent, got {l2!r}"
        )
    minimizer = np.linalg.solve(hessian, matrix.T @ target / count)
    squared = (matrix**2).sum(1)
    # Along a_i: (s t - b)^2/2 + l2 s t^2/2 with s = ||a_i||^2, smallest at its vertex.
    shares = np.divide(l2, squared + l2, out=np.ones(count), where=squared + l2 > 0)

    def component_values(x: jax.Array, rows: Rows) -> jax.Array:
        residuals = jnp.asarray(matrix)[rows] @ x - jnp.asarray(target)[rows]
        return residuals**2 / 2 + l2 * jnp.sum(x**2) / 2

    residuals = matrix @ minimizer - target
    if np.abs(residuals).max() < 1e-12 * np.abs(target).max():
        residuals = np.zeros(len(residuals))  # consistent up to rounding
    minimum = float((residuals**2).mean() / 2 + l2 * (minimizer**2).sum() / 2)
    return _finite_sum(
        component_values,
        start=np.zeros(dimension) if start is None else np.asarray(start, np.float64),
        smoothness=float(eigenvalues[-1]),
        minimum=minimum,
        minimizer=minimizer,
        strong_convexity=float(eigenvalues[0]),
        pl=float(eigenvalues[0]),
        convex=True,
        component_smoothness=squared + l2,
        component_minima=target**2 / 2 * shares,
    )


def conditioned_matrix(
    size: int, condition: float, generator: np.random.RandomState
) -> np.ndarray:
    """A symmetric positive definite matrix of a given condition number.

    A = P P^T with P = U diag(s) V^T, s log-spaced from c^(-1/4) to c^(1/4), so that the
    eigenvalues of A run from c^(-1/2) to c^(1/2). U and V are the orthogonal factors of
    (uniform - 5) * 200 matrices, as in the authors' code of Unified SAM, which with
    ``numpy.random.RandomState(3107)`` draws the same matrix, [size, size] in float64.
    The generator is drawn from twice; ``condition`` is c >= 1.
    """
    left, right = (
        np.linalg.qr((generator.rand(size, size) - 5.0) * 200).Q for _ in range(2)
    )
    scales = np.geomspace(condition**-0.25, condition**0.25, size)
    root = left @ np.diag(scales) @ right.T
    return root @ root.T


def logistic(
    features: np.ndarray, labels: np.ndarray, *, l2: float = 0.0, nonconvex: float = 0.0
) -> FiniteSum:
    r"""Logistic regression, f_i(x) = log(1 + exp(-y_i a_i . x)) + regularizers.

    Where it is strongly convex (``l2 > 0``, ``nonconvex = 0``) the minimizer is found
    by Newton's method; otherwise the minimum is the bound 0.

    Raises:
        ValueError: if a label is not -1 or 1, or a coefficient negative.
    """
    if set(np.unique(labels)) - {-1, 1}:
        raise ValueError(f"labels must be -1 or 1, got {sorted(set(labels))[:5]}")
    if l2 < 0 or nonconvex < 0:
        raise ValueError(f"l2 and nonconvex must be >= 0, got {l2!r} and {nonconvex!r}")
    count, dimension = features.shape
    signed = features * labels[:, None]

    def component_values(x: jax.Array, rows: Rows) -> jax.Array:
        margins = jnp.asarray(signed)[rows] @ x
        penalty = l2 * jnp.sum(x**2) / 2 + nonconvex * jnp.sum(x**2 / (1 + x**2))
        return jax.nn.softplus(-margins) + penalty

    extra = l2 + 2 * nonconvex
    spectral = float(np.linalg.norm(features, 2)) ** 2
    known: dict[str, Any] = {"minimum": 0.0, "component_minima": np.zeros(count)}
    if l2 > 0 and nonconvex == 0:
        minimizer = _newton(signed, l2)
        known = {
            "minimizer": minimizer,
            "minimum": _logistic_value(signed, l2, minimizer),
            "component_minima": np.array([_ray_minimum(a, l2) for a in signed]),
            "strong_convexity": l2,
            "pl": l2,
        }
    return _finite_sum(
        component_values,
        start=np.zeros(dimension),
        smoothness=spectral / (4 * count) + extra,
        convex=nonconvex == 0,
        component_smoothness=(features**2).sum(1) / 4 + extra,
        **known,
    )


def _logistic_value(signed: np.ndarray, l2: float, x: np.ndarray) -> float:
    return float(np.logaddexp(0, -signed @ x).mean() + l2 * (x**2).sum() / 2)


def _newton(signed: np.ndarray, l2: float) -> np.ndarray:
    count, dimension = signed.shape

    def chance(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(signed @ x))

    def gradient(x: np.ndarray) -> np.ndarray:
        return -signed.T @ chance(x) / count + l2 * x

    def hessian(x: np.ndarray) -> np.ndarray:
        p = chance(x)
        return (signed.T * (p * (1 - p))) @ signed / count + l2 * np.eye(dimension)

    found = optimize.minimize(
        lambda x: _logistic_value(signed, l2, x),
        np.zeros(dimension),
        jac=gradient,
        hess=hessian,
        method="trust-exact",
        options={"gtol": 1e-10},
    ).x
    for _ in range(3):  # to the last bits
        found = found - np.linalg.solve(hessian(found), gradient(found))
    return found


def _ray_minimum(a: np.ndarray, l2: float) -> float:
    """Minimum of log(1 + exp(-a . x)) + l2 ||x||^2/2, which lies on the ray of a."""
    squared = float((a**2).sum())
    if squared == 0:
        return float(np.log(2))
    found = optimize.minimize_scalar(
        lambda t: np.logaddexp(0, -squared * t) + l2 * squared * t**2 / 2,
        bounds=(0, 1 / l2),
        method="bounded",
        options={"xatol": 1e-12},
    )
    # A lower bound is asked for: what the search leaves is of this size.
    return float(found.fun) - 1e-12


def bounded_residuals(matrix: np.ndarray, target: np.ndarray) -> FiniteSum:
    r"""Non-convex sums f_i(x) = phi(a_i . x - b_i), phi(z) = z^2 / (1 + z^2).

    phi'' lies in [-1/2, 2], so L_i = 2 ||a_i||^2; |phi'| <= 3 sqrt(3) / 8, so f is
    Lipschitz too. The lower bound of its minimum is 0.
    """
    count, dimension = matrix.shape

    def component_values(x: jax.Array, rows: Rows) -> jax.Array:
        residuals = jnp.asarray(matrix)[rows] @ x - jnp.asarray(target)[rows]
        return residuals**2 / (1 + residuals**2)

    return _finite_sum(
        component_values,
        start=np.zeros(dimension),
        smoothness=2 * float(np.linalg.norm(matrix, 2)) ** 2 / count,
        minimum=0.0,
        component_smoothness=2 * (matrix**2).sum(1),
        component_minima=np.zeros(count),
    )


def parabolas(
    centers: Sequence[float],
    curvatures: Sequence[float] | None = None,
    start: float = 1.0,
) -> FiniteSum:
    r"""Parabolas on the line, f_i(x) = c_i (x - b_i)^2 / 2, c_i = 1 if not given.

    Skewed centers, such as (-1, -1, 2), are the simplest case in which SAM with the
    same sample in both gradients is biased: between the centers its mean step at the
    minimizer is not zero.
    """
    b = np.asarray(centers, np.float64)
    c = np.ones_like(b) if curvatures is None else np.asarray(curvatures, np.float64)
    minimizer = float((c * b).sum() / c.sum())

    def component_values(x: jax.Array, rows: Rows) -> jax.Array:
        return jnp.asarray(c)[rows] * (jnp.sum(x) - jnp.asarray(b)[rows]) ** 2 / 2

    return _finite_sum(
        component_values,
        start=np.array([start]),
        smoothness=float(c.mean()),
        minimum=float((c * (minimizer - b) ** 2).mean() / 2),
        minimizer=np.array([minimizer]),
        strong_convexity=float(c.mean()),
        pl=float(c.mean()),
        convex=True,
        component_smoothness=c,
        component_minima=np.zeros(len(b)),
    )


def vanishing_noise(curvature: float, rho: float, start: float) -> FiniteSum:
    r"""Three functions on which SAM of radius rho stalls at -rho/3, not at 0.

    With h(x) = 2 a rho cos(pi (x - c) / rho) and c = -rho/3, two components have the
    gradient a x + h(x)/3 and one a x - 2 h(x)/3. Both give a zero step of SAM at c, so
    the noise vanishes there and every path ends at c, with f - f* = a rho^2 / 18. This
    construction of ours proves the claim of Theorem 4.2 of Si and Yun 2023.
    f(x) = a x^2 / 2, where a is the ``curvature``.
    """
    a, c = curvature, -rho / 3
    weights = np.array([2.0, 2.0, -4.0]) * a * rho**2 / (3 * np.pi)

    def component_values(x: jax.Array, rows: Rows) -> jax.Array:
        z = jnp.sum(x)
        wave = jnp.sin(np.pi * (z - c) / rho)
        return a * z**2 / 2 + jnp.asarray(weights)[rows] * wave

    beta = a + np.abs(weights) * (np.pi / rho) ** 2
    return _finite_sum(
        component_values,
        start=np.array([start]),
        smoothness=a,
        minimum=0.0,
        minimizer=np.zeros(1),
        strong_convexity=a,
        pl=a,
        convex=True,
        component_smoothness=beta,
        component_minima=-np.abs(weights),
    )


def digits(
    classes: Sequence[int] = (3, 8), l2: float = 0.01, nonconvex: float = 0.0
) -> FiniteSum:
    """Logistic regression on two of scikit-learn's handwritten digits, the second +1.

    Pixels are scaled to [0, 1], a constant feature is added (d = 65), rows are divided
    by the largest norm.
    """
    with errors.needing("theory"):
        from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    kept = np.isin(labels, classes)
    features = np.c_[images[kept] / 16, np.ones(kept.sum())]
    features /= np.linalg.norm(features, axis=1).max()
    signs = np.where(labels[kept] == classes[1], 1.0, -1.0)
    return logistic(features, signs, l2=l2, nonconvex=nonconvex)
