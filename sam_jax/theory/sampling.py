r"""The arbitrary sampling paradigm: which components a stochastic gradient sees.

A sampling draws weights v with E v_i = 1 (unbiased); the stochastic gradient is
(1/n) sum_i v_i grad f_i(x). Here a draw is a `Sample`: rows and their weights v_i / n.

The expected residual condition, E ||g(x)||^2 <= 2A (f(x) - f^inf) + B ||grad f(x)||^2
+ C, holds with the constants of `expected_residual` for smooth components (Oikonomou
and Loizou 2025, section 3; Gower et al. 2021; Khaled and Richtarik 2023).
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from sam_jax import checks
from sam_jax.theory import finite_sums


class Sample(NamedTuple):
    """Which components, and with which weights.

    Attributes:
        rows: indices of components, [k].
        weights: v_i / n of each, [k]; the sampled loss is the sum of weights * f_i.
    """

    rows: jax.Array
    weights: jax.Array


class ExpectedResidual(NamedTuple):
    """Constants of E||g||^2 <= 2A (f - f^inf) + B ||grad f||^2 + C."""

    A: float
    B: float
    C: float


def bounded_variance(sigma_squared: float) -> ExpectedResidual:
    """The constants of E||g - grad f||^2 <= sigma^2: a special case.

    Example:
        >>> bounded_variance(2.0)
        ExpectedResidual(A=0.0, B=1.0, C=2.0)
    """
    checks.nonnegative("sigma_squared", sigma_squared)
    return ExpectedResidual(0.0, 1.0, sigma_squared)


def bounded_gradients(largest_squared: float) -> ExpectedResidual:
    """The constants of E||g||^2 <= G^2: also a special case.

    Example:
        >>> bounded_gradients(4.0)
        ExpectedResidual(A=0.0, B=0.0, C=4.0)
    """
    checks.nonnegative("largest_squared", largest_squared)
    return ExpectedResidual(0.0, 0.0, largest_squared)


class Sampling(Protocol):
    """A distribution of samples."""

    def draw(self, key: jax.Array) -> Sample:
        """One sample."""
        ...

    def outcomes(self) -> Iterator[tuple[float, Sample]]:
        """All samples with their probabilities, for small n."""
        ...

    def growth(self, smoothness: np.ndarray) -> tuple[float, float]:
        """A and B of the expected residual condition, for components of L_i [n]."""
        ...

    def largest_smoothness(self, smoothness: np.ndarray) -> float:
        """Largest smoothness of a sampled function, for components of L_i [n]."""
        ...


def expected_residual(
    sampling: Sampling, problem: finite_sums.FiniteSum
) -> ExpectedResidual:
    """The constants A, B and C = 2 A sigma* of a sampling, for smooth components.

    Example:
        >>> problem = finite_sums.parabolas([-1.0, -1.0, 2.0])
        >>> expected_residual(uniform(3), problem)
        ExpectedResidual(A=1.0, B=0.0, C=2.0)
    """
    check_size(sampling, problem)
    a, b = sampling.growth(problem.component_smoothness)
    return ExpectedResidual(a, b, 2 * a * max(problem.interpolation_gap, 0.0))


def sampled_smoothness(sampling: Sampling, problem: finite_sums.FiniteSum) -> float:
    """Largest smoothness of the sampled function over all samples, weights included.

    The proofs use it where the paper writes L_max. For uniform sampling it does not
    exceed L_max; under importance sampling it is the mean of L_i. It is the largest sum
    of weights * L_i over the rows of a sample.

    Example:
        >>> problem = finite_sums.parabolas([0.0, 0.0, 0.0], [1.0, 2.0, 9.0])
        >>> sampled_smoothness(uniform(3), problem)
        9.0
        >>> sampled_smoothness(importance(problem.component_smoothness), problem)
        4.0
    """
    check_size(sampling, problem)
    return sampling.largest_smoothness(problem.component_smoothness)


def check_size(sampling: Sampling, problem: finite_sums.FiniteSum) -> None:
    """Refuses the sampling of a sum of another size.

    Raises:
        ValueError: if it is one of this module, of another number of components.
    """
    given = getattr(sampling, "probabilities", None)
    n = getattr(sampling, "n", None) if given is None else len(given)
    if n is not None and n != problem.size:
        raise ValueError(
            f"the sampling is of {n} components, and the sum has {problem.size}"
        )


@dataclasses.dataclass(frozen=True)
class Nice:
    """A uniform subset of fixed size (tau-nice), each weighted by 1 / tau.

    Attributes:
        n: number of components.
        size: tau, from 1 to n.
    """

    n: int
    size: int

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.n:
            raise ValueError(f"size must be in [1, {self.n}], got {self.size!r}")

    def draw(self, key: jax.Array) -> Sample:
        """One sample, k = size."""
        rows = jax.random.permutation(key, self.n)[: self.size]
        return Sample(rows, jnp.full(self.size, 1 / self.size))

    def outcomes(self) -> Iterator[tuple[float, Sample]]:
        """All subsets of this size."""
        subsets = list(itertools.combinations(range(self.n), self.size))
        for subset in subsets:
            yield 1 / len(subsets), _sample(subset, [1 / self.size] * self.size)

    def growth(self, smoothness: np.ndarray) -> tuple[float, float]:
        """A = (n - tau) / (tau (n - 1)) L_max, B = n (tau - 1) / (tau (n - 1))."""
        if self.n == 1:
            return 0.0, 1.0
        scale = self.size * (self.n - 1)
        return (
            float((self.n - self.size) / scale * smoothness.max()),
            self.n * (self.size - 1) / scale,
        )

    def largest_smoothness(self, smoothness: np.ndarray) -> float:
        """The mean of the tau largest L_i."""
        return float(np.sort(smoothness)[-self.size :].mean())


@dataclasses.dataclass(frozen=True, eq=False)
class Independent:
    """Each component on its own, i with probability p_i, weighted by 1 / (n p_i).

    Attributes:
        probabilities: p_i in (0, 1], [n]; their sum is the expected size.
    """

    probabilities: np.ndarray

    def __post_init__(self) -> None:
        p = self.probabilities
        if not ((p > 0) & (p <= 1)).all():
            raise ValueError(f"probabilities must be in (0, 1], got {p!r}")

    def draw(self, key: jax.Array) -> Sample:
        """One sample: all rows; those that are not drawn have weight 0."""
        p = jnp.asarray(self.probabilities)
        drawn = jax.random.uniform(key, p.shape, p.dtype) < p
        return Sample(jnp.arange(p.size), drawn / (p.size * p))

    def outcomes(self) -> Iterator[tuple[float, Sample]]:
        """All 2^n subsets."""
        p = self.probabilities
        for flags in itertools.product([False, True], repeat=len(p)):
            chosen = np.array(flags)
            chance = np.where(chosen, p, 1 - p).prod()
            yield float(chance), _sample(range(len(p)), chosen / (len(p) * p))

    def growth(self, smoothness: np.ndarray) -> tuple[float, float]:
        """A = max (1 - p_i) L_i / (n p_i), B = 1."""
        p = self.probabilities
        return float(((1 - p) * smoothness / p).max() / len(p)), 1.0

    def largest_smoothness(self, smoothness: np.ndarray) -> float:
        """The mean of L_i / p_i, when all are drawn."""
        return float((smoothness / self.probabilities).mean())


@dataclasses.dataclass(frozen=True, eq=False)
class WithReplacement:
    """The mean of tau independent draws, i with probability q_i.

    Attributes:
        probabilities: q_i > 0, [n]; they sum to 1.
        size: tau >= 1.
    """

    probabilities: np.ndarray
    size: int

    def __post_init__(self) -> None:
        _check_probabilities(self.probabilities)
        if self.size < 1:
            raise ValueError(f"size must be >= 1, got {self.size!r}")

    def draw(self, key: jax.Array) -> Sample:
        """One sample, k = size, rows may repeat."""
        rows = _categorical(key, self.probabilities, self.size)
        q = jnp.asarray(self.probabilities)
        return Sample(rows, 1 / (self.size * q.size * q[rows]))

    def outcomes(self) -> Iterator[tuple[float, Sample]]:
        """All n^tau sequences."""
        q = self.probabilities
        for rows in itertools.product(range(len(q)), repeat=self.size):
            chosen = np.array(rows)
            weights = 1 / (self.size * len(q) * q[chosen])
            yield float(q[chosen].prod()), _sample(rows, weights)

    def growth(self, smoothness: np.ndarray) -> tuple[float, float]:
        """A = max L_i / (tau n q_i), B = 1 - 1/tau."""
        return self.largest_smoothness(smoothness) / self.size, 1 - 1 / self.size

    def largest_smoothness(self, smoothness: np.ndarray) -> float:
        """The largest L_i / (n q_i), when one is drawn every time."""
        return float((smoothness / self.probabilities).max() / len(smoothness))


@dataclasses.dataclass(frozen=True, eq=False)
class Single(WithReplacement):
    """One component, i with probability q_i: A = max L_i / (n q_i), B = 0.

    Attributes:
        probabilities: q_i > 0, [n]; they sum to 1.
    """

    size: int = dataclasses.field(default=1, init=False)


def uniform(n: int) -> Single:
    """One component, all with the same probability."""
    return Single(np.full(n, 1 / n))


def importance(smoothness: np.ndarray) -> Single:
    """One component with p_i = L_i / sum L, which makes A smallest: the mean of L_i.

    Example:
        >>> print(importance(np.array([1.0, 3.0])).probabilities)
        [0.25 0.75]
    """
    return Single(smoothness / smoothness.sum())


def full(n: int) -> Nice:
    """All components: A = 0, B = 1, C = 0."""
    return Nice(n, n)


def independent_importance(smoothness: np.ndarray, size: float) -> Independent:
    """Independent sampling of an expected size in (0, n) that makes A smallest.

    p_i = L_i / (q + L_i), where q makes the probabilities sum to ``size``.

    Raises:
        ValueError: if ``size`` is not in (0, n).

    Example:
        >>> sampling = independent_importance(np.array([1.0, 2.0, 9.0]), 2)
        >>> print(sampling.probabilities.round(4))
        [0.4708 0.6402 0.889 ]
    """
    n = len(smoothness)
    if not 0 < size < n:
        raise ValueError(f"size must be in (0, {n}), got {size!r}")

    def excess(log_q: float) -> float:
        return float((smoothness / (np.exp(log_q) + smoothness)).sum() - size)

    log_q: Any = optimize.brentq(excess, -60.0, 60.0 + float(np.log(smoothness.max())))
    return Independent(smoothness / (np.exp(log_q) + smoothness))


def _categorical(key: jax.Array, probabilities: np.ndarray, size: int) -> jax.Array:
    # jax.random.choice would search with a loop inside of the loop over the steps.
    borders = np.cumsum(probabilities)[:-1]
    drawn = jax.random.uniform(key, (size,), jnp.asarray(borders).dtype)
    return jnp.searchsorted(borders, drawn, side="right", method="compare_all")


def _sample(rows: object, weights: object) -> Sample:
    return Sample(jnp.asarray(rows), jnp.asarray(weights))  # pyright: ignore[reportArgumentType]


def _check_probabilities(p: np.ndarray) -> None:
    if not (p > 0).all() or abs(p.sum() - 1) > 1e-9:
        raise ValueError(
            f"probabilities must be positive and sum to 1, got sum {p.sum():g}, "
            f"smallest {p.min():g}"
        )
