import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

TRAITS = Traits(exact=False)  # at rho = 0 it recombines three gradients

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
START = np.array([1.0, -2.0, 0.5])


@pytest.mark.usefixtures("float64")
def test_closed_form_on_a_quadratic():
    # g_+ - g_- = 2 rho A g / |g|, and g_+ + g_- - 2 g is zero whatever gamma is.
    w, rho, t, beta = START, 0.3, 0.1, 0.4
    tx = optax.chain(sam_jax.cr_sam(rho, gamma=0.7, beta=beta), optax.sgd(t))
    loss = problems.quadratic(MATRIX)
    for seen in problems.trajectory(tx, loss, jnp.asarray(START), steps=10):
        g = MATRIX @ w
        moved = rho * MATRIX @ g / np.linalg.norm(g)
        w = w - t * (g + moved + beta * 2 * moved)
        np.testing.assert_allclose(seen, w, rtol=1e-11)


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


@pytest.mark.usefixtures("float64")
def test_without_penalties_it_is_sam():
    args = (problems.network(jnp.float64), (problems.batch(jnp.float64),), 5)
    ours, theirs = (
        problems.trajectory(
            optax.chain(method, optax.sgd(0.1)), problems.network_loss, *args
        )
        for method in (sam_jax.cr_sam(0.3, gamma=0.0, beta=0.0), sam_jax.sam(0.3))
    )
    for x, y in zip(ours, theirs, strict=True):
        for key in x:
            np.testing.assert_allclose(x[key], y[key], rtol=1e-11)


def test_diagnostics_are_of_the_gradient_uphill():
    # The loss w^2 / 2 at 2 + 1, not at 2 - 1.
    tx, w = sam_jax.cr_sam(1.0), jnp.array([2.0])
    value_and_grad_fn = jax.value_and_grad(lambda w: jnp.sum(w**2) / 2)
    _, state = tx.update(w, tx.init(w), w, value_and_grad_fn=value_and_grad_fn)
    assert sam_jax.diagnostics(state)["perturbed_loss"] == pytest.approx(4.5)
