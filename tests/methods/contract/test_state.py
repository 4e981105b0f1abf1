"""What a method keeps: types that stay, buffers of its own, bits that come back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.methods import problems
from tests.methods.contract import cases
from tests.methods.contract.cases import every_method


@every_method()
def test_init_can_be_evaluated_abstractly(name):
    tx, params = cases.optimizer(name), problems.network()
    abstract = jax.eval_shape(tx.init, params)
    assert cases.signature_of(tx.init(params)) == cases.signature_of(abstract)


@every_method()
def test_params_and_state_can_be_donated_together(name):
    carry = cases.start(name)
    donated = jax.tree.leaves(carry)
    carry = cases.run(name, 2, carry)
    assert all(leaf.is_deleted() for leaf in donated)
    cases.assert_finite(carry[0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@every_method()
def test_structure_shapes_and_dtypes_stay(name, dtype):
    tx, params = cases.optimizer(name, 0.02), problems.network(dtype)
    state, batch = tx.init(params), problems.batch(dtype)
    # Of weak types as well, so that a second update does not compile again.
    step = problems.make_step(tx, problems.network_loss)
    first = jax.eval_shape(step, params, state, batch)
    assert jax.eval_shape(step, *first, batch) == first
    assert cases.signature_of(first) == cases.signature_of((params, state))
    call = problems.keywords(problems.network_loss, params, batch)
    updates, _ = jax.eval_shape(
        lambda params, state: tx.update(params, state, params, **call), params, state
    )
    assert cases.signature_of(updates) == cases.signature_of(params)


def descends(start, after, dtype):
    cases.assert_finite(after)
    batch = problems.batch(dtype)
    before, now = (problems.network_loss(params, batch) for params in (start, after[0]))
    assert now < before


@every_method()
def test_descends(name):
    descends(problems.network(), cases.run(name, 20, learning_rate=0.02), jnp.float32)


# What is special to low precision is seen at the edges of its range as well.
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@every_method("sam", "bsam")
def test_descends_in_low_precision(name, dtype):
    tx, params = cases.optimizer(name, 0.02), problems.network(dtype)
    args = (problems.batch(dtype),)
    after = problems.train(tx, problems.network_loss, params, args, steps=20)
    descends(params, after, dtype)


def mixed_precision(name):
    """An update of weights in bfloat16 with gradients in float32, and its state."""
    cases.skip_optimizer(name)  # its base decides
    tx, params = cases.method(name), problems.network()
    call = problems.keywords(problems.network_loss, params, problems.batch())
    low = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    functions = {  # of weights in bfloat16, in float32
        key: lambda weights, *args, f=f: f(
            jax.tree.map(lambda w: w.astype(jnp.float32), weights), *args
        )
        for key, f in call.items()
        if key.endswith("_fn")
    }

    def update(state):
        grads = functions["grad_fn"](low)
        return tx.update(grads, state, low, **(call | functions))

    return update, tx.init(low)


@every_method()
def test_low_precision_weights_with_gradients_in_float32(name):
    update, state = mixed_precision(name)
    with jax.numpy_dtype_promotion("standard"):
        _, after = jax.eval_shape(update, state)
    assert cases.signature_of(after) == cases.signature_of(state)


@every_method("sam", "vasso", "looksam")
def test_low_precision_weights_are_given_finite_directions(name):
    update, state = mixed_precision(name)
    with jax.numpy_dtype_promotion("standard"), jax.disable_jit():
        for _ in range(3):
            directions, state = update(state)
            cases.assert_finite(directions)


@every_method()
def test_nothing_to_train(name):
    tx = cases.optimizer(name, base=optax.sgd)
    call = problems.keywords(lambda params: jnp.zeros([]), {})
    with jax.disable_jit():
        updates, _ = tx.update({}, tx.init({}), {}, **call)
    assert updates == {}


@every_method()
def test_continues_from_saved_arrays_with_the_same_bits(name):
    def restore(saved, like):
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(saved, impl=jax.random.key_impl(like))
        return jnp.asarray(saved)

    leaves, structure = jax.tree.flatten(cases.run(name, 3))
    saved = [np.array(cases.to_numpy(leaf)) for leaf in leaves]
    restored = [restore(x, leaf) for x, leaf in zip(saved, leaves, strict=True)]
    continued = cases.run(name, 3, structure.unflatten(restored))
    cases.assert_equal(continued, cases.run(name, 6))
