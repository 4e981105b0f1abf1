import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# The first update takes a third gradient, in a branch that XLA counts.
TRAITS = Traits(calls=11, flops=3.0)

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
START = np.array([1.0, -2.0, 0.5])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("delay", [1, 3])
def test_closed_form_on_a_quadratic(delay):
    # A (w + rho g / |g|) with the gradient g = A w of `delay` updates ago, and the
    # current one as long as there is none.
    w, rho, t, past = START, 0.3, 0.1, []
    tx = optax.chain(sam_jax.async_sam(rho, delay=delay), optax.sgd(t))
    loss = problems.quadratic(MATRIX)
    for count, seen in enumerate(
        problems.trajectory(tx, loss, jnp.asarray(START), steps=10)
    ):
        past.append(MATRIX @ w)
        g = past[count - delay] if count >= delay else past[count]
        w = w - t * MATRIX @ (w + rho * g / np.linalg.norm(g))
        np.testing.assert_allclose(seen, w, rtol=1e-11)


def test_delay_zero_is_sam():
    def run(direction):
        tx = optax.chain(direction, optax.sgd(0.1, momentum=0.9))
        args = (problems.network_loss, problems.network(), (problems.batch(),), 5)
        return jax.tree.leaves(problems.trajectory(tx, *args))

    ours = run(sam_jax.async_sam(0.3, delay=0))
    for x, y in zip(ours, run(sam_jax.sam(0.3)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("delay, independent", [(0, False), (1, True), (2, True)])
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
    tx, params = sam_jax.async_sam(delay=delay), problems.network()
    calls = []

    def loss(params, batch):
        jax.debug.callback(lambda: calls.append(1))
        return problems.network_loss(params, batch)

    step, state = jax.jit(problems.make_step(tx, loss)), tx.init(params)
    for count in range(5):
        params, state = step(params, state, problems.batch())
        jax.effects_barrier()
        assert len(calls) == (3 if count < delay else 2)
        calls.clear()


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
    state = sam_jax.async_sam(delay=delay).init(params)
    size = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim)
    assert size == delay * 1007


@pytest.mark.parametrize("delay", [-1, 0.5, True, lambda count: 1])
def test_delay_must_be_an_integer(delay):
    with pytest.raises(ValueError, match=r"^delay must be an integer >= 0, got"):
        sam_jax.async_sam(delay=delay)
