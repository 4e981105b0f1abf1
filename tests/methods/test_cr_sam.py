import jax
import jax.numpy as jnp
import pytest

import sam_jax
from tests.methods.traits import Traits

TRAITS = Traits(exact=False)  # at rho = 0 it recombines three gradients


def test_diagnostics_are_of_the_gradient_uphill():
    # The loss w^2 / 2 at 2 + 1, not at 2 - 1.
    tx, w = sam_jax.cr_sam(1.0), jnp.array([2.0])
    value_and_grad_fn = jax.value_and_grad(lambda w: jnp.sum(w**2) / 2)
    _, state = tx.update(w, tx.init(w), w, value_and_grad_fn=value_and_grad_fn)
    assert sam_jax.diagnostics(state)["perturbed_loss"] == pytest.approx(4.5)
