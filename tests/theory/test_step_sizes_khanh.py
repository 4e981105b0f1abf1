"""Step sizes, rates and the two-cycle of Khanh et al. 2024."""

import numpy as np
import pytest

from sam_jax.theory.step_sizes import khanh


def test_at_the_step_size_limit_a_share_delta_of_the_decrease_is_left():
    t = khanh.relative_error_step_size(smoothness=3.0, nu=0.4, delta=0.3)
    # f+ = f - (delta t / 2) ||grad f||^2
    right = khanh.relative_error_descent(1.0, 2.0, step_size=t, smoothness=3.0, nu=0.4)
    assert right == pytest.approx(1 - 0.3 * t / 2 * 2.0)
    # Without an error and with delta -> 0 it is the 2/L of gradient descent.
    assert khanh.relative_error_step_size(4.0, 0.0, 1e-9) == pytest.approx(0.5)


def test_the_linear_factor_is_the_descent_inequality_under_pl():
    step_size, smoothness, pl, nu = 0.1, 2.0, 0.5, 0.3
    factor = khanh.linear_factor(step_size, smoothness, pl, nu)
    # ||grad f||^2 = 2 pl (f - f*) with f* = 0
    right = khanh.relative_error_descent(
        1.0, 2 * pl, step_size=step_size, smoothness=smoothness, nu=nu
    )
    assert factor == pytest.approx(float(right))
    # Exact for gradient descent where L = mu and t = 1/L: one step.
    assert khanh.linear_factor(0.5, 2.0, 2.0, 0.0) == pytest.approx(0.0)


def test_the_neighbourhood_ends_at_the_cycle_of_the_largest_step():
    L, rho, gap = 3.0, 0.2, 1.7
    cycle = khanh.two_cycle(1 / L, rho, L)
    bounds = khanh.neighbourhood(1 / L, rho, L, L, gap, np.array([0, 1, 1_000]))
    floor = L / 2 * cycle**2
    np.testing.assert_allclose(bounds, [gap + floor, floor, floor], rtol=1e-12)
    # Without a radius it is the rate of gradient descent.
    assert khanh.neighbourhood(0.1, 0.0, L, 1.0, 1.0, 2) == pytest.approx(0.83**2)
    assert khanh.neighbourhood(0.0, 0.1, L, 1.0, gap, 2) == gap  # without a step


def test_sufficient_decrease_is_attained_by_gradient_descent_on_a_parabola():
    t, L, x = 0.4, 1.5, 2.0
    after = x - t * L * x
    fall = L * (x**2 - after**2) / 2
    sigma = khanh.sufficient_decrease(t, L, 0.0)
    assert fall == pytest.approx(sigma * L * x * abs(after - x))


@pytest.mark.parametrize("exponent", [2.5, 3.0, 4.0, 10.0])
def test_kl_rates_of_powers(exponent):
    rates = khanh.kl_rates(khanh.power_kl_exponent(exponent))
    slow = 1 / (exponent - 2)
    assert rates == pytest.approx((slow, slow, 2 * slow))


def test_the_absolute_and_the_convex_bound_without_error_are_gradient_descent():
    # f+ <= f - t (1 - L t / 2) ||grad f||^2, and with t / 2 in its place
    absolute = khanh.absolute_error_descent(
        1.0, 4.0, step_size=0.25, smoothness=2.0, error=0.0
    )
    convex = khanh.convex_descent(1.0, 4.0, step_size=0.25, smoothness=2.0, radius=0.0)
    assert absolute == pytest.approx(1 - 0.25 * 0.75 * 4)
    assert convex == pytest.approx(1 - 0.125 * 4)


def test_the_bounds_are_attained_in_the_two_cycle_of_step_size_one_over_l():
    # There x is at distance rho, f = L rho^2 / 2 and ||grad f|| = L rho for ever.
    smoothness, rho = 3.0, 0.2
    known = {"step_size": 1 / 3, "smoothness": smoothness}
    assert khanh.two_cycle(1 / 3, rho, smoothness) == pytest.approx(rho)
    value, squared = smoothness * rho**2 / 2, (smoothness * rho) ** 2
    assert khanh.convex_descent(value, squared, radius=rho, **known) == pytest.approx(
        value
    )
    error = smoothness * rho
    right = khanh.absolute_error_descent(value, squared, error=error, **known)
    # ab <= (1 + b^2)/2 is an equality for ||grad f|| = 1 only.
    assert right >= value
    one = khanh.absolute_error_descent(1 / 6, 1.0, error=1.0, **known)
    assert one == pytest.approx(1 / 6)


@pytest.mark.parametrize("ratio, empty", [(1.5, False), (1.99, False), (2.0, True)])
def test_the_proof_of_example_3_1_needs_a_ratio_below_two(ratio, empty):
    stated = khanh.example_3_1(2.0, 2.0 * ratio)
    assert stated.high == pytest.approx(0.5)
    assert (stated.valid_below <= stated.low + 1e-12) == empty


def test_inequalities_take_arrays():
    t = np.array([0.1, 0.2])
    right = khanh.convex_descent(
        np.ones(2), np.ones(2), step_size=t, smoothness=1.0, radius=0.0
    )
    np.testing.assert_allclose(right, 1 - t / 2)


REFUSED = {
    "smoothness must be finite and > 0, got 0": lambda: khanh.relative_error_step_size(
        0.0, 0.5, 0.1
    ),
    r"nu must be in \[0, 1\), got 1": lambda: khanh.relative_error_step_size(
        1.0, 1.0, 0.1
    ),
    r"delta must be in \(0, 2 - 2 nu\), got 1.5 with 2 - 2 nu = 1": lambda: (
        khanh.relative_error_step_size(1.0, 0.5, 1.5)
    ),
    r"nu must be in \[0, 1\)": lambda: khanh.unnormalized_radius(1.0, -0.1),
    r"pl must be in \(0, L\], got 2 with L = 1": lambda: khanh.linear_factor(
        0.1, 1.0, 2.0, 0.5
    ),
    r"step_size must be in \(0, .*\), got 0.5 with 0.444": lambda: khanh.linear_factor(
        0.5, 1.0, 1.0, 0.5
    ),
    r"q must be in \(1/2, 1\), got 0.5": lambda: khanh.kl_rates(0.5),
    r"q must be in \(1/2, 1\), got 1": lambda: khanh.kl_rates(1.0),
    "exponent must be > 1, got 1": lambda: khanh.power_kl_exponent(1.0),
    "step_size must be <= 1/L, got 0.6 with 1/L = 0.5": lambda: khanh.convex_descent(
        1.0, 1.0, step_size=[0.1, 0.6], smoothness=2.0, radius=0.1
    ),
    "radius must be >= 0, got -0.1": lambda: khanh.convex_descent(
        1.0, 1.0, step_size=0.1, smoothness=2.0, radius=-0.1
    ),
    r"error must be in \[0, 2\), .* got up to 2": lambda: khanh.absolute_error_descent(
        1.0, 1.0, step_size=0.1, smoothness=2.0, error=2.0
    ),
    r"t l must be in \(0, 2\), .* got 2.5 to 2.5": lambda: khanh.two_cycle(
        1.0, 0.1, 2.5
    ),
    r"pl must be in \(0, L\], got 3 with L = 2": lambda: khanh.neighbourhood(
        0.1, 0.1, 2.0, 3.0, 1.0, 1
    ),
    r"smallest must be in \(0, largest\], got 2 with 1": lambda: khanh.example_3_1(
        2.0, 1.0
    ),
    r"t s must be in \(0, 1\), got 1 to 1": lambda: khanh.example_3_1_bound(
        1.0, 0.1, 1.0
    ),
}


@pytest.mark.parametrize("message, make", REFUSED.items())
def test_impossible_constants_are_refused_with_both_sides(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
