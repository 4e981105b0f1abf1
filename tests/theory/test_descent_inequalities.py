"""Khanh et al. 2024: the inequality behind each theorem, for every step of a method."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

import sam_jax
from sam_jax.theory import descent, problems
from sam_jax.theory.step_sizes import khanh

STEPS = 12
ROUNDING = 1e-10
# phi of f(x) = sum_i phi((Ax - b)_i), and the largest |phi''|.
RESIDUALS = {
    "squares": (lambda r: r**2 / 2, 1.0),
    "logarithms": (lambda r: jnp.log1p(r**2), 2.0),
    "bounded": (lambda r: r**2 / (1 + r**2), 2.0),
}
NORMALIZED = {
    "sam": sam_jax.sam,
    "friendly_sam": functools.partial(sam_jax.friendly_sam, sigma=0.7),
    "vasso": functools.partial(sam_jax.vasso, theta=0.3),
    "random_sam": functools.partial(sam_jax.random_sam, sigma=0.3, noise="plain"),
}
UNNORMALIZED = {"usam": sam_jax.usam, "extragradient": sam_jax.extragradient}


@functools.cache
def compiled(kind):
    """All methods in one program; data and coefficients are its arguments."""
    phi, _ = RESIDUALS[kind]

    def trajectories(matrix, target, start, step_size, rho, key):
        problem = problems.Problem(
            value=lambda x: jnp.sum(phi(matrix @ x - target)),
            start=np.zeros(3),
            smoothness=np.nan,
            minimum=0.0,
        )

        def run(make):
            return descent.descend(
                optax.chain(make(rho), optax.sgd(step_size)),
                descent.exact(problem),
                start,
                np.arange(STEPS + 1),
                record=lambda x: (x, problem.value(x), problem.gradient(x)),
                key=key,
            ).recorded

        return {name: run(make) for name, make in (NORMALIZED | UNNORMALIZED).items()}

    return jax.jit(trajectories)


cases = {
    "kind": st.sampled_from(sorted(RESIDUALS)),
    "seed": st.integers(0, 2**16),
    "size": st.sampled_from([1e-3, 1.0, 30.0]),  # of the start
    "step": st.floats(0.02, 1.0),  # share of the largest step size
    "share": st.floats(0.01, 0.99),  # of the largest radius, or of nu = 1
}
few = hypothesis.settings(max_examples=40, deadline=None)


class Case:
    """One random problem and start."""

    def __init__(self, kind, seed, size):
        generator = np.random.default_rng(seed)
        self.kind = kind
        self.matrix = generator.normal(size=(4, 3)) * generator.uniform(0.2, 3)
        self.target = generator.normal(size=4)
        self.start = size * generator.normal(size=3)
        self.smoothness = RESIDUALS[kind][1] * np.linalg.norm(self.matrix, 2) ** 2
        self.key = jax.random.key(seed)

    def run(self, step_size, rho):
        return compiled(self.kind)(
            self.matrix, self.target, self.start, step_size, rho, self.key
        )


def parts(recorded, step_size):
    """f, f after the step, grad f and g of every step; the size of rounding."""
    x, value, gradient = map(np.asarray, recorded)
    g = (x[:-1] - x[1:]) / step_size
    slack = ROUNDING * (1 + np.abs(value).max())
    return value[:-1], value[1:], gradient[:-1], g, slack


@hypothesis.given(**cases)
@few
def test_sam_and_its_normalized_variants(kind, seed, size, step, share):
    case = Case(kind, seed, size)
    step_size, rho = step / case.smoothness, 2 * share / case.smoothness
    found = case.run(step_size, rho)
    for name in NORMALIZED:
        value, after, gradient, g, slack = parts(found[name], step_size)
        squared = (gradient**2).sum(1)
        error = np.linalg.norm(g - gradient, axis=1)
        assert (error <= 2 * share + slack / step_size).all(), name
        bound = khanh.absolute_error_descent(
            value,
            squared,
            step_size=step_size,
            smoothness=case.smoothness,
            error=2 * share,
        )
        assert (after <= bound + slack).all(), name


@hypothesis.given(**{k: v for k, v in cases.items() if k != "kind"})
@few
def test_sam_on_convex_functions(seed, size, step, share):
    case = Case("squares", seed, size)
    # Any radius is allowed here.
    step_size, rho = step / case.smoothness, 10 * share / case.smoothness
    recorded = case.run(step_size, rho)["sam"]
    value, after, gradient, g, slack = parts(recorded, step_size)
    squared = (gradient**2).sum(1)
    product = (g * gradient).sum(1)
    scale = slack / step_size * (1 + np.sqrt(squared))
    assert (product >= squared - scale).all()
    bound = khanh.convex_descent(
        value, squared, step_size=step_size, smoothness=case.smoothness, radius=rho
    )
    assert (after <= bound + slack).all()


@hypothesis.given(**cases)
@few
def test_usam_and_extragradient(kind, seed, size, step, share):
    case, nu = Case(kind, seed, size), share
    rho = khanh.unnormalized_radius(case.smoothness, nu)
    step_size = step * khanh.relative_error_step_size(
        case.smoothness, nu, delta=0.05 * (1 - nu)
    )
    found = case.run(step_size, rho)
    for name in UNNORMALIZED:
        value, after, gradient, g, slack = parts(found[name], step_size)
        norm, length = np.linalg.norm(gradient, axis=1), np.linalg.norm(g, axis=1)
        small = slack / step_size
        error = np.linalg.norm(g - gradient, axis=1)
        assert (error <= nu * norm + small).all(), name
        assert ((1 - nu) * norm <= length + small).all(), name
        assert (length <= (1 + nu) * norm + small).all(), name
        bound = khanh.relative_error_descent(
            value, norm**2, step_size=step_size, smoothness=case.smoothness, nu=nu
        )
        assert (after <= bound + slack).all(), name
        # So that f decreases, by a share delta at least.
        assert (bound <= value).all(), name


@pytest.mark.parametrize("kind", RESIDUALS)
def test_the_smoothness_is_attained(kind):
    """Or the inequalities above would hold for a bound that is too large."""
    phi, limit = RESIDUALS[kind]
    r = jnp.linspace(-4.0, 4.0, 801)
    curvature = jax.vmap(jax.grad(jax.grad(phi)))(r)
    assert float(jnp.abs(curvature).max()) == pytest.approx(limit)
