"""Sampling schemes: unbiased, expected residual, draws against their outcomes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.theory import descent, finite_sums, sampling

N, D = 6, 3
SKEWED = np.array([1.0, 2.0, 3.0, 4.0, 2.0, 3.0]) / 15


def ridge():
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(N, D)) * np.linspace(0.5, 2, N)[:, None]
    return finite_sums.least_squares(matrix, generator.normal(size=N), l2=0.1)


L_I = ridge().component_smoothness
SCHEMES = {
    "uniform": sampling.uniform(N),
    "importance": sampling.importance(L_I),
    "single": sampling.Single(SKEWED),
    **{f"nice{size}": sampling.Nice(N, size) for size in range(1, N + 1)},
    "independent": sampling.Independent(np.linspace(0.2, 1.0, N)),
    "independent importance": sampling.independent_importance(L_I, 2.5),
    "with replacement": sampling.WithReplacement(SKEWED, 2),
    "three with replacement": sampling.WithReplacement(np.full(N, 1 / N), 3),
}
every = pytest.mark.parametrize("name", SCHEMES)


def dense(scheme, n):
    """All samples: probabilities [o] and weights of all components [o, n]."""
    probabilities, weights = [], []
    for probability, sample in scheme.outcomes():
        row = np.zeros(n)
        np.add.at(row, np.asarray(sample.rows), np.asarray(sample.weights))
        probabilities.append(probability)
        weights.append(row)
    return np.array(probabilities), np.array(weights)


def at_points(problem, points):
    """Gradients of all components [k, n, d], f - f* [k]."""
    values = lambda x: problem.component_values(x, slice(None))  # noqa: E731
    parts = jax.vmap(jax.jacobian(values))(jnp.asarray(points))
    return np.asarray(parts), np.asarray(jax.vmap(problem.gap)(jnp.asarray(points)))


@every
def test_unbiased(name):
    probabilities, weights = dense(SCHEMES[name], N)
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert probabilities @ weights == pytest.approx(np.full(N, 1 / N), abs=1e-12)


@every
def test_expected_residual(name):
    problem, scheme = ridge(), SCHEMES[name]
    generator = np.random.default_rng(1)
    distances = 10 ** generator.uniform(-3, 3, (400, 1))
    points = problem.minimizer + distances * generator.normal(size=(400, D))
    parts, gaps = at_points(problem, points)
    probabilities, weights = dense(scheme, N)
    drawn = np.einsum("on,knd->kod", weights, parts)
    left = (drawn**2).sum(2) @ probabilities
    a, b, c = sampling.expected_residual(scheme, problem)
    right = 2 * a * gaps + b * (parts.mean(1) ** 2).sum(1) + c
    assert (left <= right * (1 + 1e-9)).all()
    assert (left / right).max() > 0.8  # the constants are not idle


@pytest.mark.parametrize("name", sorted(SCHEMES.keys() - {"nice3", "nice4", "nice5"}))
def test_draws_have_the_frequencies_of_the_outcomes(name):
    scheme, count = SCHEMES[name], 4000

    @jax.jit
    @jax.vmap
    def draw(key):
        sample = scheme.draw(key)
        return jnp.zeros(N).at[sample.rows].add(sample.weights)

    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), count)))
    probabilities, weights = dense(scheme, N)
    # Sequences that differ in their order only are the same sample.
    kinds, which = np.unique(weights.round(9), axis=0, return_inverse=True)
    expected = np.bincount(which.ravel(), probabilities)
    distances = np.abs(drawn[:, None] - kinds[None]).max(2)
    assert distances.min(1).max() < 1e-8  # nothing else is drawn
    seen = np.bincount(distances.argmin(1), minlength=len(kinds)) / count
    error = np.sqrt(expected * (1 - expected) / count)
    assert (np.abs(seen - expected) <= 5 * error + 1e-12).all()


@pytest.mark.parametrize(
    "scheme, a, b, left, right",
    [
        (sampling.Nice(3, 1), 9.0, 0.0, 86 / 3, 36.0),
        (sampling.Nice(3, 2), 2.25, 0.75, 115 / 6, 21.0),
        (sampling.Nice(3, 3), 0.0, 1.0, 16.0, 16.0),
        (sampling.importance(np.array([1.0, 2.0, 9.0])), 4.0, 0.0, 16.0, 16.0),
    ],
    ids=["1-nice", "2-nice", "full", "importance"],
)
def test_exact_numbers(scheme, a, b, left, right):
    # f_i = L_i x^2 / 2, L = (1, 2, 9), at x = 1: gap 2, gradient 4.
    problem = finite_sums.parabolas([0.0, 0.0, 0.0], [1.0, 2.0, 9.0])
    found = sampling.expected_residual(scheme, problem)
    assert found == pytest.approx((a, b, 0.0))
    probabilities, weights = dense(scheme, 3)
    second = probabilities @ (weights @ np.array([1.0, 2.0, 9.0])) ** 2
    assert second == pytest.approx(left)
    bound = 2 * found.A * 2 + found.B * 16
    assert bound == pytest.approx(right)


def test_noise_at_the_minimizer():
    problem = finite_sums.parabolas([-1.0, -1.0, 2.0])
    assert problem.interpolation_gap == 1
    found = sampling.expected_residual(sampling.uniform(3), problem)
    assert found == (1.0, 0.0, 2.0)
    assert sampling.expected_residual(sampling.full(3), problem) == (0.0, 1.0, 0.0)


def test_importance_makes_a_smallest():
    problem = ridge()
    best = sampling.expected_residual(SCHEMES["importance"], problem).A
    assert best == pytest.approx(problem.component_smoothness.mean())
    generator = np.random.default_rng(2)
    for p in generator.dirichlet(np.ones(N), 50):
        other = sampling.expected_residual(sampling.Single(p), problem).A
        assert best <= other


def test_independent_importance():
    smoothness = np.array([1.0, 2.0, 9.0])
    scheme = sampling.independent_importance(smoothness, 2)
    assert scheme.probabilities == pytest.approx([0.4708, 0.6402, 0.8890], abs=5e-5)
    assert scheme.probabilities.sum() == pytest.approx(2)
    best = scheme.growth(smoothness)[0]
    assert best == pytest.approx(0.37466, abs=5e-6)
    shift = np.array([1e-3, -1e-3, 0.0])
    for direction in (shift, -shift, np.roll(shift, 1), -np.roll(shift, 1)):
        other = sampling.Independent(scheme.probabilities + direction)
        assert other.growth(smoothness)[0] > best


def test_sampled_smoothness():
    problem = ridge()
    found = {
        name: sampling.sampled_smoothness(scheme, problem)
        for name, scheme in SCHEMES.items()
    }
    assert found["uniform"] == pytest.approx(problem.largest_smoothness)
    assert found["importance"] == pytest.approx(problem.component_smoothness.mean())
    assert found["nice3"] <= problem.largest_smoothness
    assert found[f"nice{N}"] == pytest.approx(problem.component_smoothness.mean())
    # The weights of rare components count.
    assert found["single"] == pytest.approx((L_I / (N * SKEWED)).max())
    for name, scheme in SCHEMES.items():
        _, weights = dense(scheme, N)
        assert found[name] == pytest.approx((weights @ L_I).max()), name


THREE = finite_sums.parabolas([-1.0, -1.0, 2.0])
REFUSED = {
    "sum to 1, got sum 1.1": lambda: sampling.Single(np.array([0.5, 0.6])),
    "smallest 0": lambda: sampling.Single(np.array([1.0, 0.0])),
    r"size must be in \[1, 3\], got 4": lambda: sampling.Nice(3, 4),
    "got 0": lambda: sampling.Nice(3, 0),
    r"in \(0, 1\]": lambda: sampling.Independent(np.array([0.5, 1.5])),
    r"be in \(0, 1\]": lambda: sampling.Independent(np.array([0.5, 0.0])),
    "size must be >= 1": lambda: sampling.WithReplacement(np.full(2, 0.5), 0),
    "sum to 1": lambda: sampling.WithReplacement(np.full(2, 0.4), 1),
    "of 6 components, and the sum has 3": lambda: sampling.expected_residual(
        sampling.Nice(6, 2), THREE
    ),
    "of 5 components": lambda: descent.same_sample(THREE, sampling.uniform(5)),
    "of 2 components": lambda: descent.full_ascent(THREE, sampling.uniform(2)),
    "of 4 components": lambda: sampling.sampled_smoothness(
        sampling.Independent(np.full(4, 0.5)), THREE
    ),
    r"in \(0, 3\)": lambda: sampling.independent_importance(np.ones(3), 3),
}


@pytest.mark.parametrize("message, make", REFUSED.items())
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
