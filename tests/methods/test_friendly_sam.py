import jax.numpy as jnp
import pytest

import sam_jax
from tests.methods.traits import Traits

# With sigma 1 the same batch twice leaves no displacement, see below.
TRAITS = Traits(settings={"sigma": 0.5})


def test_a_gradient_equal_to_the_average_gives_no_displacement():
    tx, params = sam_jax.friendly_sam(0.1), jnp.ones(2)
    state, grads = tx.init(params), jnp.array([3.0, 4.0])
    lengths = []
    for _ in range(3):
        _, state = tx.update(grads, state, params, grad_fn=lambda w: w)
        lengths.append(float(sam_jax.diagnostics(state)["perturbation_norm"]))
    assert lengths == pytest.approx([0.1, 0.0, 0.0], rel=1e-6)
