r"""Constant step sizes of Si and Yun (NeurIPS 2023) and the bounds that they give.

Practical SAM has a constant radius rho and normalizes the gradient. There is one rule
for each row of the paper's table of rates, and next to it a bound of ours with explicit
constants. The rules (up to constants) and the rates are the paper's, but unverified:
they were not compared with its text. The bounds are derived here; each docstring has
the proof. All proofs start from

.. math:: f(x^+) \le f(x) - \eta \langle \nabla f(x), g(y) \rangle
    + \tfrac{\beta \eta^2}{2} \|g(y)\|^2, \qquad \|y - x\| = \rho.

A rule is a step size :math:`\eta`; a bound holds for each T and broadcasts over T and
the radii and step sizes of its `Rule`. Its arguments are those of `step_sizes`: beta is
``known.L``, and ``known.mu`` may be a Polyak-Lojasiewicz constant. In m-SAM both
gradients are of one sample, and beta is the smoothness of every sampled loss; in n-SAM
the ascent takes the full gradient, in `n_sam_nonconvex` beta is that of f alone.

References:
    Si, Yun, "Practical Sharpness-Aware Minimization Cannot Converge All the Way to
    Optima", NeurIPS 2023, `2306.09850 <https://arxiv.org/abs/2306.09850>`_
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam_jax import checks
from sam_jax.theory.step_sizes.constants import Constants, Real, Rule

Floats = NDArray[np.float64]

# The counterexample of the non-convex theorem: a shift by rho in radians of its wave.
STALL_SHIFT = 5 * math.pi / 3


class Moments(NamedTuple):
    """Mean and variance of a stationary distribution."""

    mean: float
    variance: float


# ── Deterministic ────────────────────────────────────────────────────────────────────


def strongly_convex(known: Constants, rho: float, gap: float, steps: int) -> float:
    r"""Step size of Theorem 3.1: deterministic, strongly convex; rate 1/T^2.

    .. math:: \eta = \min\Big\{\frac{1}{\mu T} \max\Big(1,
        \log\frac{\mu^3 \Delta T^2}{\beta^4 \rho^2}\Big), \frac{1}{2\beta}\Big\}

    Unverified; the constants inside the logarithm are ours.

    Example:
        >>> known = Constants(mu=0.1, L=1.0)
        >>> eta = strongly_convex(known, rho=0.1, gap=0.55, steps=1000)
        >>> bound = strongly_convex_bound(known, Rule(0.1, eta), 0.55, 1000)
        >>> print(f"{eta:.4f} {bound:.3g}")
        0.1092 0.000655
    """
    known.check_curvature()
    _check_positive(rho=rho, gap=gap, steps=steps)
    ratio = known.mu**3 * gap * steps**2 / (known.L**4 * rho**2)
    return _logarithmic(known, ratio, steps)


def strongly_convex_bound(
    known: Constants, rule: Rule, gap: float, steps: ArrayLike
) -> Floats:
    r"""Bound of f(x_T) - f*: deterministic, convex and mu-PL, eta <= 1/(2 beta).

    .. math:: \max\Big\{(1 - \tfrac32 \mu\eta)^T \Delta,\;
        \frac{\beta^4\eta^2\rho^2}{2\mu} + \frac{\beta^3\eta^2\rho^2}{2}\Big\}

    Derived: with :math:`D = \nabla f(y) - \nabla f(x)`, co-coercivity gives
    :math:`\|D\|^2 \le \beta\rho\langle\nabla f, D\rangle / \|\nabla f\|`. Where
    :math:`\|\nabla f\| \ge \beta^2\eta\rho` the sum of the terms with D is at most 0,
    and the gap shrinks by :math:`1 - \frac32\mu\eta`; elsewhere it is at most the first
    part of the second term, and a step adds at most its second part.
    """
    known.check_curvature()
    rho, eta = _limited(rule, 2 * known.L)
    start = (1 - 1.5 * known.mu * eta) ** _array(steps) * gap
    floor = (known.L**3 * (eta * rho) ** 2 / 2) * (known.L / known.mu + 1)
    return np.maximum(start, floor)


def strongly_convex_lower_bound(
    known: Constants, rho: float, steps: ArrayLike
) -> Floats:
    r"""Lower bound for constant eta >= 1/(mu T): beta^3 rho^2 / (8 mu^2 T^2).

    Theorem 3.2 claims this order (unverified). The constant is derived: on beta x^2 / 2
    SAM stays on its 2-cycle (`cycle_amplitude`) if it starts there. With a smaller eta,
    SAM on mu x^2 / 2 does not come near from far away (`slow_descent`). It is also the
    limit of
    (f(x_T) - f*) / log^2 for the rule of `strongly_convex`.
    """
    known.check_curvature()
    return known.L**3 * rho**2 / (8 * (known.mu * _array(steps)) ** 2)


def slow_descent(known: Constants, rule: Rule, x: float, steps: ArrayLike) -> Floats:
    r"""x_T of SAM on mu x^2 / 2 from x > 0, as long as it has not crossed 0.

    .. math:: x_T = (1 - \eta\mu)^T (x_0 + \rho) - \rho

    Derived; the other case of the lower bound, see `strongly_convex_lower_bound`.
    """
    rho, eta = map(_array, rule)
    return (1 - eta * known.mu) ** _array(steps) * (x + rho) - rho


def convex(known: Constants, rho: float, gap: float, steps: int) -> float:
    r"""Step size of Theorem 3.3: deterministic, convex; rate 1/sqrt(T).

    .. math:: \eta = \min\Big\{\sqrt{\frac{\Delta}{\beta^3\rho^2 T}},
        \frac{1}{2\beta}\Big\}

    Unverified.
    """
    _check_positive(L=known.L, rho=rho, gap=gap, steps=steps)
    return min(math.sqrt(gap / (known.L**3 * rho**2 * steps)), 1 / (2 * known.L))


def convex_bound(known: Constants, rule: Rule, gap: float, steps: ArrayLike) -> Floats:
    r"""Bound of the mean of ||grad f(x_t)||^2, t < T: convex, eta <= 1/(2 beta).

    .. math:: \frac43\Big(\frac{\Delta}{\eta T} + \frac{\beta^3\eta\rho^2}{2}\Big)

    Derived: by convexity :math:`\langle\nabla f(x), D\rangle \ge 0`, and
    :math:`\|D\| \le \beta\rho`.
    """
    rho, eta = _limited(rule, 2 * known.L)
    return 4 / 3 * (gap / (eta * _array(steps)) + known.L**3 * eta * rho**2 / 2)


def nonconvex(known: Constants) -> float:
    """Step size of Theorem 3.4: deterministic, non-convex: 1/beta (unverified)."""
    _check_positive(L=known.L)
    return 1 / known.L


def nonconvex_bound(
    known: Constants, rule: Rule, gap: float, steps: ArrayLike
) -> Floats:
    r"""Bound of the mean of ||grad f(x_t)||^2, t < T: any f, eta <= 1/beta.

    .. math:: \frac{2\Delta}{\eta T} + \beta^2\rho^2

    The paper's (unverified), and derived: :math:`f(x^+) \le f - \frac\eta2
    \|\nabla f(x)\|^2 - \frac\eta2 (1 - \beta\eta) \|\nabla f(y)\|^2 + \frac\eta2
    \|\nabla f(x) - \nabla f(y)\|^2`.
    """
    rho, eta = _limited(rule, known.L)
    return 2 * gap / (eta * _array(steps)) + (known.L * rho) ** 2


# ── Stochastic ───────────────────────────────────────────────────────────────────────


def stochastic_strongly_convex(
    known: Constants, rho: float, gap: float, steps: int
) -> float:
    r"""Step size of Theorem 4.1: stochastic, strongly convex, n-SAM and m-SAM.

    .. math:: \eta = \min\Big\{\frac{1}{\mu T} \max\Big(1, \log\frac{\mu^2 \Delta T}
        {\beta [\sigma^2 - \beta^2\rho^2]_+}\Big), \frac{1}{2\beta}\Big\}

    Unverified.
    """
    known.check_curvature()
    _check_positive(gap=gap, steps=steps)
    excess = _excess_variance(known, rho)
    with np.errstate(divide="ignore"):
        ratio = float(np.divide(known.mu**2 * gap * steps, known.L * excess))
    return _logarithmic(known, ratio, steps)


def stochastic_strongly_convex_bound(
    known: Constants, rule: Rule, gap: float, steps: ArrayLike
) -> Floats:
    r"""Bound of E f(x_T) - f* under mu-PL, n-SAM and m-SAM, eta <= 1/beta.

    .. math:: (1 - \mu\eta)^T \Delta + \frac{\beta^2\rho^2}{2\mu} \max(1, 2\beta\eta)
        + \frac{\beta\eta\sigma^2}{\mu}

    Derived, from `stochastic_bound`'s step. For eta <= 1/(2 beta) the floor is at most
    :math:`\beta^2\rho^2/\mu + \beta\eta[\sigma^2 - \beta^2\rho^2]_+/\mu`, the paper's
    form with another constant.
    """
    known.check_curvature()
    floor = _stochastic_floor(known, rule)
    start = (1 - known.mu * _array(rule.gamma)) ** _array(steps) * gap
    return start + floor / (2 * known.mu)


def stochastic_convex(known: Constants, rho: float, gap: float, steps: int) -> float:
    r"""Step size of Theorem 4.3: stochastic, convex, n-SAM and m-SAM.

    .. math:: \eta = \min\Big\{\sqrt{\frac{\Delta}
        {\beta [\sigma^2 - \beta^2\rho^2]_+ T}}, \frac{1}{2\beta}\Big\}

    Derived: it balances the terms of the bound and gives the paper's (unverified) rate
    :math:`\beta\Delta/T + \sqrt{\beta\Delta[\sigma^2-\beta^2\rho^2]_+/T} + \rho^2`.
    """
    _check_positive(L=known.L, gap=gap, steps=steps)
    excess = _excess_variance(known, rho)
    with np.errstate(divide="ignore"):
        eta = math.sqrt(np.divide(gap, known.L * excess * steps))
    return min(eta, 1 / (2 * known.L))


def stochastic_bound(
    known: Constants, rule: Rule, gap: float, steps: ArrayLike
) -> Floats:
    r"""Bound of the mean of E||grad f(x_t)||^2, t < T, n-SAM and m-SAM, any f.

    .. math:: \frac{2\Delta}{\eta T} + \beta^2\rho^2 \max(1, 2\beta\eta)
        + 2\beta\eta\sigma^2, \qquad \eta \le 1/\beta

    Derived, and it needs no convexity: with :math:`d = g(y) - g(x)`,
    :math:`-\langle\nabla f, E g(y)\rangle = \frac12(\|E d\|^2 - \|\nabla f\|^2 -
    \|E g(y)\|^2)`, and the variance of g(y) is at most :math:`2\sigma^2 + 2 E\|d\|^2 -
    2\|E d\|^2`. The sum of the terms in d is largest at one of the ends of :math:`0 \le
    \|E d\|^2 \le E\|d\|^2 \le \beta^2\rho^2`.
    """
    floor = _stochastic_floor(known, rule)
    return 2 * gap / (_array(rule.gamma) * _array(steps)) + floor


def n_sam_nonconvex(known: Constants, gap: float, steps: int) -> float:
    r"""Step size of Theorem 4.5: n-SAM, non-convex.

    .. math:: \eta = \min\Big\{\sqrt{\frac{2\Delta}{\beta\sigma^2 T}},
        \frac1\beta\Big\}

    Derived: it minimizes `n_sam_nonconvex_bound` and gives the paper's rate
    (unverified) :math:`\beta\Delta/T + \sqrt{\beta\sigma^2\Delta/T} + \beta^2\rho^2`.
    """
    return _balanced(known, gap, steps, variance=known.variance)


def n_sam_nonconvex_bound(
    known: Constants, rule: Rule, gap: float, steps: ArrayLike
) -> Floats:
    r"""Bound of the mean of E||grad f(x_t)||^2, t < T: n-SAM, any f, eta <= 1/beta.

    .. math:: \frac{2\Delta}{\eta T} + \beta^2\rho^2 + \beta\eta\sigma^2

    Derived: given x, the point y is not random, so E g(y) = grad f(y) and
    :math:`E\|g(y)\|^2 \le \|\nabla f(y)\|^2 + \sigma^2`; the rest is as in
    `nonconvex_bound`.
    """
    deterministic = nonconvex_bound(known, rule, gap, steps)
    return deterministic + known.L * _array(rule.gamma) * known.variance


def m_sam_lipschitz(known: Constants, gap: float, steps: int) -> float:
    r"""Step size of Theorem 4.6: m-SAM, non-convex and Lipschitz.

    .. math:: \eta = \min\Big\{\sqrt{\frac{2\Delta}{\beta M^2 T}},
        \frac1\beta\Big\}, \qquad E\|g(y)\|^2 \le M^2

    Derived: it minimizes `m_sam_lipschitz_bound`; the paper's rate (unverified) has
    :math:`\sigma^2 + L^2` for M^2.
    """
    return _balanced(known, gap, steps, second_moment=known.second_moment)


def m_sam_lipschitz_bound(
    known: Constants, rule: Rule, gap: float, steps: ArrayLike
) -> Floats:
    r"""Bound of the mean of E(||grad f(x_t)|| - beta rho)^2, t < T: m-SAM, Lipschitz.

    .. math:: \frac{2\Delta}{\eta T} + \beta^2\rho^2 + \beta\eta M^2

    Derived, for any eta > 0: :math:`-\langle\nabla f, E g(y)\rangle \le
    -\|\nabla f\|^2 + \beta\rho\|\nabla f\| = -\frac12[(\|\nabla f\| - \beta\rho)^2 +
    \|\nabla f\|^2 - \beta^2\rho^2]`.
    """
    rho, eta = map(_array, rule)
    _check_positive(L=known.L, eta=float(eta.min()))
    first = 2 * gap / (eta * _array(steps))
    return first + known.L * (known.L * rho**2 + eta * known.second_moment)


# ── Where SAM stays ──────────────────────────────────────────────────────────────────


def stall_gradient(shift: ArrayLike = STALL_SHIFT) -> Floats:
    r"""||grad f|| / (beta rho) where SAM stalls on (beta / w^2) sin(w x), u = w rho.

    :math:`-\sin(u)/u`, where it is positive, as in (pi, 2 pi): SAM stops where the
    perturbed point is a minimum. u = 5 pi / 3 is the wave of Theorem 3.5 (unverified),
    with :math:`27 / (100\pi^2)` for the square. The family is ours; its worst member
    solves tan u = u. SAM does not stall if sin u >= 0; such a u raises an error.

    Example:
        >>> print(f"{stall_gradient()**2:.7f} {stall_gap():.7f}")
        0.0273567 0.0182378
    """
    u = _array(shift)
    if (np.sin(u) >= 0).any():
        raise ValueError(
            f"shift must have sin(shift) < 0 for a stall, got sin {np.sin(u).max():g} "
            f"at {u.flat[np.sin(u).argmax()]:g}"
        )
    return -np.sin(u) / u


def stall_gap(shift: ArrayLike = STALL_SHIFT) -> Floats:
    """(f - f*) / (beta rho^2) at the stall of `stall_gradient`: (1 - cos u) / u^2.

    It is 9 / (50 pi^2) at 5 pi / 3. A u without a stall raises an error.
    """
    stall_gradient(shift)
    return (1 - np.cos(_array(shift))) / _array(shift) ** 2


def cycle_amplitude(
    eta: float, *, smoothness: float, rho: float, momentum: float = 0.0
) -> float:
    r"""Distance from 0 at which SAM alternates on beta x^2 / 2 (derived).

    .. math:: |x| = \frac{s\rho}{2(1 + b) - s}, \qquad s = \eta\beta(1 - b)

    For the average m <- b m + (1 - b) g, ``optax.ema(b, debias=False)``; for a trace m
    <- b m + g, pass eta / (1 - b). A ``momentum`` b outside [0, 1) raises an error, and
    so does s >= 2(1 + b), with which SAM diverges.

    Example:
        >>> print(f"{cycle_amplitude(0.1, smoothness=1.0, rho=0.1):.6f}")
        0.005263
    """
    _check_positive(eta=eta, smoothness=smoothness)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum!r}")
    rate, limit = eta * smoothness * (1 - momentum), 2 * (1 + momentum)
    if rate >= limit:
        raise ValueError(
            "eta * smoothness * (1 - momentum) must be below 2 * (1 + momentum): "
            f"{rate:g} >= {limit:g}"
        )
    return rate * rho / (limit - rate)


def stationary_moments(
    eta: float, *, centers: Sequence[float], curvatures: Sequence[float], rho: float
) -> Moments:
    r"""Stationary moments of m-SAM on c_i (x - b_i)^2 / 2 with two different centers.

    Derived: between the centers the ascent always moves away from the sample's center,
    to the right of the left one and to the left of the right one, so a step is linear:
    :math:`x^+ = (1 - \eta c_i) x + \eta c_i (b_i \mp \rho)`. With all c_i = a and a
    share p of the components at the left center the mean is :math:`x^* - \rho(2p - 1)`
    for every eta, and the variance is :math:`\eta a p(1-p)(b_2 - b_1 + 2\rho)^2 /
    (2 - \eta a)`. Iterates must stay between the centers, which is nearly true for
    small eta. ``rho=0`` is SGD. The centers b_i [n] must have exactly two values, and
    the second moment must not diverge with eta; otherwise it raises an error.
    """
    b, c = np.asarray(centers, np.float64), np.asarray(curvatures, np.float64)
    if len(np.unique(b)) != 2:
        raise ValueError(
            f"centers must have 2 different values, got {len(np.unique(b))}: {b}"
        )
    target = np.where(b == b.min(), b - rho, b + rho)
    shrink, drift = (1 - eta * c), eta * c * target
    if (shrink**2).mean() >= 1:
        raise ValueError(
            "the mean of (1 - eta * curvature)^2 must be below 1: "
            f"{(shrink**2).mean():g} >= 1"
        )
    mean = drift.mean() / (eta * c.mean())
    second = (2 * shrink * drift * mean + drift**2).mean() / (1 - (shrink**2).mean())
    return Moments(float(mean), float(second - mean**2))


def _array(values: Real) -> Floats:
    return np.asarray(values, np.float64)


def _logarithmic(known: Constants, ratio: float, steps: int) -> float:
    eta = max(1.0, math.log(ratio)) / (known.mu * steps)
    return min(eta, 1 / (2 * known.L))


def _balanced(known: Constants, gap: float, steps: int, **constant: float) -> float:
    """Of a constant of the noise by its name."""
    _check_positive(L=known.L, gap=gap, steps=steps)
    ((name, noise),) = constant.items()
    checks.nonnegative(name, noise)
    with np.errstate(divide="ignore"):
        eta = math.sqrt(np.divide(2 * gap, known.L * noise * steps))
    return min(eta, 1 / known.L)


def _stochastic_floor(known: Constants, rule: Rule) -> Floats:
    rho, eta = _limited(rule, known.L)
    checks.nonnegative("variance", known.variance)
    rate = known.L * eta
    largest = np.maximum(1, 2 * rate)
    return (known.L * rho) ** 2 * largest + 2 * rate * known.variance


def _excess_variance(known: Constants, rho: float) -> float:
    checks.nonnegative("variance", known.variance)
    checks.nonnegative("rho", rho)
    return max(known.variance - (known.L * rho) ** 2, 0.0)


def _check_positive(**constants: float) -> None:
    for name, value in constants.items():
        checks.positive(name, value)


def _limited(rule: Rule, reciprocal: float) -> tuple[Floats, Floats]:
    """Radii and step sizes of a rule; no step size may be above 1 / reciprocal."""
    rho, eta = map(_array, rule)
    _check_positive(L=reciprocal, eta=float(eta.min()))
    largest = float(eta.max())
    # The rounding of a division must not refuse the limit itself.
    if largest * reciprocal > 1 + 1e-12:
        raise ValueError(
            f"eta must be at most 1 / {reciprocal:g}: {largest:g} > {1 / reciprocal:g}"
        )
    return rho, eta
