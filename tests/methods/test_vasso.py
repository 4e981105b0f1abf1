import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax


@pytest.mark.parametrize("late", [0, 1, 3])
def test_skipped_updates_do_not_start_the_average(late):
    # The first gradient that the method sees is the average, whatever was before. Not
    # normalized, so that a share of it would show: lam is 0.
    tx = sam_jax.late_phase(sam_jax.vasso(0.5, theta=0.1, lam=0.0), start=late)
    params, skipped = jnp.zeros(2), jnp.array([7.0, 7.0])
    state = tx.init(params)
    for _ in range(late):
        d, state = tx.update(skipped, state, params, grad_fn=lambda w: w)
        np.testing.assert_array_equal(d, skipped)
    for _ in range(2):
        d, state = tx.update(jnp.array([3.0, 4.0]), state, params, grad_fn=lambda w: w)
        np.testing.assert_allclose(d, [1.5, 2.0], rtol=1e-6)
