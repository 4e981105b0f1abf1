import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems


@pytest.mark.usefixtures("float64")
def test_converges_where_sam_ends_in_a_cycle():
    # The problem of the 2-cycle in test_sam.py; a constant radius and step size do.
    tx = optax.chain(sam_jax.usam(0.1), optax.sgd(1 / 3))
    loss = problems.quadratic(np.diag([1.0, 1.5]))
    last, _ = problems.train(tx, loss, jnp.ones(2), steps=200)
    assert np.abs(last).max() < 1e-20
