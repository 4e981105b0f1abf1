import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
START = np.array([1.0, -2.0, 0.5])


@pytest.mark.usefixtures("float64")
def test_closed_form_on_a_quadratic():
    # g = A w, F = 1 + eta g^2; the displacement is rho F^-1 g / sqrt(g . F^-1 g).
    w, rho, eta, t = START, 0.3, 2.0, 0.1
    tx = optax.chain(sam_jax.fisher_sam(rho, eta=eta), optax.sgd(t))
    loss = problems.quadratic(MATRIX)
    for seen in problems.trajectory(tx, loss, jnp.asarray(START), steps=10):
        g = MATRIX @ w
        natural = g / (1 + eta * g**2)
        w = w - t * MATRIX @ (w + rho * natural / np.sqrt(g @ natural))
        np.testing.assert_allclose(seen, w, rtol=1e-11)


@pytest.mark.usefixtures("float64")
def test_the_displacement_lies_on_the_ellipsoid_and_is_its_farthest_point_up():
    rho, eta = 0.5, 2.0
    grads = np.random.default_rng(0).normal(size=20)
    metric = 1 + eta * grads**2
    tx, params = sam_jax.fisher_sam(rho, eta=eta), jnp.zeros(20)
    e = problems.perturbed_params(tx, jnp.asarray(grads), tx.init(params), params)
    assert np.sum(metric * e**2) == pytest.approx(rho**2, rel=1e-12)
    others = np.random.default_rng(1).normal(size=(1000, 20))
    others *= rho / np.sqrt(np.sum(metric * others**2, axis=1, keepdims=True))
    assert np.all(others @ grads < grads @ e)


@pytest.mark.parametrize("eta", [0.0, 0])
def test_eta_zero_is_sam(eta):
    def run(direction):
        tx = optax.chain(direction, optax.sgd(0.1, momentum=0.9))
        args = (problems.network_loss, problems.network(), (problems.batch(),), 5)
        return jax.tree.leaves(problems.trajectory(tx, *args))

    ours, theirs = run(sam_jax.fisher_sam(0.3, eta=eta)), run(sam_jax.sam(0.3))
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("eta", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("length", [1e-30, 1e-8, 1.0, 1e25])
def test_every_scale_of_the_gradient_gives_the_formula(eta, length):
    # One dimension: F^-1 g / sqrt(g F^-1 g) = 1 / sqrt(F) = 1 / sqrt(1 + eta g^2),
    # though g^2 itself leaves the range of float32.
    tx, params = sam_jax.fisher_sam(1.0, eta=eta, eps=0.0), jnp.zeros(1)
    grads = jnp.array([length])
    e = problems.perturbed_params(tx, grads, tx.init(params), params)
    np.testing.assert_allclose(e, [1 / np.sqrt(1 + eta * length**2)], rtol=1e-6)
