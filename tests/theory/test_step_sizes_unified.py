"""The rules and bounds of Unified SAM against published values and brute force."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.theory import finite_sums, problems, sampling
from sam_jax.theory.sampling import ExpectedResidual
from sam_jax.theory.step_sizes import Constants, Rule, unified

BATCH = Constants(0.1, 10.0)
PARABOLAS = Constants(1.0, 1.0, ExpectedResidual(1.0, 0.0, 2.0))
# Uniform single samples on the ridge problem of the authors' Figure 3.
FIGURE_3 = Constants(0.04, 8.41401723, ExpectedResidual(8.41401723, 0.0, 1.0))
BY_MEAN = Constants(0.04, 8.41401723, ExpectedResidual(3.30157413, 0.0, 1.0))
MANY = [
    Constants(mu, L, ExpectedResidual(a, b, c))
    for mu, L in [(0.1, 10.0), (1.0, 1.0), (0.5, 3.0)]
    for a, b, c in [(0.0, 1.0, 0.0), (L, 0.0, 2.0), (0.3, 0.8, 0.5)]
]
LAMS = [0.0, 0.3, 1.0]


def gain_and_push(known, lam, rho, gamma):
    """Q and R of a step's inequality."""
    L, square = known.L, (1 - lam) ** 2
    q = gamma * L * rho * square + L * gamma**2 * (2 * L**2 * rho**2 * square + 1)
    return q, gamma * L * rho * lam**2 * (1 + 2 * gamma * L**2 * rho)


@pytest.mark.parametrize(
    "known, lam, rho, gamma",
    [
        (BATCH, 0.0, 1 / 60, 0.0236842105),
        (BATCH, 0.5, 1 / 30, 0.0236842105),
        (BATCH, 1.0, 0.05, 0.025),
        (PARABOLAS, 0.0, 1 / 6, 0.2368421),
        (PARABOLAS, 0.5, 1 / 3, 0.2368421),
        (PARABOLAS, 1.0, 0.5, 0.25),
        (FIGURE_3, 0.5, 0.00055968, 0.00014125),
        (BY_MEAN, 0.5, 0.00140585, 0.00035995),
        (FIGURE_3, 1.0, 0.0594246, 0.00014125),
        (BY_MEAN, 1.0, 0.0594246, 0.00035998),
    ],
)
def test_default_rule_is_the_published_one(known, lam, rho, gamma):
    assert unified.default(known, lam) == pytest.approx((rho, gamma), rel=2e-5)


@pytest.mark.parametrize(
    "lam, rho",
    [(0.0, 0.0125), (0.1, 0.015432), (0.2, 0.019531), (0.3, 0.025), (1.0, 0.025)],
)
def test_simplified_rule_is_the_published_one(lam, rho):
    assert unified.simplified(BATCH, lam) == pytest.approx((rho, 0.0125), rel=5e-5)


def test_usam_rule():
    rule = unified.usam_rule(4.0)
    assert rule == pytest.approx((1 / 24, 0.236842 / 4), rel=1e-5)
    assert unified.andriushchenko(4.0) == (1 / 8, 1 / 8)


@pytest.mark.parametrize("lam", LAMS)
def test_deterministic_corollary(lam):
    L = 10.0
    spread = 1 + 2 * (1 - lam) ** 2
    assert unified.largest_radius(BATCH, lam) == pytest.approx(1 / (L * spread))
    rho = 0.3 / (L * spread)
    gamma = (1 - L * rho * spread) / (2 * L * (1 + 2 * L**2 * rho**2 * (1 - lam) ** 2))
    assert unified.largest_step_size(BATCH, lam, rho) == pytest.approx(gamma)
    n = 100 * lam**2 * rho * (1 + 2 * gamma * L**2 * rho)
    assert unified.floor(BATCH, lam, Rule(rho, gamma)) == pytest.approx(n)


@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize("known", MANY)
def test_theorem_3_2_is_the_fixed_point_of_its_inequality(known, lam):
    # At gamma* what the bracket leaves is gamma/2 exactly; N is where a step adds what
    # it takes.
    (a, b, c), mu, L = known.residual, known.mu, known.L
    rho, gamma = rule = unified.default(known, lam)
    q, push = gain_and_push(known, lam, *rule)
    kept = gamma * (1 - L * rho / 2) - b * q - a * q / mu
    assert kept == pytest.approx(gamma / 2)
    expected = (q * c + push) / (gamma * mu)
    assert unified.floor(known, lam, rule) == pytest.approx(expected)
    bounds = unified.bound(known, lam, rule, 5.0, [0, 1, 2, 10**7])
    assert np.diff(bounds)[1] == pytest.approx(np.diff(bounds)[0] * (1 - gamma * mu))
    assert bounds[-1] == pytest.approx(unified.floor(known, lam, rule))


@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize("known", MANY)
def test_simplified_rule_is_allowed(known, lam):
    rho, gamma = rule = unified.simplified(known, lam)
    assert rho < unified.largest_radius(known, lam)
    assert gamma <= unified.largest_step_size(known, lam, rho)
    assert unified.floor(known, lam, rule) >= 0


def test_floors():
    for lam, n in [(0.0, 0.833), (0.5, 0.763), (1.0, 1.125)]:
        rule = unified.default(PARABOLAS, lam)
        assert unified.floor(PARABOLAS, lam, rule) == pytest.approx(n, abs=5e-4)
        clean = unified.interpolated(PARABOLAS)
        assert (unified.floor(clean, lam, rule) == 0) == (lam == 0)


def test_sgd_is_the_limit():
    assert unified.largest_step_size(PARABOLAS, 0.7, 0.0) == pytest.approx(0.5)


def test_constants_of_problems():
    problem = finite_sums.parabolas([-1.0, -1.0, 2.0])
    assert unified.constants(problem, sampling.uniform(3)) == PARABOLAS
    assert unified.constants(problem, sampling.full(3), 2.0).L == 2.0
    quadratic = problems.quadratic([0.1, 10.0], [1.0, 1.0])
    assert unified.deterministic(quadratic) == BATCH


@pytest.mark.parametrize("lam", LAMS)
def test_decreasing_schedules(lam):
    rule = unified.default(PARABOLAS, lam)
    rho, gamma = unified.decreasing(1.0, rule)
    switch = unified.switch(1.0, rule)
    for t in range(40):
        free_rho, free_gamma = 1 / (2 * t + 1), (2 * t + 1) / (t + 1) ** 2
        assert float(rho(t)) == pytest.approx(min(free_rho, rule.rho))
        assert float(gamma(t)) == pytest.approx(min(free_gamma, rule.gamma))
        assert (t >= switch) == (free_rho <= rule.rho and free_gamma <= rule.gamma)
    count = jnp.asarray(3, jnp.int32)
    assert jax.jit(gamma)(count) == gamma(3)


def test_switch_without_caps():
    assert unified.switch(1.0, Rule(1.0, 1.0)) == 0


@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize("known", MANY)
def test_decreasing_bound_is_above_its_own_recursion(known, lam):
    rule = unified.default(known, lam)
    steps = 2 * unified.switch(known.mu, rule) + 50
    c, mu = known.residual.C, known.mu
    gap, seen = 7.0, [7.0]
    for t in range(steps):
        rho = min(1 / (2 * t + 1), rule.rho)
        gamma = min((2 * t + 1) / ((t + 1) ** 2 * mu), rule.gamma)
        q, push = gain_and_push(known, lam, rho, gamma)
        gap = (1 - gamma * mu) * gap + c * q + push
        seen.append(gap)
    ends = np.arange(steps + 1)
    bounds = unified.decreasing_bound(known, lam, rule, 7.0, ends)
    assert (np.array(seen) <= bounds * (1 + 1e-9)).all()
    if c or lam:  # 1/T in the end
        far = unified.decreasing_bound(known, lam, rule, 7.0, [10**9, 2 * 10**9])
        assert far[0] / far[1] == pytest.approx(2, rel=1e-3)


def test_andriushchenko_decreasing():
    rho, gamma = unified.andriushchenko_decreasing(0.5, 2.0)
    assert float(gamma(0)) == 0.25
    assert float(gamma(999)) == pytest.approx(7996 / (1.5 * 1000**2))
    assert float(rho(999)) == pytest.approx(math.sqrt(float(gamma(999)) / 2))


@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize(
    "residual",
    [ExpectedResidual(0, 1, 0), ExpectedResidual(2, 0, 0.5), ExpectedResidual(1, 3, 0)],
)
def test_nonconvex_plan_meets_its_target(lam, residual):
    known = Constants(0.0, 2.0, residual)
    for epsilon in (1.0, 0.1, 0.01):
        rho, gamma, steps = unified.nonconvex(known, lam, 0.7, epsilon)
        rule = Rule(rho, gamma)
        reached = unified.nonconvex_bound(known, lam, rule, 0.7, [steps])[0]
        assert reached <= epsilon**2 * (1 + 1e-9)
        assert steps >= 18 * 0.7 / (gamma * epsilon**2) * (1 - 1e-9)


def test_nonconvex_steps():
    # lam = 0, only A: 5184 L A^2 d / e^2 = 5184 * 2 * 1 / 0.01, times d L / e^2 = 200.
    known = Constants(0.0, 2.0, ExpectedResidual(1.0, 0.0, 0.0))
    assert unified.nonconvex(known, 0.0, 1.0, 0.1).steps == 200 * 1_036_800
    assert unified.nonconvex(known, 1.0, 1.0, 0.1).steps == 200 * 145_800
    only_c = Constants(0.0, 2.0, ExpectedResidual(0.0, 0.0, 1.0))
    plan = unified.nonconvex(only_c, 0.0, 1.0, 0.1)
    assert plan == pytest.approx((0.01 / 24, 0.02 / 54, 200 * 24_300))


@pytest.mark.parametrize("lam, expected", [(0.5, 2.62222e-05), (1.0, 2.55102e-04)])
def test_two_cycle(lam, expected):
    rule = unified.default(BATCH, lam)
    assert unified.two_cycle(10.0, lam, rule) == pytest.approx(expected, rel=1e-5)
    # One step of the method leads from c to -c.
    c = math.sqrt(2 * unified.two_cycle(10.0, lam, rule) / 10)
    ahead = c + rule.rho * (1 - lam + lam / (10 * c)) * 10 * c
    assert c - rule.gamma * 10 * ahead == pytest.approx(-c)


@pytest.mark.parametrize("lam", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_parabolas_limit(lam):
    centers, rule = np.array([-1.0, -1.0, 2.0]), Rule(0.3, 0.02)
    limit = unified.parabolas_limit(centers, lam, rule)
    k = 1 + 0.3 * (1 - lam)
    assert limit.mean == pytest.approx(-lam * 0.3 / 3 / k)
    spread = 0.02**2 * 2 / 9 * (3 * k + 0.6 * lam) ** 2
    assert limit.variance == pytest.approx(spread / (1 - (1 - 0.02 * k) ** 2))
    assert limit.gap == pytest.approx((limit.mean**2 + limit.variance) / 2)


REFUSED = {
    r"mu must be in \(0, L\], got mu = 2 and L = 1": lambda: unified.largest_radius(
        Constants(2.0, 1.0), 0.0
    ),
    "got mu = 0": lambda: unified.default(Constants(0.0, 1.0), 0.0),
    r"lam must be in \[0, 1\], got 1.5": lambda: unified.default(BATCH, 1.5),
    "lam must be": lambda: unified.simplified(BATCH, -0.1),
    r"rho\* = 0.1 \(Theorem 3.2\), got 0.2": lambda: unified.largest_step_size(
        BATCH, 1.0, 0.2
    ),
    r"rho must be in \[0, rho": lambda: unified.largest_step_size(BATCH, 1.0, 0.1),
    r"gamma\* = 0.025 \(Theorem 3.2 at rho = 0.05\), got 0.03": lambda: unified.floor(
        BATCH, 1.0, Rule(0.05, 0.03)
    ),
    r"gamma must be in \(0, gamma\*\]": lambda: unified.bound(
        BATCH, 1.0, Rule(0.05, 0.0), 1.0, [1]
    ),
    r"B mu \+ A must be > 0, got 0": lambda: unified.default(
        Constants(1.0, 1.0, ExpectedResidual(0.0, 0.0, 1.0)), 0.0
    ),
    "A, B and C must be finite and >= 0": lambda: unified.default(
        Constants(1.0, 1.0, ExpectedResidual(-1.0, 0.0, 1.0)), 0.0
    ),
    r"B Q / gamma <= \(1 - L rho\) / 2, got 2.14 > 0.45": lambda: (
        unified.nonconvex_bound(BATCH, 0.0, Rule(0.01, 0.2), 1.0, [9])
    ),
    "rho must be a .*number >= 0, got -0.1": lambda: unified.nonconvex_bound(
        BATCH, 0.0, Rule(-0.1, 0.1), 1.0, [9]
    ),
    "gamma must be a .*number > 0, got 0": lambda: unified.switch(1.0, Rule(0.1, 0)),
    "epsilon must be": lambda: unified.nonconvex(BATCH, 0.0, 1.0, 0.0),
    "gap must be": lambda: unified.nonconvex(BATCH, 0.0, math.inf, 0.1),
    "mu must be": lambda: unified.decreasing(0.0, Rule(1.0, 1.0)),
    "mu = 3 and L = 2": lambda: unified.andriushchenko_decreasing(3.0, 2.0),
    r"must be < 2, got 2": lambda: unified.two_cycle(10.0, 1.0, Rule(0.1, 0.2)),
    "no center may be their mean": lambda: unified.parabolas_limit(
        [-1.0, 0.0, 1.0], 1.0, Rule(0.3, 0.02)
    ),
    "between the centers 0 and 9, got 16": lambda: unified.parabolas_limit(
        [0.0, 9.0, 9.0], 1.0, Rule(30.0, 0.1)
    ),
    r"\(1 - lam\)\) must be < 2, got 2": lambda: unified.parabolas_limit(
        [0.0, 1.0], 1.0, Rule(0.0, 2.0)
    ),
}


@pytest.mark.parametrize("message, call", REFUSED.items())
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
