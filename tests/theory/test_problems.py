"""The constants of every problem, against random points."""

import dataclasses
import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from sam_jax.theory import finite_sums, problems


def rng():
    return np.random.default_rng(0)


def data(count, dimension):
    generator = rng()
    return generator.normal(size=(count, dimension)), generator.normal(size=count)


def labelled(count, dimension):
    features, noise = data(count, dimension)
    return features, np.where(noise > 0, 1.0, -1.0)


PROBLEMS = {
    "quadratic": lambda: problems.quadratic([0.1, 1.0, 7.0], [1.0, 1.0, 1.0]),
    "power 2": lambda: problems.power(2.0),
    "power 3.5": lambda: problems.power(3.5, start=-2.0),
    "log_residuals": lambda: problems.log_residuals(*data(4, 4), np.zeros(4)),
    "hyperbola": problems.hyperbola,
    "double_well": problems.double_well,
    "saddle": problems.saddle,
    "sinusoid": lambda: problems.sinusoid(2.0, 0.3, 0.01),
}
FINITE_SUMS = {
    "least_squares": lambda: finite_sums.least_squares(*data(6, 3)),
    "ridge": lambda: finite_sums.least_squares(*data(6, 3), l2=0.3),
    "ridge, n < d": lambda: finite_sums.least_squares(*data(3, 5), l2=0.1),
    "logistic": lambda: finite_sums.logistic(*labelled(8, 3)),
    "logistic, l2": lambda: finite_sums.logistic(*labelled(8, 3), l2=0.1),
    "logistic, non-convex": lambda: finite_sums.logistic(
        *labelled(8, 3), nonconvex=0.2
    ),
    "bounded_residuals": lambda: finite_sums.bounded_residuals(*data(6, 3)),
    "parabolas": lambda: finite_sums.parabolas([-1.0, -1.0, 2.0], [1.0, 1.0, 0.2]),
    "vanishing_noise": lambda: finite_sums.vanishing_noise(1.5, 0.3, 0.0),
    "digits": finite_sums.digits,
}
ALL = PROBLEMS | FINITE_SUMS


@functools.cache
def problem_named(name):
    return ALL[name]()


def points(problem, count=300):
    """Near the minimizer and far from it, within the radius; few of many dimensions."""
    generator = rng()
    count = min(count, 2000 // problem.start.size)
    center = np.zeros_like(problem.start)
    if problem.minimizer is not None and np.isinf(problem.radius):
        center = problem.minimizer
    drawn = generator.normal(size=(count, center.size))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    reach = min(problem.radius, 30.0)
    lengths = reach * generator.uniform(size=(count, 1)) ** 4
    return jnp.asarray(center + lengths * drawn)


@functools.cache
def curvatures(name):
    """Eigenvalues of the Hessians at the points and the start, one row for each."""
    problem = problem_named(name)
    x = jnp.concatenate([points(problem), jnp.asarray(problem.start)[None]])
    return np.linalg.eigvalsh(jax.jit(jax.vmap(jax.hessian(problem.value)))(x))


@pytest.mark.parametrize("name", ALL)
def test_smoothness(name):
    largest = np.abs(curvatures(name)[:-1]).max()
    assert largest <= problem_named(name).smoothness * (1 + 1e-9)


@pytest.mark.parametrize("name", ["quadratic", "least_squares", "ridge", "sinusoid"])
def test_smoothness_is_tight(name):
    assert np.abs(curvatures(name)).max() >= 0.99 * problem_named(name).smoothness


@pytest.mark.parametrize("name", ALL)
def test_minimum(name):
    problem = problem_named(name)
    gaps = jax.jit(jax.vmap(problem.gap))(points(problem))
    assert gaps.min() >= -1e-12
    if problem.minimizer is not None:
        x = jnp.asarray(problem.minimizer)
        assert abs(problem.gap(x)) <= 1e-13
        np.testing.assert_allclose(problem.gradient(x), 0, atol=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_curvature(name):
    problem = problem_named(name)
    x = points(problem)
    smallest = curvatures(name)[:-1].min()
    if problem.convex:
        assert smallest >= problem.strong_convexity - 1e-9 * problem.smoothness
    else:
        assert smallest < 0, "not convex, says the problem"
    gradients, gaps = jax.jit(
        jax.vmap(lambda z: (problem.gradient(z), problem.gap(z)))
    )(x)
    squared = jnp.sum(gradients**2, axis=1)
    assert (squared >= 2 * problem.pl * gaps * (1 - 1e-9) - 1e-12).all()
    assert problem.pl >= problem.strong_convexity


@pytest.mark.parametrize("name", FINITE_SUMS)
def test_components(name):
    problem = problem_named(name)
    x = points(problem, 60)
    rows = np.arange(problem.size)[:40]

    @jax.jit
    @jax.vmap
    def measured(z):
        every = problem.component_values(z, slice(None))
        hessians = jax.hessian(lambda z: problem.component_values(z, rows[:8]))(z)
        return problem.component_values(z, rows), hessians, every.mean()

    values, hessians, means = measured(x)
    assert (values >= problem.component_minima[rows] - 1e-9).all()
    assert problem.interpolation_gap >= -1e-12
    largest = np.abs(np.linalg.eigvalsh(hessians)).max(axis=(0, 2))
    assert (largest <= problem.component_smoothness[rows[:8]] * (1 + 1e-9)).all()
    wholes = jax.jit(jax.vmap(problem.value))(x)
    np.testing.assert_allclose(wholes, means, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_minima_of_least_squares_are_reached(l2):
    matrix, target = data(4, 3)
    problem = finite_sums.least_squares(matrix, target, l2=l2)
    squared = (matrix**2).sum(1)
    for i in range(4):
        best = matrix[i] * target[i] / (squared[i] + l2)
        value = problem.component_values(jnp.asarray(best), jnp.array([i]))[0]
        assert value == pytest.approx(problem.component_minima[i], abs=1e-14)


@hypothesis.given(
    st.lists(st.floats(0.01, 100), min_size=2, max_size=5), st.integers(0, 10**6)
)
@hypothesis.settings(max_examples=20, deadline=None)
def test_any_quadratic(eigenvalues, seed):
    problem = problems.quadratic(eigenvalues, [1.0] * len(eigenvalues))
    x, y = np.random.default_rng(seed).normal(size=(2, len(eigenvalues)))
    change = jnp.linalg.norm(problem.gradient(x) - problem.gradient(y))
    assert change <= problem.smoothness * np.linalg.norm(x - y) * (1 + 1e-9)
    squared = jnp.sum(problem.gradient(x) ** 2)
    np.testing.assert_allclose(problem.squared_gradient(x), squared, rtol=1e-12)
    assert squared >= 2 * problem.pl * problem.gap(x) * (1 - 1e-9)


def test_a_wrong_constant_would_be_seen(monkeypatch):
    right = problem_named("double_well")
    wrong = dataclasses.replace(right, smoothness=0.5 * right.smoothness)
    monkeypatch.setitem(ALL, "wrong", lambda: wrong)
    with pytest.raises(AssertionError):
        test_smoothness("wrong")


def test_conditioned_matrix():
    matrix = finite_sums.conditioned_matrix(20, 50.0, np.random.RandomState(0))
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.cond(matrix) == pytest.approx(50)


def test_perceptron_starts_near_the_loss_of_a_guess():
    features, _ = data(30, 5)
    labels = np.arange(30) % 3
    problem = problems.perceptron(features, labels, hidden=4)
    assert problem.start.size == 5 * 4 + 4 + 4 * 3 + 3
    assert float(problem.value(problem.start)) == pytest.approx(np.log(3), rel=0.5)
    # Zero weights give every class the same probability.
    zeros = jnp.zeros(problem.start.size)
    assert float(problem.value(zeros)) == pytest.approx(np.log(3))


REFUSED = {
    "eigenvalues must be": lambda: problems.quadratic([1.0, 0.0], [1.0, 1.0]),
    "one for each entry": lambda: problems.quadratic([1.0], [1.0, 1.0]),
    "exponent must be >= 2": lambda: problems.power(1.5),
    "start not 0": lambda: problems.power(3.0, start=0.0),
    "> 0 where the columns": lambda: finite_sums.least_squares(*data(2, 3)),
    "l2 must be": lambda: finite_sums.least_squares(*data(4, 3), l2=-1.0),
    "labels must be -1 or 1": lambda: finite_sums.logistic(*data(4, 3)),
    "within 4 of the origin, got 30": lambda: problems.hyperbola((30.0, 0.2)),
    "within 2 of": lambda: problems.double_well(-2.1),
    "within 1 of": lambda: problems.saddle((1.0, 0.1), radius=1.0),
    "must be >= 0": lambda: finite_sums.logistic(*labelled(4, 3), l2=-1.0),
}


@pytest.mark.parametrize("message, call", REFUSED.items())
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
