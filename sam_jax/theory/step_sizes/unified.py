r"""Step sizes and bounds of Unified SAM (Oikonomou and Loizou 2025).

The method is x <- x - gamma * grad f_S(x + rho (1 - lam + lam / ||g||) g) with the
sampled gradient g = grad f_S(x) in both places. "Derived" in a docstring marks a result
that is not quoted but proved by us, with explicit constants. All bounds follow from one
inequality for a step (derived),

    E f(x+) <= f - gamma (1 - L rho) / 2 ||grad f||^2 - gamma/2 ||grad f||^2
        + Q E||g||^2 + R,
    Q = gamma L rho (1-lam)^2 + L gamma^2 (2 L^2 rho^2 (1-lam)^2 + 1),
    R = gamma L rho lam^2 (1 + 2 gamma L^2 rho),

in which the expected residual condition bounds E||g||^2. ``known``, ``lam``, ``rule``,
``gap`` and ``steps`` are those of `step_sizes`. Where lambda is not in [0, 1], L is not
> 0 or A, B, C are not finite and >= 0 a ValueError says so; so it does, in what needs
the Polyak-Lojasiewicz inequality, where mu is not in (0, L] or B mu + A is 0.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from sam_jax import checks
from sam_jax.theory.step_sizes.constants import EXACT as EXACT
from sam_jax.theory.step_sizes.constants import Constants, Rule
from sam_jax.theory.step_sizes.constants import constants as constants
from sam_jax.theory.step_sizes.constants import deterministic as deterministic
from sam_jax.theory.step_sizes.constants import interpolated as interpolated


class Schedules(NamedTuple):
    """A radius and a step size that follow the update count (from 0)."""

    rho: optax.Schedule
    gamma: optax.Schedule


class Plan(NamedTuple):
    """A radius, a step size and the number of updates for which they are chosen."""

    rho: float
    gamma: float
    steps: int


class Limit(NamedTuple):
    """Stationary distribution of the iterate, a number: its moments, the mean gap."""

    mean: float
    variance: float
    gap: float


def largest_radius(known: Constants, lam: float) -> float:
    r"""rho* of Theorem 3.2, the strict upper bound of the radius.

    rho* = mu / (L (mu + 2 (B mu + A) (1 - lam)^2)); for full gradients it is that of
    Corollary 3.4, 1 / (L (1 + 2 (1 - lam)^2)). As in the authors' code.

    Example:
        >>> round(largest_radius(Constants(mu=0.1, L=10.0), lam=0.0), 6)
        0.033333
    """
    _check(known, lam)
    return known.mu / (known.L * _penalty(known, lam))


def largest_step_size(known: Constants, lam: float, rho: float) -> float:
    r"""gamma*(rho) of Theorem 3.2, the largest step size at a radius.

    gamma* = (mu - L rho (mu + 2 (B mu + A) (1 - lam)^2))
    / (2 L (B mu + A) (2 L^2 rho^2 (1 - lam)^2 + 1)). As in the authors' code. With
    rho = 0 it is SGD's mu / (2 L (B mu + A)).

    Example:
        >>> round(largest_step_size(Constants(mu=0.1, L=10.0), lam=0.0, rho=1 / 60), 6)
        0.023684
        >>> largest_step_size(Constants(mu=1.0, L=1.0), lam=1.0, rho=2.0)
        Traceback (most recent call last):
        ...
        ValueError: rho must be in [0, rho*) with rho* = 1 (Theorem 3.2), got 2
    """
    limit = largest_radius(known, lam)
    if not 0 <= rho < limit:
        raise ValueError(
            f"rho must be in [0, rho*) with rho* = {limit:g} (Theorem 3.2), got {rho:g}"
        )
    numerator = known.mu - known.L * rho * _penalty(known, lam)
    return numerator / (2 * known.L * known.growth * _spread(known, lam, rho))


def default(known: Constants, lam: float) -> Rule:
    """Half of rho*, and gamma* for it: the choice of the authors' experiments.

    Example:
        >>> default(Constants(mu=0.1, L=10.0), lam=1.0)
        Rule(rho=0.05, gamma=0.025)
    """
    rho = largest_radius(known, lam) / 2
    return Rule(rho, largest_step_size(known, lam, rho))


def simplified(known: Constants, lam: float) -> Rule:
    r"""The rule of the last version of the authors' code: simpler, about half as large.

    rho = min(1, mu / (2 (B mu + A) (1 - lam)^2)) / (4 L) and
    gamma = min(2, mu / (8 (B mu + A))) / L. It satisfies the conditions of Theorem 3.2
    (derived, from 2 L^2 rho^2 <= 1/8).

    Example:
        >>> simplified(Constants(mu=0.1, L=10.0), lam=0.0)
        Rule(rho=0.0125, gamma=0.0125)
    """
    _check(known, lam)
    share = known.mu / known.growth
    rho = min(1.0, _over(share / 2, (1 - lam) ** 2)) / (4 * known.L)
    return Rule(rho, min(2.0, share / 8) / known.L)


def usam_rule(smoothness: float) -> Rule:
    """USAM with full gradients as in the authors' later code: half of Corollary 3.4.

    rho = 1 / (6 L), gamma = (1 - 3 L rho) / (2 L (1 + 2 L^2 rho^2)): `default` with
    ``lam`` 0.

    Example:
        >>> print(round(usam_rule(1.0).gamma, 6))
        0.236842
    """
    return default(Constants(smoothness, smoothness), 0.0)


def floor(known: Constants, lam: float, rule: Rule) -> float:
    r"""N of Theorem 3.2: the bound's limit for the mean gap.

    N = (L / mu) (C (rho (1 - lam)^2 + gamma (1 + 2 L^2 rho^2 (1 - lam)^2))
    + lam^2 rho (1 + 2 gamma L^2 rho)). The factor L of the last term is derived. Here
    and in `bound`, a rule without rho < rho* and gamma <= gamma*(rho) raises an error.
    """
    _check_rule(known, lam, rule)
    return _noise(known, lam, rule) / (rule.gamma * known.mu)


def bound(
    known: Constants, lam: float, rule: Rule, gap: float, steps: ArrayLike
) -> np.ndarray:
    r"""Theorem 3.2: E f(x_t) - f* <= (1 - gamma mu)^t (f(x_0) - f*) + N.

    Example:
        >>> known = Constants(mu=0.1, L=10.0)
        >>> print(bound(known, 1.0, default(known, 1.0), 1.0, [0, 2000]).round(4))
        [7.25   6.2567]
    """
    n = floor(known, lam, rule)
    return (1 - rule.gamma * known.mu) ** np.asarray(steps, float) * gap + n


def decreasing(mu: float, rule: Rule) -> Schedules:
    r"""The decreasing rule of Theorem 3.5, which converges exactly for every lam.

    rho_t = min(1 / (2t + 1), rho) and gamma_t = min((2t + 1) / ((t + 1)^2 mu), gamma),
    t from 0, as in the authors' code. The caps, such as `default`, may be traced.

    Example:
        >>> schedules = decreasing(1.0, Rule(rho=0.5, gamma=0.25))
        >>> print([round(float(schedules.rho(t)), 3) for t in (0, 1, 10)])
        [0.5, 0.333, 0.048]
        >>> print([round(float(schedules.gamma(t)), 3) for t in (0, 1, 10)])
        [0.25, 0.25, 0.174]
    """
    checks.positive("mu", mu)

    def rho(count: jax.typing.ArrayLike) -> jax.Array:
        return jnp.minimum(1 / (2 * _float(count) + 1), rule.rho)

    def gamma(count: jax.typing.ArrayLike) -> jax.Array:
        t = _float(count)
        return jnp.minimum((2 * t + 1) / ((t + 1) ** 2 * mu), rule.gamma)

    return Schedules(rho, gamma)


def switch(mu: float, rule: Rule) -> int:
    """The first update count at which both minima of `decreasing` leave their caps.

    Example:
        >>> switch(1.0, Rule(rho=0.5, gamma=0.25))
        7
    """
    checks.positive("mu", mu)
    checks.positive("gamma", rule.gamma)
    by_radius = max(math.ceil((1 / rule.rho - 1) / 2), 0) if rule.rho > 0 else 0
    # (2t + 1) / (t + 1)^2 <= c falls with t: c s^2 - 2 s + 1 >= 0 for s = t + 1.
    c = rule.gamma * mu
    by_step = max(math.ceil((1 + math.sqrt(max(1 - c, 0.0))) / c) - 1, 0)
    return max(by_radius, by_step)


def decreasing_bound(
    known: Constants, lam: float, rule: Rule, gap: float, steps: ArrayLike
) -> np.ndarray:
    r"""A bound of O(1/T) for `decreasing` (Theorem 3.5; the constants are derived).

    With t* of `switch`, for T >= t*: E f(x_T) - f* <= t*^2 d / T^2 + (L / (mu T))
    (C ((1 - lam)^2 + (4 / mu) (1 + 2 L^2 rho^2 (1 - lam)^2))
    + lam^2 (1 + 2 gamma L^2 rho)). Before t*, and for d, the bound of the gap after
    t* updates, the inequality of one step is iterated. Theorem 3.2 must hold here.
    """
    _check_rule(known, lam, rule)
    t = np.arange(switch(known.mu, rule))
    radii = np.minimum(1 / (2 * t + 1), rule.rho)
    sizes = np.minimum((2 * t + 1) / ((t + 1) ** 2 * known.mu), rule.gamma)
    early = [gap]
    for rho, gamma in zip(radii, sizes, strict=True):
        noise = _noise(known, lam, Rule(float(rho), float(gamma)))
        early.append((1 - gamma * known.mu) * early[-1] + noise)
    sampled = (1 - lam) ** 2 + 4 / known.mu * _spread(known, lam, rule.rho)
    normalized = lam**2 * (1 + 2 * rule.gamma * known.L**2 * rule.rho)
    rate = known.L / known.mu * (known.residual.C * sampled + normalized)
    ends = np.asarray(steps)
    late = np.maximum(ends, max(len(t), 1)).astype(float)
    return np.where(
        ends <= len(t),
        np.asarray(early)[np.minimum(ends, len(t))],
        len(t) ** 2 * early[-1] / late**2 + rate / late,
    )


def nonconvex_bound(
    known: Constants, lam: float, rule: Rule, gap: float, steps: ArrayLike
) -> np.ndarray:
    r"""Right-hand side of the inequality behind Theorem 3.7 (derived).

    The smallest E||grad f(x_t)||^2, t < T, is at most 2 (1 + 2 A Q)^T gap / (gamma T)
    + 2 C Q / gamma + 2 L rho lam^2 (1 + 2 gamma L^2 rho), the gap to f^inf. No mu is
    needed; a rule with B Q / gamma > (1 - L rho) / 2 raises an error.
    """
    _check_residual(known, lam)
    checks.positive("gamma", rule.gamma)
    checks.nonnegative("rho", rule.rho)
    q = _gain(known, lam, rule)
    a, b, c = known.residual
    left, right = b * q / rule.gamma, (1 - known.L * rule.rho) / 2
    if left > right:
        raise ValueError(
            "the rule must satisfy B Q / gamma <= (1 - L rho) / 2, got "
            f"{left:g} > {right:g} for rho = {rule.rho:g}, gamma = {rule.gamma:g}"
        )
    ends = np.asarray(steps, float)
    with np.errstate(over="ignore"):  # a vacuous bound is infinite
        first = 2 * (1 + 2 * a * q) ** ends * gap / (rule.gamma * ends)
    return first + 2 * (c * q + _push(known, lam, rule)) / rule.gamma


def nonconvex(known: Constants, lam: float, gap: float, epsilon: float) -> Plan:
    r"""Theorem 3.7: a plan that suffices for min_t E||grad f(x_t)|| <= epsilon.

    T >= (d L / e^2) max(18, 81 B, 5184 L A^2 (1-lam)^4 d / e^2, 1458 A d / e^2,
    243 C / e^2) with d = f(x_0) - f^inf and e = epsilon,
    rho = min(1 / (4L), 1 / (8 B L (1-lam)^2), 1 / sqrt(T), e^2 / (12 C L (1-lam)^2),
    e^2 / (9 L lam^2)), gamma = min(1 / L, 2 / (9 B L), 1 / (4 A L (1-lam)^2 rho T),
    sqrt(2 / (9 L A T)), 2 e^2 / (27 C L)). Derived, in the form of the theorem
    (unverified); only the term 5184 is quoted from the paper.

    Example:
        >>> known = Constants(mu=0.0, L=1.0)
        >>> nonconvex(known, lam=1.0, gap=1.0, epsilon=0.1).steps
        8100
    """
    _check_residual(known, lam)
    checks.positive("gap", gap)
    checks.positive("epsilon", epsilon)
    a, b, c = known.residual
    L, square, unnormalized = known.L, epsilon**2, (1 - lam) ** 2
    per_target = 5184 * L * a**2 * unnormalized**2 * gap, 1458 * a * gap, 243 * c
    factor = max(18.0, 81 * b, *(term / square for term in per_target))
    # Rounding must not add a step: 8100 is 8100.000000000001 in floating point.
    steps = math.ceil(gap * L / square * factor * (1 - 1e-12))
    rho = min(
        1 / (4 * L),
        _over(1, 8 * b * L * unnormalized),
        1 / math.sqrt(steps),
        _over(square, 12 * c * L * unnormalized),
        _over(square, 9 * L * lam**2),
    )
    gamma = min(
        1 / L,
        _over(2, 9 * b * L),
        _over(1, 4 * a * L * unnormalized * rho * steps),
        math.sqrt(_over(2, 9 * L * a * steps)),
        _over(2 * square, 27 * c * L),
    )
    return Plan(rho, gamma, steps)


def andriushchenko(smoothness: float) -> Rule:
    """USAM with rho = gamma = 1 / (2 L), a baseline of the authors' later code.

    Attributed there to Andriushchenko and Flammarion 2022.
    """
    checks.positive("smoothness", smoothness)
    return Rule(1 / (2 * smoothness), 1 / (2 * smoothness))


def andriushchenko_decreasing(mu: float, smoothness: float) -> Schedules:
    r"""The decreasing rule of Andriushchenko and Flammarion 2022 for USAM.

    gamma_t = min((8t + 4) / (3 mu (t + 1)^2), 1 / (2 L)), rho_t = sqrt(gamma_t / L), t
    from 0, as in the code of Oikonomou and Loizou.

    Example:
        >>> schedules = andriushchenko_decreasing(1.0, 2.0)
        >>> print(schedules.gamma(0), round(float(schedules.gamma(99)), 5))
        0.25 0.02653
    """
    _check(Constants(mu, smoothness), 0.0)

    def gamma(count: jax.typing.ArrayLike) -> jax.Array:
        t = _float(count)
        return jnp.minimum((8 * t + 4) / (3 * mu * (t + 1) ** 2), 1 / (2 * smoothness))

    return Schedules(lambda count: jnp.sqrt(gamma(count) / smoothness), gamma)


def two_cycle(smoothness: float, lam: float, rule: Rule) -> float:
    r"""Last gap of Unified SAM on a quadratic with full gradients (derived).

    Along the top eigenvector it ends in the cycle c, -c with
    c = gamma L rho lam / (2 - gamma L (1 + L rho (1 - lam))); the gap of both points is
    (L / 2) c^2. With gamma L (1 + L rho (1 - lam)) >= 2 SAM diverges; this raises an
    error.

    Example:
        >>> print(f"{two_cycle(10.0, 1.0, Rule(rho=0.05, gamma=0.025)):.5e}")
        2.55102e-04
    """
    pull = rule.gamma * smoothness * (1 + smoothness * rule.rho * (1 - lam))
    if not pull < 2:
        raise ValueError(f"gamma L (1 + L rho (1 - lam)) must be < 2, got {pull:g}")
    c = rule.gamma * smoothness * rule.rho * lam / (2 - pull)
    return smoothness / 2 * c**2


def parabolas_limit(centers: Sequence[float], lam: float, rule: Rule) -> Limit:
    r"""Limit of Unified SAM on f_i(x) = (x - b_i)^2 / 2, one in each step (derived).

    While the iterate stays between the two centers next to the mean of all, a step is
    affine in it: with k = 1 + rho (1 - lam) and s_i = sign(x - b_i) the mean is
    mean(k b_i - lam rho s_i) / k and the variance
    gamma^2 var(k b_i - lam rho s_i) / (1 - (1 - gamma k)^2). For centers (-1, -1, 2)
    the mean is -lam rho / (3 k): a bias that no step size removes.

    ``gap`` is the mean gap ((mean - x*)^2 + variance) / 2. A rule with gamma k >= 2
    raises an error, and so does a rule whose mean is outside the interval, where the
    closed form does not hold.

    Example:
        >>> limit = parabolas_limit([-1.0, -1.0, 2.0], 1.0, Rule(rho=0.3, gamma=0.02))
        >>> print(round(limit.mean, 6), round(limit.gap, 5))
        -0.1 0.01955
    """
    b = np.asarray(centers, float)
    signs = np.sign(b.mean() - b)
    k = 1 + rule.rho * (1 - lam)
    if not rule.gamma * k < 2:
        raise ValueError(
            f"gamma (1 + rho (1 - lam)) must be < 2, got {rule.gamma * k:g}"
        )
    if lam * rule.rho and not signs.all():
        raise ValueError(
            "no center may be their mean: its component climbs to either side, and "
            "there is no closed form"
        )
    pulls = k * b - lam * rule.rho * signs
    mean = float(pulls.mean() / k)
    low, high = b[signs > 0].max(initial=-np.inf), b[signs < 0].min(initial=np.inf)
    if not low < mean < high:
        raise ValueError(
            f"the mean must stay between the centers {low:g} and {high:g}, got {mean:g}"
        )
    variance = float(rule.gamma**2 * pulls.var() / (1 - (1 - rule.gamma * k) ** 2))
    return Limit(mean, variance, ((mean - float(b.mean())) ** 2 + variance) / 2)


def _penalty(known: Constants, lam: float) -> float:
    return known.mu + 2 * known.growth * (1 - lam) ** 2


def _spread(known: Constants, lam: float, rho: float) -> float:
    return 2 * known.L**2 * rho**2 * (1 - lam) ** 2 + 1


def _gain(known: Constants, lam: float, rule: Rule) -> float:
    """Q, the weight of E||g||^2 in a step."""
    rho, gamma = rule
    straight = gamma * known.L * rho * (1 - lam) ** 2
    return straight + known.L * gamma**2 * _spread(known, lam, rho)


def _push(known: Constants, lam: float, rule: Rule) -> float:
    """R, the increase in a step that is due to the normalized part."""
    rho, gamma = rule
    return gamma * known.L * rho * lam**2 * (1 + 2 * gamma * known.L**2 * rho)


def _noise(known: Constants, lam: float, rule: Rule) -> float:
    """The increase in a step over (1 - gamma mu) times the gap."""
    return known.residual.C * _gain(known, lam, rule) + _push(known, lam, rule)


def _over(numerator: float, denominator: float) -> float:
    """A term of a minimum; infinite if it does not restrict the minimum."""
    return numerator / denominator if denominator > 0 else math.inf


def _float(count: jax.typing.ArrayLike) -> jax.Array:
    return jnp.asarray(count).astype(float)


def _check_residual(known: Constants, lam: float) -> None:
    if not 0 <= lam <= 1:
        raise ValueError(f"lam must be in [0, 1], got {lam!r}")
    checks.positive("L", known.L)
    if not all(0 <= value < math.inf for value in known.residual):
        raise ValueError(f"A, B and C must be finite and >= 0, got {known.residual!r}")


def _check(known: Constants, lam: float) -> None:
    _check_residual(known, lam)
    known.check_curvature()
    # 2 mu (f - f*) <= ||grad f||^2 <= E||g||^2 <= 2 (B mu + A) (f - f*) + C
    if not known.growth > 0:
        raise ValueError(
            f"B mu + A must be > 0, got {known.growth:g} for {known.residual!r}"
        )


def _check_rule(known: Constants, lam: float, rule: Rule) -> None:
    limit = largest_step_size(known, lam, rule.rho)
    if not 0 < rule.gamma <= limit * (1 + 1e-12):  # rounding
        raise ValueError(
            f"gamma must be in (0, gamma*] with gamma* = {limit:g} (Theorem 3.2 at "
            f"rho = {rule.rho:g}), got {rule.gamma:g}"
        )
