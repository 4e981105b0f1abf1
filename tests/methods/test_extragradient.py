import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax


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
