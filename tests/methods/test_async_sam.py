import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# The first update takes a third gradient, in a branch that XLA counts.
TRAITS = Traits(calls=11, flops=3.0)


@pytest.mark.parametrize("delay, independent", [(0, False), (2, True)])
def test_the_second_gradient_does_not_wait_for_the_first(delay, independent):
    # Only what is computed from the differentiated gradient is traced.
    tx, params = sam_jax.async_sam(0.1, delay=delay), jnp.ones(2)
    state, traced = tx.init(params), []
    for _ in range(delay):
        _, state = tx.update(params, state, params, grad_fn=lambda w: w)

    def grad_fn(weights):
        traced.append(isinstance(weights, jax.core.Tracer))
        return weights

    def direction(grads):
        return tx.update(grads, state, params, grad_fn=grad_fn)[0]

    _, change = jax.jvp(direction, (params,), (jnp.array([1.0, -1.0]),))
    # The first call is the one at the stale perturbation.
    assert traced[0] != independent
    assert bool(jnp.all(change == 0)) == independent


@pytest.mark.parametrize("delay", [1, 3])
def test_a_third_gradient_is_taken_until_the_delayed_one_is_there(delay):
    taken = problems.evaluations(sam_jax.async_sam(delay=delay), 5)
    assert taken == [3] * delay + [2] * (5 - delay)


def test_skipped_updates_are_not_stored():
    # Used in updates 2 and 4: the second one perturbs along the gradient of the first.
    method = sam_jax.async_sam(0.5)
    tx = sam_jax.when(
        method, lambda g, state, count, key: ((count % 2 == 0) & (count > 0), state)
    )
    params, seen = jnp.zeros(2), []
    state = tx.init(params)
    for grads in jnp.array(
        [[9.0, 9.0], [9.0, 9.0], [3.0, 0.0], [9.0, 9.0], [0.0, 2.0]]
    ):
        d, state = tx.update(grads, state, params, grad_fn=lambda w: w)
        seen.append(np.asarray(d))
    np.testing.assert_allclose(seen[2], [0.5, 0.0], rtol=1e-6)
    np.testing.assert_allclose(seen[4], [0.5, 0.0], rtol=1e-6)


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_state_has_one_copy_per_update_of_delay(delay):
    params = {"a": jnp.ones((100, 10)), "b": jnp.ones(7)}
    state = sam_jax.without_diagnostics(sam_jax.async_sam(delay=delay)).init(params)
    size = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim)
    assert size == delay * 1007
