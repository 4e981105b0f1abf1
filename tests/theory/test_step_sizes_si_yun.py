"""Rules and bounds of Si and Yun: against SAM's own steps, and what they refuse."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax.theory import descent, finite_sums, problems, sampling
from sam_jax.theory.step_sizes import si_yun


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def _means(problem, oracle, eta, rho, checkpoints, chains=1):
    """Mean of ||grad f||^2 before each checkpoint and f - f* at it, over chains."""

    @jax.jit
    @jax.vmap
    def descend(key):
        trace = descent.descend(
            optax.chain(sam_jax.sam(rho), optax.sgd(eta)),
            oracle,
            problem.start,
            checkpoints,
            record=problem.gap,
            mean_of=lambda x: jnp.sum(problem.gradient(x) ** 2),
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
    known = {"smoothness": 1.0, "rho": rho, "gap": _start_gap(problem)}
    curved = known | {"strong_convexity": 0.1}
    eta = si_yun.strongly_convex(**curved, steps=1000)
    means, gaps = _means(problem, descent.exact(problem), eta, rho, CHECKPOINTS)
    assert (gaps <= si_yun.strongly_convex_bound(eta, CHECKPOINTS, **curved)).all()
    assert (means <= si_yun.convex_bound(eta, CHECKPOINTS, **known)).all()
    assert (means <= si_yun.nonconvex_bound(eta, CHECKPOINTS, **known)).all()


def test_the_strongly_convex_floor_is_not_far_above_sam():
    # A bound that is too large by orders of magnitude would be of no use.
    problem = problems.quadratic([1.0], [1.0])
    known = {"smoothness": 1.0, "strong_convexity": 1.0, "rho": 0.1, "gap": 0.5}
    eta = 0.1
    _, gaps = _means(problem, descent.exact(problem), eta, 0.1, [500])
    bound = si_yun.strongly_convex_bound(eta, [500], **known)
    assert gaps[0] <= bound[0] <= 8 * gaps[0]


@pytest.mark.parametrize("kind", [descent.same_sample, descent.full_ascent])
def test_stochastic_bounds_hold(kind):
    problem = finite_sums.parabolas([-1.0, -1.0, 2.0])
    oracle = kind(problem, sampling.uniform(3))
    gap, eta, rho = _start_gap(problem), 0.05, 0.3
    known = {"smoothness": 1.0, "rho": rho, "gap": gap, "variance": 2.0}
    means, gaps = _means(problem, oracle, eta, rho, CHECKPOINTS, chains=100)
    assert (means <= si_yun.stochastic_bound(eta, CHECKPOINTS, **known)).all()
    bound = si_yun.stochastic_strongly_convex_bound(
        eta, CHECKPOINTS, **known, strong_convexity=1.0
    )
    assert (gaps <= bound).all()


def test_n_sam_bound_has_the_deterministic_one_as_its_limit():
    known = {"smoothness": 2.0, "rho": 0.1, "gap": 3.0}
    bound = si_yun.n_sam_nonconvex_bound(0.1, 50, **known, variance=0.0)
    assert bound == si_yun.nonconvex_bound(0.1, 50, **known)


def test_rules_minimize_their_bounds():
    known = {"smoothness": 2.0, "gap": 3.0}
    settings = [
        (si_yun.n_sam_nonconvex, si_yun.n_sam_nonconvex_bound, {"variance": 5.0}),
        (si_yun.m_sam_lipschitz, si_yun.m_sam_lipschitz_bound, {"second_moment": 5.0}),
    ]
    for rule, bound, noise in settings:
        eta = rule(**known, **noise, steps=10_000)
        assert eta < 1 / 2
        near = eta * np.array([0.9, 1.0, 1.1])
        values = bound(near, 10_000, rho=0.1, **known, **noise)
        assert values.argmin() == 1


def test_rules_are_capped_at_their_limits():
    assert si_yun.nonconvex(smoothness=4.0) == 0.25
    assert si_yun.convex(smoothness=4.0, rho=0.1, gap=1.0, steps=1) == 0.125
    known = {"smoothness": 4.0, "gap": 1.0, "steps": 10**6}
    # Without noise above beta rho nothing asks for small steps.
    assert si_yun.stochastic_convex(**known, rho=1.0, variance=16.0) == 0.125
    assert (
        si_yun.stochastic_strongly_convex(
            **known, strong_convexity=1.0, rho=1.0, variance=16.0
        )
        == 0.125
    )
    assert si_yun.n_sam_nonconvex(**known, variance=0.0) == 0.25


def test_strongly_convex_rule_has_the_stated_limit():
    known = {"smoothness": 1.0, "strong_convexity": 0.1, "rho": 0.1, "gap": 0.55}
    steps = 10**7
    eta = si_yun.strongly_convex(**known, steps=steps)
    cycle = si_yun.cycle_amplitude(eta, smoothness=1.0, rho=0.1)
    lower = si_yun.strongly_convex_lower_bound(
        steps, smoothness=1.0, strong_convexity=0.1, rho=0.1
    )
    assert cycle**2 / 2 == pytest.approx(lower * (eta * 0.1 * steps) ** 2, rel=1e-3)


def test_strongly_convex_rule_decays_to_its_floor():
    eta = si_yun.strongly_convex(
        smoothness=2.0, strong_convexity=0.1, rho=0.3, gap=5.0, steps=10_000
    )
    left = math.exp(-0.1 * eta * 10_000) * 5.0
    assert left == pytest.approx(2.0**4 * 0.3**2 / (0.1**3 * 10_000**2))


def test_slow_descent_is_sam():
    problem = problems.quadratic([0.1], [1.0])
    trace = descent.descend(
        optax.chain(sam_jax.sam(0.2), optax.sgd(0.3)),
        descent.exact(problem),
        problem.start,
        [0, 7],
        record=lambda x: x[0],
    )
    expected = si_yun.slow_descent(0.3, [0, 7], strong_convexity=0.1, rho=0.2, x=1.0)
    np.testing.assert_allclose(trace.recorded, expected, rtol=1e-12)


def test_stall_is_where_the_perturbed_point_is_a_minimum():
    beta, rho = 2.0, 0.3
    problem = problems.sinusoid(beta, rho, 0.02)
    trace = descent.descend(
        optax.chain(sam_jax.sam(rho), optax.sgd(0.1)),
        descent.exact(problem),
        problem.start,
        [500],
        record=lambda x: (problem.gradient(x)[0], problem.gap(x)),
    )
    slope, gap = (float(value[0]) for value in trace.recorded)
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
    trace = descent.descend(
        tx,
        descent.exact(problem),
        problem.start,
        [998, 999],
        record=lambda x: x[0],
    )
    expected = si_yun.cycle_amplitude(eta, smoothness=2.0, rho=0.1, momentum=momentum)
    np.testing.assert_allclose(np.abs(trace.recorded), expected, rtol=1e-9)
    assert trace.recorded[0] * trace.recorded[1] < 0


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
    tx = optax.chain(sam_jax.sam(rho), optax.sgd(eta))
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


CURVED = {"smoothness": 1.0, "strong_convexity": 2.0, "rho": 0.1, "gap": 1.0}
FLAT = {"smoothness": 2.0, "rho": 0.1, "gap": 1.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: si_yun.strongly_convex(**CURVED, steps=10),
            "strong_convexity must be at most smoothness: 2 > 1",
        ),
        (
            lambda: si_yun.convex_bound(0.3, 10, **FLAT),
            r"eta must be at most 1 / 4: 0.3 > 0.25",
        ),
        (
            lambda: si_yun.nonconvex_bound([0.1, 0.6], 10, **FLAT),
            r"eta must be at most 1 / 2: 0.6 > 0.5",
        ),
        (
            lambda: si_yun.stochastic_bound(0.6, 10, **FLAT, variance=1.0),
            r"0.6 > 0.5",
        ),
        (
            lambda: si_yun.stochastic_bound(0.1, 10, **FLAT, variance=-1.0),
            "variance must be a finite number >= 0, got -1.0",
        ),
        (
            lambda: si_yun.convex(smoothness=1.0, rho=0.0, gap=1.0, steps=5),
            "rho must be a finite number > 0, got 0.0",
        ),
        (
            lambda: si_yun.cycle_amplitude(2.0, smoothness=1.0, rho=0.1),
            r"must be below 2 \* \(1 \+ momentum\): 2 >= 2",
        ),
        (
            lambda: si_yun.cycle_amplitude(0.1, smoothness=1.0, rho=0.1, momentum=1.0),
            r"momentum must be in \[0, 1\), got 1.0",
        ),
        (lambda: si_yun.stall_gradient(2.0), r"sin 0.909297 at 2"),
        (
            lambda: si_yun.stationary_moments(
                0.1, centers=[1.0, 2.0, 3.0], curvatures=[1.0] * 3, rho=0.1
            ),
            "centers must have 2 different values, got 3",
        ),
        (
            lambda: si_yun.stationary_moments(
                2.5, centers=[1.0, 2.0], curvatures=[1.0] * 2, rho=0.1
            ),
            "must be below 1: 2.25 >= 1",
        ),
    ],
)
def test_impossible_constants_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
