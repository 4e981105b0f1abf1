import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods import problems


@pytest.mark.parametrize("eta", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("length", [1e-30, 1e-8, 1.0, 1e25])
def test_every_scale_of_the_gradient_gives_the_formula(eta, length):
    # One dimension: F^-1 g / sqrt(g F^-1 g) = 1 / sqrt(F) = 1 / sqrt(1 + eta g^2),
    # though g^2 itself leaves the range of float32.
    tx, params = sam_jax.fisher_sam(1.0, eta=eta, eps=0.0), jnp.zeros(1)
    grads = jnp.array([length])
    e = problems.perturbed_params(tx, grads, tx.init(params), params)
    np.testing.assert_allclose(e, [1 / np.sqrt(1 + eta * length**2)], rtol=1e-6)
