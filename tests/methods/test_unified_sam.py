import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems


@pytest.mark.usefixtures("float64")
def test_ends_in_a_cycle_around_the_minimum_of_a_quadratic():
    # Along the top eigenvector, of curvature L, a step is
    #     x -> x - gamma L (x + rho ((1 - lam) L x + lam sign x)).
    # It maps c to -c if 2 c = gamma L (c (1 + L rho (1 - lam)) + rho lam).
    gamma, rho, top, lam = 0.02, 0.05, 10.0, np.array([0.25, 0.5, 0.75, 1.0])
    loss = problems.quadratic(np.diag([0.1, top]))

    @jax.vmap
    def last(lam):
        tx = optax.chain(sam_jax.unified_sam(rho, lam=lam), optax.sgd(gamma))
        # 20,000 steps: the flat direction loses a factor 1 - gamma / 10 in each.
        return problems.train(tx, loss, jnp.array([0.1, 0.1]), steps=20_000)[0]

    amplitude = (
        gamma * top * rho * lam / (2 - gamma * top * (1 + top * rho * (1 - lam)))
    )
    expected = np.stack([np.zeros(4), amplitude], axis=1)
    np.testing.assert_allclose(np.abs(last(lam)), expected, rtol=1e-10, atol=1e-10)
