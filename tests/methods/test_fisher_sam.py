import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods import problems


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


@pytest.mark.parametrize("eta", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("length", [1e-30, 1e-8, 1.0, 1e25])
def test_every_scale_of_the_gradient_gives_the_formula(eta, length):
    # One dimension: F^-1 g / sqrt(g F^-1 g) = 1 / sqrt(F) = 1 / sqrt(1 + eta g^2),
    # though g^2 itself leaves the range of float32.
    tx, params = sam_jax.fisher_sam(1.0, eta=eta, eps=0.0), jnp.zeros(1)
    grads = jnp.array([length])
    e = problems.perturbed_params(tx, grads, tx.init(params), params)
    np.testing.assert_allclose(e, [1 / np.sqrt(1 + eta * length**2)], rtol=1e-6)
