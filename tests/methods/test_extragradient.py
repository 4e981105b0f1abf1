import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])


@pytest.mark.usefixtures("float64")
def test_closed_form_on_a_quadratic():
    # With g = A w the direction is A (w - rho A w), linear in w: after k steps
    # w_k = (1 - t (A - rho A^2))^k w_0.
    start, rho, t = np.array([1.0, -2.0, 0.5]), 0.3, 0.1
    step = np.eye(3) - t * (MATRIX - rho * MATRIX @ MATRIX)
    tx = optax.chain(sam_jax.extragradient(rho), optax.sgd(t))
    loss = problems.quadratic(MATRIX)
    seen = problems.trajectory(tx, loss, jnp.asarray(start), steps=25)
    for k, w in enumerate(seen, start=1):
        expected = np.linalg.matrix_power(step, k) @ start
        np.testing.assert_allclose(w, expected, rtol=1e-11)


@pytest.mark.usefixtures("float64")
def test_converges_on_a_saddle_where_gradient_descent_diverges():
    # min_x max_y x y: the field (y, -x) turns, so descent spirals outwards by
    # sqrt(1 + t^2) a step; the field one step ahead points inwards. Its length is
    # multiplied by sqrt((1 - t rho)^2 + t^2) per step.
    def field(w):
        return jnp.array([w[1], -w[0]])

    def length(direction):
        tx = optax.chain(direction, optax.sgd(0.3))
        w = jnp.array([1.0, 0.0])
        state = tx.init(w)
        for _ in range(20):
            updates, state = tx.update(field(w), state, w, grad_fn=field)
            w = optax.apply_updates(w, updates)
        return float(jnp.linalg.norm(w))

    ahead = length(sam_jax.extragradient(0.3))
    assert ahead == pytest.approx(np.hypot(1 - 0.09, 0.3) ** 20, rel=1e-12)
    assert ahead < 1 < length(optax.identity())


def test_the_displacement_is_rho_times_the_gradient_downwards():
    tx, params = sam_jax.extragradient(0.5), problems.network()
    perturbed = problems.perturbed_params(tx, params, tx.init(params), params)
    for key in params:
        np.testing.assert_array_equal(perturbed[key], params[key] * 0.5)
