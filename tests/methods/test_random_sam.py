import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# The clean forward and backward pass run as well if the loss has a side effect, as the
# one that counts has; the FLOPs show that they are dropped otherwise.
TRAITS = Traits(calls=15, unused_gradient=True)

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
START = np.array([1.0, -2.0, 0.5])


def identity(weights):
    return weights


def points(tx, params, grad_fn=identity, **keywords):
    """Where an update takes its two gradients: w + Delta and w + displacement."""
    seen = []

    def recorded(weights):
        seen.append(weights)
        return grad_fn(weights)

    tx.update(params, tx.init(params), params, grad_fn=recorded, **keywords)
    return seen


def noise_of(params, **coefficients):
    [smooth, _] = points(sam_jax.random_sam(**coefficients), params)
    return jax.tree.map(jnp.subtract, smooth, params)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("lam", [0.0, 2.0])
def test_closed_form_on_a_quadratic(lam):
    # From the noise D of the update, as the first call of grad_fn shows it:
    #     e = rho (D + lam A (w + D)) / |...|, the direction is A (w + e).
    rho, w = 0.4, jnp.asarray(START)
    tx = sam_jax.random_sam(rho, sigma=0.2, lam=lam)
    grad_fn = jax.grad(problems.quadratic(MATRIX))
    smooth, _ = points(tx, w, grad_fn)
    d, state = tx.update(jnp.full(3, jnp.nan), tx.init(w), w, grad_fn=grad_fn)
    delta = np.asarray(smooth) - START
    u = delta + lam * MATRIX @ (START + delta)
    e = rho * u / np.linalg.norm(u)
    np.testing.assert_allclose(d, MATRIX @ (START + e), rtol=1e-12)
    seen = sam_jax.diagnostics(state)
    norm = np.linalg.norm(MATRIX @ (START + delta))
    assert seen["grad_norm"] == pytest.approx(norm, rel=1e-6)
    assert seen["perturbation_norm"] == pytest.approx(rho, rel=1e-6)


def test_filter_noise_has_the_norm_of_the_filter_as_deviation():
    # Four outputs whose filters, of 3 * 3 * 500 weights, have the norms 1, 2, 3 and 0.
    filters = np.random.default_rng(0).normal(size=(3, 3, 500, 4))
    norms = np.array([1.0, 2.0, 3.0, 0.0])
    filters *= norms / np.sqrt(np.sum(filters**2, axis=(0, 1, 2)))
    vector = jnp.asarray(np.repeat([0.0, -1.0, 2.0], 5000), jnp.float32)
    params = {"kernel": jnp.asarray(filters, jnp.float32), "vector": vector}
    noise = noise_of(params, sigma=0.1)
    deviations = np.std(noise["kernel"], axis=(0, 1, 2))
    np.testing.assert_allclose(deviations, 0.1 * norms, rtol=0.05)
    deviations = np.std(np.reshape(noise["vector"], (3, 5000)), axis=1)
    np.testing.assert_allclose(deviations, [0.0, 0.1, 0.2], rtol=0.05)
    assert abs(np.mean(noise["kernel"][..., 0])) < 0.01
    tx, scalar = sam_jax.random_sam(sigma=0.1), jnp.float32(-2.0)
    smooth = jax.jit(jax.vmap(lambda key: points(tx, scalar, key=key)[0]))
    keys = jax.random.split(jax.random.key(0), 200)
    assert np.std(smooth(keys)) == pytest.approx(0.2, rel=0.2)
