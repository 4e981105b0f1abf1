r"""Step sizes, rates and per-step inequalities of Khanh et al. 2024.

Khanh, Luong, Mordukhovich, Tran, "Fundamental Convergence Analysis of Sharpness-Aware
Minimization", NeurIPS 2024, `2401.08060 <https://arxiv.org/abs/2401.08060>`_.

SAM and its normalized variants are gradient descent with an absolute error
:math:`\varepsilon_k = L \rho_k`, USAM and the extragradient method with a relative one,
:math:`\nu = L \rho_k`. The inequalities take numbers or arrays that broadcast, such as
the record of a trajectory.

Arguments, the same everywhere: ``smoothness`` L > 0; ``pl`` the Polyak-Lojasiewicz
constant mu in (0, L]; ``nu`` the relative error, in [0, 1); ``step_size`` t_k >= 0;
``radius`` rho_k >= 0; ``value`` f(x^k) and ``squared_gradient``
:math:`\|\nabla f(x^k)\|^2`, from which a descent inequality has its right-hand side.
A value outside its range raises a ValueError that states the range.
"""

from typing import NamedTuple

import numpy as np

from sam_jax.theory.step_sizes.constants import Real


class Rates(NamedTuple):
    """Exponents a of bounds O(k^-a).

    Attributes:
        iterates: of the distance to the limit.
        gradients: of the gradient's norm.
        gap: of f - f at the limit.
    """

    iterates: float
    gradients: float
    gap: float


# ── Relative errors: USAM, extragradient ─────────────────────────────────────────────


def relative_error_step_size(smoothness: float, nu: float, delta: float) -> float:
    r"""The largest step size :math:`(2 - 2\nu - \delta) / (L (1 + \nu)^2)`.

    Condition (12) of Theorems 4.1 and 4.2: up to it every step decreases f by at least
    :math:`\delta t_k \|\nabla f\|^2 / 2`, delta in (0, 2 - 2 nu).

    Example:
        >>> relative_error_step_size(smoothness=2.0, nu=0.5, delta=0.1)
        0.2
    """
    _check_smoothness(smoothness)
    _check_nu(nu)
    if not 0 < delta < 2 - 2 * nu:
        raise ValueError(
            f"delta must be in (0, 2 - 2 nu), got {delta:g} with 2 - 2 nu = "
            f"{2 - 2 * nu:g}"
        )
    return (2 - 2 * nu - delta) / (smoothness * (1 + nu) ** 2)


def unnormalized_radius(smoothness: float, nu: float) -> float:
    r"""The largest radius :math:`\nu / L` of USAM and extragradient (Theorem 4.2).

    Example:
        >>> unnormalized_radius(smoothness=4.0, nu=0.5)
        0.125
    """
    _check_smoothness(smoothness)
    _check_nu(nu)
    return nu / smoothness


def linear_factor(step_size: float, smoothness: float, pl: float, nu: float) -> float:
    r"""Factor of f - f* in a step: :math:`1 - t\mu(2 - 2\nu - Lt(1 + \nu)^2)`.

    Theorem 4.1 (v) states a linear rate for :math:`q \le 1/2` without its factor. This
    one is ours: inequality (40) with :math:`\|\nabla f\|^2 \ge 2\mu (f - f^*)`.
    Below 1, for step sizes below :math:`(2 - 2\nu) / (L (1 + \nu)^2)`.

    Example:
        >>> linear_factor(step_size=0.5, smoothness=1.0, pl=0.5, nu=0.0)
        0.625
    """
    _check_smoothness(smoothness)
    _check_nu(nu)
    if not 0 < pl <= smoothness:
        raise ValueError(f"pl must be in (0, L], got {pl:g} with L = {smoothness:g}")
    limit = (2 - 2 * nu) / (smoothness * (1 + nu) ** 2)
    if not 0 < step_size < limit:
        raise ValueError(
            "step_size must be in (0, (2 - 2 nu) / (L (1 + nu)^2)), got "
            f"{step_size:g} with {limit:g}"
        )
    decrease = 2 - 2 * nu - smoothness * step_size * (1 + nu) ** 2
    return 1 - step_size * pl * decrease


def relative_error_descent(
    value: Real, squared_gradient: Real, *, step_size: Real, smoothness: float, nu: Real
) -> np.ndarray:
    r"""Upper bound of f after a step with a relative error (Theorem 4.1, (40)).

    .. math::

        f(x^{k+1}) \le f(x^k)
        - \frac{t_k}{2} (2 - 2\nu - L t_k (1 + \nu)^2) \|\nabla f(x^k)\|^2

    Example:
        >>> known = {"step_size": 0.5, "smoothness": 1.0, "nu": 0.0}
        >>> float(relative_error_descent(1.0, 4.0, **known))
        -0.5
    """
    _check_smoothness(smoothness)
    _check_nu(nu)
    _check_nonnegative("step_size", step_size)
    value, squared, t, nu = map(np.asarray, (value, squared_gradient, step_size, nu))
    return value - t / 2 * (2 - 2 * nu - smoothness * t * (1 + nu) ** 2) * squared


def sufficient_decrease(step_size: Real, smoothness: float, nu: Real) -> np.ndarray:
    r"""The sigma of (H1), :math:`(2 - 2\nu - Lt(1 + \nu)^2) / (2 (1 + \nu))`.

    Propositions B.3 to B.5 get the convergence of the iterates from
    :math:`f(x^k) - f(x^{k+1}) \ge \sigma \|\nabla f(x^k)\| \|x^{k+1} - x^k\|`. For
    steps with a relative error (39) and (40) give this sigma. With a desingularizing
    function it bounds the path: :math:`\sigma \|x^{k+1} - x^k\| \le
    \varphi(f(x^k) - f(\bar x)) - \varphi(f(x^{k+1}) - f(\bar x))`.

    Example:
        >>> float(sufficient_decrease(0.5, 1.0, 0.0))
        0.75
    """
    _check_smoothness(smoothness)
    _check_nu(nu)
    _check_nonnegative("step_size", step_size)
    t, nu = np.asarray(step_size), np.asarray(nu)
    return (2 - 2 * nu - smoothness * t * (1 + nu) ** 2) / (2 * (1 + nu))


def kl_rates(q: float) -> Rates:
    r"""Exponents of Theorem 4.1 (v) for the KL function :math:`M t^{1-q}`, q > 1/2.

    With step sizes bounded away from 0 the distance and the gradient's norm are
    :math:`O(k^{-(1-q)/(2q-1)})`, and f - f at the limit is
    :math:`O(k^{-(2-2q)/(2q-1)})`; q < 1. For q up to 1/2 the rate is linear.

    Example:
        >>> kl_rates(0.75)
        Rates(iterates=0.5, gradients=0.5, gap=1.0)
    """
    if not 0.5 < q < 1:
        raise ValueError(
            f"q must be in (1/2, 1), got {q:g}; the rate is linear up to 1/2"
        )
    slow = (1 - q) / (2 * q - 1)
    return Rates(iterates=slow, gradients=slow, gap=2 * slow)


def power_kl_exponent(exponent: float) -> float:
    r"""The KL exponent q = 1 - 1/p of :math:`|x|^p`, p > 1.

    With it `kl_rates` has 1 / (p - 2) for the iterates.

    Example:
        >>> power_kl_exponent(4.0)
        0.75
    """
    if not exponent > 1:
        raise ValueError(f"exponent must be > 1, got {exponent:g}")
    return 1 - 1 / exponent


# ── Absolute errors: SAM, F-SAM, VaSSO, RSAM ─────────────────────────────────────────


def convex_descent(
    value: Real,
    squared_gradient: Real,
    *,
    step_size: Real,
    smoothness: float,
    radius: Real,
) -> np.ndarray:
    r"""Upper bound of f after a step of SAM on a convex function (Theorem 3.2).

    .. math::

        f(x^{k+1}) \le f(x^k) - \frac{t_k}{2} \|\nabla f(x^k)\|^2
        + \frac{L^3 t_k^2 \rho_k^2}{2}

    The error enters with the square of the step size: a constant radius needs only
    :math:`\sum_k t_k^2 < \infty`. ``step_size`` is at most 1/L.

    Example:
        >>> known = {"step_size": 0.5, "smoothness": 2.0, "radius": 0.5}
        >>> float(convex_descent(1.0, 4.0, **known))
        0.25
    """
    _check_below_inverse(step_size, smoothness)
    _check_nonnegative("radius", radius)
    value, squared, t = map(np.asarray, (value, squared_gradient, step_size))
    error = smoothness**3 * t**2 * np.asarray(radius) ** 2
    return value - t / 2 * squared + error / 2


def absolute_error_descent(
    value: Real,
    squared_gradient: Real,
    *,
    step_size: Real,
    smoothness: float,
    error: Real,
) -> np.ndarray:
    r"""Upper bound of f after a step with an absolute error (proof of Theorem 3.3).

    .. math::

        f(x^{k+1}) \le f(x^k) - c_1 t_k \|\nabla f(x^k)\|^2 + c_2 t_k \varepsilon_k

    with the sharpest constants that the proof allows,
    :math:`c_1 = (2 - Lt_k - \varepsilon_k + Lt_k\varepsilon_k) / 2` and
    :math:`c_2 = (1 - Lt_k + Lt_k\varepsilon_k) / 2`. For SAM, F-SAM, VaSSO and RSAM
    :math:`\varepsilon_k = L\rho_k`. ``step_size`` is at most 1/L, ``error`` in [0, 2).

    Example:
        >>> known = {"step_size": 0.5, "smoothness": 1.0, "error": 0.5}
        >>> float(absolute_error_descent(1.0, 2.0, **known))
        0.46875
    """
    _check_below_inverse(step_size, smoothness)
    if not np.all((np.asarray(error) >= 0) & (np.asarray(error) < 2)):
        raise ValueError(
            f"error must be in [0, 2), as limsup eps_k < 2 requires, got up to "
            f"{np.max(error):g}"
        )
    value, squared, t = map(np.asarray, (value, squared_gradient, step_size))
    eps, lt = np.asarray(error), smoothness * t
    c1, c2 = (2 - lt - eps + lt * eps) / 2, (1 - lt + lt * eps) / 2
    return value - c1 * t * squared + c2 * t * eps


# ── Constant step size and radius: Example 3.1 ───────────────────────────────────────


def two_cycle(step_size: Real, radius: Real, curvature: Real) -> np.ndarray:
    r"""Amplitude :math:`t \rho l / (2 - t l)` of SAM's cycle x -> -x (ours).

    With a constant step size and radius, SAM on a quadratic jumps between the two
    points at this distance from the minimizer, along the eigenvector of the eigenvalue
    l, if t < 2/l. Example 3.1 states that it does not converge, without the amplitude.

    Example:
        >>> float(round(two_cycle(step_size=1 / 3, radius=0.1, curvature=1.5), 6))
        0.033333
    """
    t, rho, l = map(np.asarray, (step_size, radius, curvature))  # noqa: E741
    _check_nonnegative("radius", radius)
    if not np.all((l > 0) & (t > 0) & (t * l < 2)):
        raise ValueError(
            "t l must be in (0, 2), where gradient descent converges, got "
            f"{np.min(t * l):g} to {np.max(t * l):g}"
        )
    return t * rho * l / (2 - t * l)


def neighbourhood(
    step_size: Real, radius: Real, smoothness: float, pl: float, gap: Real, steps: Real
) -> np.ndarray:
    r"""Bound of f - f* after steps of SAM with constants: linear to a neighbourhood.

    .. math::

        (1 - t\mu(2 - Lt))^k (f(x^1) - f^*) + \frac{L^3 t \rho^2}{2\mu(2 - Lt)}

    For convex f, t <= 1/L (derived). The paper quotes it from Dai et al. 2023 with
    :math:`L^2`, which is below the 2-cycle if L > 1: at t = 1/L on a parabola the
    second term here is the gap of `two_cycle` itself.

    Example:
        >>> round(float(neighbourhood(0.5, 0.1, 2.0, 2.0, 1.0, 1)), 6)
        0.01
    """
    _check_below_inverse(step_size, smoothness)
    _check_nonnegative("radius", radius)
    if not 0 < pl <= smoothness:
        raise ValueError(f"pl must be in (0, L], got {pl:g} with L = {smoothness:g}")
    t, rho = np.asarray(step_size), np.asarray(radius)
    rate = t * pl * (2 - smoothness * t)
    floor = smoothness**3 * t * rho**2 / (2 * pl * (2 - smoothness * t))
    return (1 - rate) ** np.asarray(steps) * np.asarray(gap) + floor


class Example31(NamedTuple):
    """What Example 3.1 (proof in Appendix A.1) states for a quadratic.

    Attributes:
        low: lower end of its open interval of step sizes, 1/s - 1/(s + l) with the
            smallest and largest eigenvalues s and l.
        high: upper end, 1/s.
        valid_below: the proof uses ||I - tA|| <= 1 - ts, which holds up to
            t = 2/(s + l) only (ours); at or below ``low`` if l/s >= 2.
    """

    low: float
    high: float
    valid_below: float


def example_3_1(smallest: float, largest: float) -> Example31:
    """The step sizes of Example 3.1.

    Example:
        >>> example_3_1(1.0, 3.0)  # empty: valid below 0.5, from 0.75 on
        Example31(low=0.75, high=1.0, valid_below=0.5)
    """
    if not 0 < smallest <= largest:
        raise ValueError(
            f"smallest must be in (0, largest], got {smallest:g} with {largest:g}"
        )
    return Example31(
        low=1 / smallest - 1 / (smallest + largest),
        high=1 / smallest,
        valid_below=2 / (smallest + largest),
    )


def example_3_1_bound(step_size: Real, radius: Real, smallest: Real) -> np.ndarray:
    r"""The distance :math:`t \rho s / (1 - t s)` within which Example 3.1 stays.

    For starts within it, s the smallest eigenvalue of the Hessian and t < 1/s.

    Example:
        >>> float(round(example_3_1_bound(0.8, 0.1, 1.0), 6))
        0.4
    """
    t, rho, s = map(np.asarray, (step_size, radius, smallest))
    _check_nonnegative("radius", radius)
    if not np.all((s > 0) & (t > 0) & (t * s < 1)):
        raise ValueError(
            f"t s must be in (0, 1), got {np.min(t * s):g} to {np.max(t * s):g}"
        )
    return t * rho * s / (1 - t * s)


def _check_smoothness(smoothness: float) -> None:
    if not 0 < smoothness < np.inf:
        raise ValueError(f"smoothness must be finite and > 0, got {smoothness:g}")


def _check_nu(nu: Real) -> None:
    if not np.all((np.asarray(nu) >= 0) & (np.asarray(nu) < 1)):
        raise ValueError(f"nu must be in [0, 1), got {np.max(nu):g}")


def _check_nonnegative(name: str, values: Real) -> None:
    if not np.all(np.asarray(values) >= 0):
        raise ValueError(f"{name} must be >= 0, got {np.min(values):g}")


def _check_below_inverse(step_size: Real, smoothness: float) -> None:
    _check_smoothness(smoothness)
    _check_nonnegative("step_size", step_size)
    if not np.all(np.asarray(step_size) <= (1 + 1e-12) / smoothness):
        raise ValueError(
            f"step_size must be <= 1/L, got {np.max(step_size):g} with 1/L = "
            f"{1 / smoothness:g}"
        )
