"""Rules and bounds of Si and Yun: against SAM's own steps, and what they refuse."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax.theory import descent, finite_sums, problems, sampling
from sam_jax.theory.step_sizes import Constants, Rule, si_yun
from tests.theory import runs

QUADRATIC = Constants(0.1, 1.0)


def _means(problem, oracle, eta, rho, checkpoints, chains=1):
    """Mean of ||grad f||^2 before each checkpoint and f - f* at it, over chains."""

    @jax.jit
    @jax.vmap
    def descend(key):
        trace = descent.descend(
            runs.sam(rho, eta),
            oracle,
            problem.start,
            checkpoints,
            record=problem.gap,
            mean_of=problem.squared_gradient,
            key=key,
        )
        return trace.means, trace.recorded

    found = descend(jax.random.split(jax.random.key(0), chains))
    return tuple(np.asarray(f).mean(0) for f in found)


def _start_gap(problem):
    return float(problem.gap(jnp.asarray(problem.start)))


CHECKPOINTS = np.array([1, 10, 100, 1000])


@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_deterministic_bounds_hold(rho):
    problem = problems.quadratic([0.1, 1.0], [1.0, 1.0])
    gap = _start_gap(problem)
    eta = si_yun.strongly_convex(QUADRATIC, rho, gap, 1000)
    means, gaps = _means(problem, descent.exact(problem), eta, rho, CHECKPOINTS)
    for measured, bound in (
        (gaps, si_yun.strongly_convex_bound),
        (means, si_yun.convex_bound),
        (means, si_yun.nonconvex_bound),
    ):
        assert (measured <= bound(QUADRATIC, Rule(rho, eta), gap, CHECKPOINTS)).all()


def test_the_strongly_convex_floor_is_not_far_above_sam():
    # A bound that is too large by orders of magnitude would be of no use.
    problem = problems.quadratic([1.0], [1.0])
    _, gaps = _means(problem, descent.exact(problem), 0.1, 0.1, [500])
    bound = si_yun.strongly_convex_bound(
        Constants(1.0, 1.0), Rule(0.1, 0.1), 0.5, [500]
    )
    assert gaps[0] <= bound[0] <= 8 * gaps[0]


@pytest.mark.parametrize("kind", [descent.same_sample, descent.full_ascent])
def test_stochastic_bounds_hold(kind):
    problem = finite_sums.parabolas([-1.0, -1.0, 2.0])
    oracle = kind(problem, sampling.uniform(3))
    run = Constants(1.0, 1.0, variance=2.0), Rule(0.3, 0.05), _start_gap(problem)
    means, gaps = _means(problem, oracle, 0.05, 0.3, CHECKPOINTS, chains=100)
    assert (means <= si_yun.stochastic_bound(*run, CHECKPOINTS)).all()
    bound = si_yun.stochastic_strongly_convex_bound(*run, CHECKPOINTS)
    assert (gaps <= bound).all()


def test_n_sam_bound_has_the_deterministic_one_as_its_limit():
    run = Constants(0.0, 2.0, variance=0.0), Rule(0.1, 0.1), 3.0, 50
    assert si_yun.n_sam_nonconvex_bound(*run) == si_yun.nonconvex_bound(*run)


@pytest.mark.parametrize(
    "name, noise",
    [("n_sam_nonconvex", "variance"), ("m_sam_lipschitz", "second_moment")],
)
def test_rules_minimize_their_bounds(name, noise):
    known = Constants(0.0, 2.0)._replace(**{noise: 5.0})
    eta = getattr(si_yun, name)(known, 3.0, 10_000)
    assert eta < 1 / 2
    near = Rule(0.1, eta * np.array([0.9, 1.0, 1.1]))
    values = getattr(si_yun, f"{name}_bound")(known, near, 3.0, 10_000)
    assert values.argmin() == 1


def test_rules_are_capped_at_their_limits():
    # Without noise above beta rho nothing asks for small steps.
    noisy, clean = (Constants(1.0, 4.0, variance=v) for v in (16.0, 0.0))
    assert si_yun.nonconvex(noisy) == 0.25
    assert si_yun.convex(noisy, rho=0.1, gap=1.0, steps=1) == 0.125
    assert si_yun.stochastic_convex(noisy, 1.0, 1.0, 10**6) == 0.125
    assert si_yun.stochastic_strongly_convex(noisy, 1.0, 1.0, 10**6) == 0.125
    assert si_yun.n_sam_nonconvex(clean, 1.0, 10**6) == 0.25


def test_strongly_convex_rule_has_the_stated_limit():
    steps = 10**7
    eta = si_yun.strongly_convex(QUADRATIC, 0.1, 0.55, steps)
    cycle = si_yun.cycle_amplitude(eta, smoothness=1.0, rho=0.1)
    lower = si_yun.strongly_convex_lower_bound(QUADRATIC, 0.1, steps)
    assert cycle**2 / 2 == pytest.approx(lower * (eta * 0.1 * steps) ** 2, rel=1e-3)


def test_strongly_convex_rule_decays_to_its_floor():
    eta = si_yun.strongly_convex(Constants(0.1, 2.0), 0.3, 5.0, 10_000)
    left = math.exp(-0.1 * eta * 10_000) * 5.0
    assert left == pytest.approx(2.0**4 * 0.3**2 / (0.1**3 * 10_000**2))


def test_rules_balance_the_terms_of_their_bounds():
    known, rho, gap, steps = Constants(0.1, 2.0, variance=5.0), 0.3, 5.0, 10**5
    excess = 5.0 - (2.0 * rho) ** 2
    eta = si_yun.convex(known, rho, gap, steps)
    bound = si_yun.convex_bound(known, Rule(rho, eta), gap, steps)
    assert bound == pytest.approx(2 * gap / (eta * steps))
    eta = si_yun.stochastic_convex(known, rho, gap, steps)
    assert gap / (eta * steps) == pytest.approx(2.0 * eta * excess)
    eta = si_yun.stochastic_strongly_convex(known, rho, gap, steps)
    left = math.exp(-0.1 * eta * steps) * gap
    assert left == pytest.approx(2.0 * excess / (0.1**2 * steps))


def test_slow_descent_is_sam():
    problem = problems.quadratic([0.1], [1.0])
    found = runs.recorded(problem, runs.sam(0.2, 0.3), [0, 7], lambda x: x[0])
    expected = si_yun.slow_descent(QUADRATIC, Rule(0.2, 0.3), 1.0, [0, 7])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_stall_is_where_the_perturbed_point_is_a_minimum():
    beta, rho = 2.0, 0.3
    problem = problems.sinusoid(beta, rho, 0.02)
    [slope], [gap] = runs.recorded(
        problem,
        runs.sam(rho, 0.1),
        [500],
        lambda x: (problem.gradient(x)[0], problem.gap(x)),
    )
    assert slope == pytest.approx(beta * rho * si_yun.stall_gradient(), rel=1e-9)
    assert gap == pytest.approx(beta * rho**2 * si_yun.stall_gap(), rel=1e-9)
    assert si_yun.stall_gradient() ** 2 == pytest.approx(27 / (100 * math.pi**2))
    assert si_yun.stall_gap() == pytest.approx(9 / (50 * math.pi**2))


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_cycle_amplitude_is_sam_with_momentum(momentum):
    problem = problems.quadratic([2.0], [1.0])
    eta = 0.6
    tx = optax.chain(
        sam_jax.sam(0.1), optax.ema(momentum, debias=False), optax.scale(-eta)
    )
    found = runs.recorded(problem, tx, [998, 999], lambda x: x[0])
    expected = si_yun.cycle_amplitude(eta, smoothness=2.0, rho=0.1, momentum=momentum)
    np.testing.assert_allclose(np.abs(found), expected, rtol=1e-9)
    assert found[0] * found[1] < 0


@pytest.mark.parametrize(
    ("centers", "curvatures"),
    [([-1.0, -1.0, 2.0], [1.0] * 3), ([-2.0, -2.0, 20.0], [1.0, 1.0, 0.2])],
)
def test_stationary_moments_are_kept_by_a_step(centers, curvatures):
    # Exact: the mean and second moment after one step from any distribution with
    # these moments, through SAM's own step at two points with that mean and variance.
    eta, rho = 0.01, 0.3
    problem = finite_sums.parabolas(centers, curvatures)
    mean, variance = si_yun.stationary_moments(
        eta, centers=centers, curvatures=curvatures, rho=rho
    )
    tx = runs.sam(rho, eta)
    after = []
    for x in (mean - math.sqrt(variance), mean + math.sqrt(variance)):
        for row in range(3):

            def loss(z, row=row):
                return problem.component_values(z, np.array([row]))[0]

            at = jnp.array([x])
            updates, _ = tx.update(
                jax.grad(loss)(at), tx.init(at), at, grad_fn=jax.grad(loss)
            )
            after.append(float(at[0] + updates[0]))
    assert np.mean(after) == pytest.approx(mean, rel=1e-9)
    assert np.var(after) == pytest.approx(variance, rel=1e-9)


def test_stationary_moments_have_the_paper_like_closed_form():
    eta, rho = 0.02, 0.3
    mean, variance = si_yun.stationary_moments(
        eta, centers=[-1.0, -1.0, 2.0], curvatures=[1.0] * 3, rho=rho
    )
    assert mean == pytest.approx(-rho / 3)
    assert variance == pytest.approx(eta * 2 / 9 * (3 + 2 * rho) ** 2 / (2 - eta))


FLAT = Constants(0.0, 2.0, variance=1.0)


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        ("strongly_convex", (Constants(2.0, 1.0), 0.1, 1, 9), "mu = 2 and L = 1"),
        ("strongly_convex_bound", (FLAT, Rule(0.1, 0.1), 1, 9), "mu = 0 and L = 2"),
        ("convex_bound", (FLAT, Rule(0.1, 0.3), 1, 9), "at most 1 / 4: 0.3 > 0.25"),
        (
            "nonconvex_bound",
            (FLAT, Rule(0.1, [0.1, 0.6]), 1, 9),
            "eta must be at most 1 / 2: 0.6 > 0.5",
        ),
        ("stochastic_bound", (FLAT, Rule(0.1, 0.6), 1, 9), "0.6 > 0.5"),
        (
            "stochastic_bound",
            (FLAT._replace(variance=-1.0), Rule(0.1, 0.1), 1, 9),
            "variance must be a finite number >= 0, got -1.0",
        ),
        (
            "n_sam_nonconvex",
            (Constants(0.0, 2.0), 1, 9),
            "variance must be a finite number >= 0, got inf",
        ),
        (
            "m_sam_lipschitz",
            (Constants(0.0, 1.0), 1, 9),
            "second_moment must be a finite number >= 0, got inf",
        ),
        ("convex", (FLAT, 0.0, 1, 5), "rho must be a finite number > 0, got 0.0"),
        ("convex", (FLAT, 0.1, math.nan, 5), "gap must be a finite number > 0"),
        ("stall_gradient", (2.0,), "sin 0.909297 at 2"),
    ],
)
def test_impossible_constants_are_refused(call, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(si_yun, call)(*arguments)


@pytest.mark.parametrize(
    ("eta", "momentum", "message"),
    [
        (2.0, 0.0, r"must be below 2 \* \(1 \+ momentum\): 2 >= 2"),
        (0.1, 1.0, r"momentum must be in \[0, 1\), got 1.0"),
    ],
)
def test_no_cycle(eta, momentum, message):
    with pytest.raises(ValueError, match=message):
        si_yun.cycle_amplitude(eta, smoothness=1.0, rho=0.1, momentum=momentum)


@pytest.mark.parametrize(
    ("eta", "centers", "message"),
    [
        (0.1, [1.0, 2.0, 3.0], "centers must have 2 different values, got 3"),
        (2.5, [1.0, 2.0], "must be below 1: 2.25 >= 1"),
    ],
)
def test_no_stationary_distribution(eta, centers, message):
    curvatures = [1.0] * len(centers)
    with pytest.raises(ValueError, match=message):
        si_yun.stationary_moments(eta, centers=centers, curvatures=curvatures, rho=0.1)
