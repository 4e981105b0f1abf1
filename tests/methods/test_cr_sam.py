import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods.traits import Traits

TRAITS = Traits(exact=False)  # at rho = 0 it recombines three gradients


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "gamma, beta, expected",
    [
        # The gradient is w^3: 8 at 2, 27 at 3, 1 at 1; 27 + 1 - 16 = 12, 27 - 1 = 26.
        (0.0, 0.0, 27.0),
        (0.5, 0.0, 33.0),
        (0.0, 0.5, 40.0),
        (0.5, 0.5, 46.0),
    ],
)
def test_hand_made_values_on_a_quartic(gamma, beta, expected):
    grad_fn = jax.grad(lambda w: jnp.sum(w**4) / 4)
    tx, w = sam_jax.cr_sam(1.0, gamma=gamma, beta=beta), jnp.array([2.0])
    direction, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
    np.testing.assert_allclose(direction, [expected], rtol=1e-14)


def test_diagnostics_are_of_the_gradient_uphill():
    # The loss w^2 / 2 at 2 + 1, not at 2 - 1.
    tx, w = sam_jax.cr_sam(1.0), jnp.array([2.0])
    value_and_grad_fn = jax.value_and_grad(lambda w: jnp.sum(w**2) / 2)
    _, state = tx.update(w, tx.init(w), w, value_and_grad_fn=value_and_grad_fn)
    assert sam_jax.diagnostics(state)["perturbed_loss"] == pytest.approx(4.5)
