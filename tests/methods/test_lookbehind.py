import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits


def momentum(learning_rate):
    """SGD with momentum 0.9, its velocity an average: the sum of two huge float16
    gradients overflows."""
    return optax.chain(
        optax.ema(0.9, debias=False), optax.scale_by_learning_rate(10 * learning_rate)
    )


def halved_twice(learning_rate):
    """Half of two steps along the same gradient: lookbehind at rho = 0."""
    base = momentum(learning_rate)

    def update(updates, state, params=None, **keywords):
        first, state = base.update(updates, state, params)
        second, state = base.update(updates, state, params)
        return jax.tree.map(lambda x, y: 0.5 * (x + y), first, second), state

    return optax.GradientTransformationExtraArgs(base.init, update)


TRAITS = Traits(base=halved_twice, exact=False, settings={"base": momentum})


@pytest.mark.parametrize("k", [1, 4])
def test_takes_one_gradient_more_than_steps(k):
    assert problems.evaluations(sam_jax.lookbehind(0.1, k=k), 1) == [k + 1]


def test_the_base_descends_from_descent_to_descent():
    # Decay is at phi_{i-1}: with no gradient, each of the steps takes 0.1 * 0.5 of it.
    def base(learning_rate):
        return optax.chain(optax.add_decayed_weights(0.5), optax.sgd(learning_rate))

    params, zero = jnp.ones(2), jnp.zeros(2)
    tx = sam_jax.lookbehind(0.1, k=3, alpha=1.0, base=base)
    updates, _ = tx.update(zero, tx.init(params), params, grad_fn=lambda w: zero)
    np.testing.assert_allclose(params + updates, 0.95**3, rtol=1e-6)


def test_a_schedule_counts_updates_not_their_steps():
    rates = optax.piecewise_constant_schedule(1.0, {1: 0.1, 2: 0.1})  # 1, 0.1, 0.01
    params, grads = jnp.zeros(1), jnp.ones(1)
    tx = sam_jax.lookbehind(rates, k=3, alpha=1.0, base=optax.sgd)
    state = tx.init(params)
    for expected in (-3.0, -0.3, -0.03):
        with jax.numpy_dtype_promotion("standard"):  # for Optax's schedule
            updates, state = tx.update(grads, state, params, grad_fn=jnp.ones_like)
        np.testing.assert_allclose(updates, [expected], rtol=1e-6)
