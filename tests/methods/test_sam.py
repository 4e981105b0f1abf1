import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
START = np.array([1.0, -2.0, 0.5])


def test_diagnostics_are_those_of_the_closed_form():
    # On w.A.w / 2 with A = diag(1, 10) at w = (1, 1), rho = 0.5.
    curvature, w, rho = np.array([1.0, 10.0]), np.ones(2), 0.5
    g = curvature * w
    moved = w + rho * g / np.linalg.norm(g)
    g_moved = curvature * moved
    loss, params = problems.quadratic(np.diag(curvature)), jnp.ones(2)
    tx = optax.chain(sam_jax.sam(rho), optax.sgd(0.1))
    call = problems.gradients(loss)
    _, state = tx.update(call["grad_fn"](params), tx.init(params), params, **call)
    assert sam_jax.diagnostics(state) == pytest.approx(
        {
            "grad_norm": np.linalg.norm(g),
            "perturbation_norm": rho,
            "gradient_cosine": g
            @ g_moved
            / np.linalg.norm(g)
            / np.linalg.norm(g_moved),
            "perturbed_loss": curvature @ moved**2 / 2,
        },
        rel=1e-6,
    )


@pytest.mark.usefixtures("float64")
def test_can_be_differentiated_in_rho():
    # d(rho) = A (w + rho u) with u = A w / |A w|, so the derivative of |d|^2 / 2
    # is d.A.u.
    loss, w = problems.quadratic(MATRIX), jnp.asarray(START)

    def objective(rho):
        tx = sam_jax.sam(rho)
        d, _ = tx.update(jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss))
        return d @ d / 2

    u = MATRIX @ START / np.linalg.norm(MATRIX @ START)
    expected = MATRIX @ (START + 0.3 * u) @ MATRIX @ u
    assert float(jax.grad(objective)(0.3)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.usefixtures("float64")
def test_can_be_differentiated_in_the_weights():
    loss, tx = problems.quadratic(MATRIX), sam_jax.sam(0.3)

    def objective(w):
        d, _ = tx.update(jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss))
        return d @ d / 2

    # d(w) = A (w + rho g / |g|) with g = A w has the Jacobian
    #     J = A (1 + rho (1 - u u^T) A / |g|), u = g / |g|,
    # and the derivative of |d|^2 / 2 is J^T d.
    g = MATRIX @ START
    u, length = g / np.linalg.norm(g), np.linalg.norm(g)
    projection = np.eye(3) - np.outer(u, u)
    jacobian = MATRIX @ (np.eye(3) + 0.3 * projection @ MATRIX / length)
    expected = jacobian.T @ MATRIX @ (START + 0.3 * u)
    actual = jax.grad(objective)(jnp.asarray(START))
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    # At the minimum itself it is finite.
    assert np.isfinite(jax.grad(objective)(jnp.zeros(3))).all()


def test_vmap_over_rho_and_seeds_equals_a_loop():
    params, rhos = problems.network(), jnp.array([0.0, 0.05, 0.5])
    batches = [problems.batch(seed=seed) for seed in range(3)]

    def run(rho, batch):
        tx = optax.chain(sam_jax.sam(rho), optax.sgd(0.1, momentum=0.9))
        after, _ = problems.train(tx, problems.network_loss, params, (batch,), 4)
        return after

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
    together = jax.vmap(run)(rhos, stacked)
    for i, (rho, batch) in enumerate(zip(rhos, batches, strict=True)):
        alone = run(rho, batch)
        for key in params:
            np.testing.assert_allclose(together[key][i], alone[key], rtol=1e-5)
