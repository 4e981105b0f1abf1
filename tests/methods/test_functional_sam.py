import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

TRAITS = Traits(
    exact=False,  # the second gradient is another program, and rounds on its own
    needs=("params", "functional_value_and_grad_fn"),
)


def direction(outputs_fn, loss_fn, params, rho):
    """What the method makes of a network and a loss, with the exported helper."""
    tx = sam_jax.functional_sam(rho)
    grads = jax.grad(lambda w: loss_fn(outputs_fn(w)))(params)
    second = sam_jax.functional_value_and_grad(outputs_fn, loss_fn, outputs_fn(params))
    d, state = tx.update(
        grads, tx.init(params), params, functional_value_and_grad_fn=second
    )
    return grads, d, sam_jax.diagnostics(state)


@pytest.mark.usefixtures("float64")
def test_closed_form():
    # F(w) = w^3, L(F) = sum F^2 / 2: the cotangent is w^3, the Jacobian 3 w^2.
    w, rho = np.array([1.0, -2.0, 0.5]), 0.3
    _, d, seen = direction(
        lambda w: w**3, lambda f: jnp.sum(f**2) / 2, jnp.asarray(w), rho
    )
    g = 3 * w**5
    moved = w + rho * g / np.linalg.norm(g)
    np.testing.assert_allclose(d, 3 * moved**2 * w**3, rtol=1e-13)
    # The loss it reports is the real one, of the perturbed network.
    assert seen["perturbed_loss"] == pytest.approx(np.sum(moved**6) / 2, rel=1e-6)


@pytest.mark.usefixtures("float64")
def test_a_linear_network_has_nothing_to_flatten():
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
    g, d, _ = direction(
        lambda w: matrix @ w, lambda f: jnp.sum(jnp.cosh(f)), jnp.ones(3), rho=1.0
    )
    np.testing.assert_allclose(d, g, rtol=1e-13)


@pytest.mark.usefixtures("float64")
def test_a_decay_among_the_outputs_is_perturbed_as_in_sam():
    # L = sum F^2 / 2 + D with D = 5 w.w: its gradient is 10 (w + eps).
    w, rho = np.array([1.0, -2.0]), 0.3
    _, d, _ = direction(
        lambda w: (3 * w, 5 * jnp.sum(w**2)),
        lambda outputs: jnp.sum(outputs[0] ** 2) / 2 + outputs[1],
        jnp.asarray(w),
        rho,
    )
    moved = w * (1 + rho / np.linalg.norm(w))
    np.testing.assert_allclose(d, 9 * w + 10 * moved, rtol=1e-13)


def test_the_plain_second_gradient_is_not_used():
    params = problems.network()
    call = problems.keywords(problems.network_loss, params, problems.batch())

    def forbidden(params):
        raise AssertionError("not this one")

    call |= {"grad_fn": forbidden, "value_and_grad_fn": forbidden}
    tx = optax.chain(sam_jax.functional_sam(), optax.sgd(0.1))
    updates, _ = tx.update(params, tx.init(params), params, **call)
    assert np.isfinite(updates["kernel"]).all()
