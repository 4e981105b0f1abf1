import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits


def adam(learning_rate):
    """Optax's, which is not written for strict promotion."""
    tx = optax.adam(learning_rate)

    def update(updates, state, params=None, **unused):
        del unused
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(updates, state, params)

    return optax.GradientTransformationExtraArgs(tx.init, update)


TRAITS = Traits(base=adam)


@pytest.mark.usefixtures("float64")
def test_the_first_update_is_sam_before_adam():
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)
    call = problems.keywords(problems.network_loss, params, batch)
    grads = call["grad_fn"](params)
    ours, theirs = (
        tx.update(grads, tx.init(params), params, **call)[0]
        for tx in (
            sam_jax.adam_sam(0.1, 0.2),
            optax.chain(sam_jax.sam(0.2), adam(0.1)),
        )
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), ours, theirs)


@pytest.mark.usefixtures("float64")
def test_rescaling_a_coordinate_does_not_change_the_way_up():
    # In u = S w the loss is l(u / S): Adam takes the same steps in each coordinate, and
    # P^-1 g, too, whatever the scale. So the perturbed points differ in length only.
    scales = jnp.array([1.0, 100.0])

    def points(scale):
        loss = lambda u: jnp.sum(jnp.array([3.0, 1.0]) * jnp.sin(u / scale))  # noqa: E731
        tx, seen, u = sam_jax.adam_sam(0.0, 1.0), [], scale * jnp.array([0.3, 0.7])
        state = tx.init(u)
        for _ in range(3):
            at = lambda p: seen.append(p - u) or jax.grad(loss)(u)  # noqa: E731
            _, state = tx.update(jax.grad(loss)(u), state, u, grad_fn=at)
        return seen[-1]

    np.testing.assert_allclose(points(jnp.ones(2)), points(scales), rtol=1e-4)
    np.testing.assert_allclose(points(scales), np.full(2, 0.5**0.5), rtol=1e-4)
