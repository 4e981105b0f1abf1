import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

TRAITS = Traits(exact=False)


@pytest.mark.usefixtures("float64")
def test_to_first_order_the_direction_is_that_of_the_penalised_loss():
    loss = problems.network_loss
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)
    rho, alpha = 1e-5, 0.3
    call = problems.gradients(loss, batch)
    tx = sam_jax.gnp(rho, alpha=alpha)
    g = call["grad_fn"](params)
    d, _ = tx.update(g, tx.init(params), params, **call)

    def gradient_norm(params):
        return optax.tree.norm(jax.grad(loss)(params, batch))

    slope = jax.grad(gradient_norm)(params)
    for key in params:
        penalty = (d[key] - g[key]) / (alpha * rho)
        np.testing.assert_allclose(penalty, slope[key], rtol=1e-3)
