import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

TRAITS = Traits(exact=False)  # at rho = 0 the ratio of the norms rounds


@pytest.mark.usefixtures("float64")
def test_converges_where_sam_ends_in_a_cycle():
    # Along one axis both gradients are parallel, so this is gradient descent, while
    # SAM keeps jumping over the minimum (test_sam.py).
    loss, start = problems.quadratic(np.array([[1.5]])), jnp.ones(1)
    tx = optax.chain(sam_jax.stable_sam(0.1), optax.sgd(1 / 3))
    last, _ = problems.train(tx, loss, start, steps=50)
    np.testing.assert_allclose(last, 0.5**50, rtol=1e-10)


@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
def test_the_direction_has_the_length_of_the_gradient(factor):
    params, tx = problems.network(), sam_jax.stable_sam(0.5)
    call = problems.gradients(problems.network_loss, problems.batch())
    scaled = lambda w: optax.tree.scale(factor, call["grad_fn"](w))  # noqa: E731
    grads = scaled(params)
    direction, _ = tx.update(grads, tx.init(params), params, grad_fn=scaled)
    lengths = [float(optax.tree.norm(tree)) / factor for tree in (direction, grads)]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)
    assert not np.allclose(direction["kernel"], grads["kernel"], rtol=1e-2, atol=0)


def test_no_direction_where_the_perturbed_gradient_is_zero():
    tx, params = sam_jax.stable_sam(0.5), problems.network()
    zero = jax.tree.map(jnp.zeros_like, params)
    direction, _ = tx.update(params, tx.init(params), params, grad_fn=lambda w: zero)
    for leaf in jax.tree.leaves(direction):
        np.testing.assert_array_equal(leaf, 0)
