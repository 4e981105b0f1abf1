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


class Steps:
    """f, f after the step, grad f and g of every step; the size of rounding."""

    def __init__(self, recorded, step_size):
        x, value, gradient = map(np.asarray, recorded)
        self.value, self.after, self.gradient = value[:-1], value[1:], gradient[:-1]
        self.g = (x[:-1] - x[1:]) / step_size
        self.norm = np.linalg.norm(self.gradient, axis=1)
        self.error = np.linalg.norm(self.g - self.gradient, axis=1)
        self.slack = ROUNDING * (1 + np.abs(value).max())
        self.small = self.slack / step_size

    def bound(self, inequality, **known):
        """The right-hand side, which f after the step must obey."""
        right = inequality(self.value, self.norm**2, **known)
        assert (self.after <= right + self.slack).all()
        return right


@hypothesis.given(**cases)
@few
def test_sam_and_its_normalized_variants(kind, seed, size, step, share):
    case = Case(kind, seed, size)
    step_size, rho = step / case.smoothness, 2 * share / case.smoothness
    found = case.run(step_size, rho)
    known = {"step_size": step_size, "smoothness": case.smoothness}
    for name in NORMALIZED:
        steps = Steps(found[name], step_size)
        assert (steps.error <= 2 * share + steps.small).all(), name
        steps.bound(khanh.absolute_error_descent, **known, error=2 * share)


@hypothesis.given(**{k: v for k, v in cases.items() if k != "kind"})
@few
def test_sam_on_convex_functions(seed, size, step, share):
    case = Case("squares", seed, size)
    # Any radius is allowed here.
    step_size, rho = step / case.smoothness, 10 * share / case.smoothness
    steps = Steps(case.run(step_size, rho)["sam"], step_size)
    product = (steps.g * steps.gradient).sum(1)
    assert (product >= steps.norm**2 - steps.small * (1 + steps.norm)).all()
    known = {"step_size": step_size, "smoothness": case.smoothness}
    steps.bound(khanh.convex_descent, **known, radius=rho)


@hypothesis.given(**cases)
@few
def test_usam_and_extragradient(kind, seed, size, step, share):
    case, nu = Case(kind, seed, size), share
    rho = khanh.unnormalized_radius(case.smoothness, nu)
    step_size = step * khanh.relative_error_step_size(
        case.smoothness, nu, delta=0.05 * (1 - nu)
    )
    found = case.run(step_size, rho)
    known = {"step_size": step_size, "smoothness": case.smoothness}
    for name in UNNORMALIZED:
        steps = Steps(found[name], step_size)
        norm, length = steps.norm, np.linalg.norm(steps.g, axis=1)
        assert (steps.error <= nu * norm + steps.small).all(), name
        assert ((1 - nu) * norm <= length + steps.small).all(), name
        assert (length <= (1 + nu) * norm + steps.small).all(), name
        right = steps.bound(khanh.relative_error_descent, **known, nu=nu)
        # So that f decreases, by a share delta at least.
        assert (right <= steps.value).all(), name


@pytest.mark.parametrize("kind", RESIDUALS)
def test_the_smoothness_is_attained(kind):
    """Or the inequalities above would hold for a bound that is too large."""
    phi, limit = RESIDUALS[kind]
    r = jnp.linspace(-4.0, 4.0, 801)
    curvature = jax.vmap(jax.grad(jax.grad(phi)))(r)
    assert float(jnp.abs(curvature).max()) == pytest.approx(limit)
