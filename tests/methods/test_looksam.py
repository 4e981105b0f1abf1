import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# One update in five takes the second gradient.
TRAITS = Traits(calls=6)


@pytest.mark.parametrize("k, calls", [(1, 14), (3, 10)])
def test_takes_the_second_gradient_in_every_kth_update(k, calls):
    # Seven updates: 7 + ceil(7 / k) gradients.
    tx = optax.chain(sam_jax.looksam(0.1, k=k), optax.sgd(0.1))
    assert sum(problems.evaluations(tx, 7)) == calls


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_rounding_is_not_stretched_to_the_length_of_the_gradient(dtype):
    # On w.w / 2 the perturbed gradient is parallel to the gradient, whatever rounding
    # says, so there is nothing to reuse.
    params = jnp.asarray(np.random.default_rng(0).normal(size=1000), dtype)
    tx, state = sam_jax.looksam(0.5, k=2), None
    state = tx.init(params)
    for _ in range(2):
        direction, state = tx.update(params, state, params, grad_fn=lambda w: w)
    np.testing.assert_array_equal(direction, params)


def test_looks_first_even_where_the_first_updates_were_skipped():
    params = problems.network()
    tx = sam_jax.late_phase(sam_jax.looksam(0.1, k=5), start=2)
    call = problems.keywords(problems.network_loss, params, problems.batch())
    grads, state, lengths = call["grad_fn"](params), tx.init(params), []
    for _ in range(7):
        _, state = tx.update(grads, state, params, **call)
        lengths.append(float(sam_jax.diagnostics(state)["perturbation_norm"]))
    # Its own count goes on meanwhile: the next look is at the fifth, not five later.
    assert lengths == pytest.approx([0, 0, 0.1, 0, 0, 0.1, 0], rel=1e-5)


def test_layerwise_leaves_zero_weights_and_zero_gradients():
    params = {"w": jnp.zeros(3), "v": jnp.ones(2)}
    grads = {"w": jnp.ones(3), "v": jnp.zeros(2)}
    tx = sam_jax.looksam(0.1, layerwise=True)
    moved = problems.perturbed_params(tx, grads, tx.init(params), params)
    for key in params:
        np.testing.assert_array_equal(moved[key], params[key])
