"""Loss scaling: what float16 would lose is there, and the scale follows overflow."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax import loss_scale


def test_gradients_below_the_range_of_float16_are_those_of_float32():
    def loss(w, dtype):
        outputs = (1e-3 * w.astype(dtype)) ** 2
        return 1e-3 * jnp.mean(outputs.astype(jnp.float32))

    w = jnp.linspace(-1, 1, 64)
    exact = jax.grad(loss)(w, jnp.float32)
    assert (jax.grad(loss)(w, jnp.float16) == 0).all()
    value, grads = sam_jax.LossScale.initial().value_and_grad(loss)(w, jnp.float16)
    np.testing.assert_allclose(grads, exact, rtol=0.02, atol=1e-12)
    np.testing.assert_array_equal(value, loss(w, jnp.float16))
    assert grads.dtype == jnp.float32


def test_a_power_of_two_changes_no_bit_in_float32():
    w = jax.random.normal(jax.random.key(0), (32,))
    scale = sam_jax.LossScale(jnp.float32(2.0**11), jnp.int32(0))

    def loss(w):
        return jnp.sum(w**4), {"seen": w}

    found = scale.value_and_grad(loss, has_aux=True)(w)
    expected = jax.value_and_grad(loss, has_aux=True)(w)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("scale", "good", "finite", "expected"),
    [
        (8.0, 5, True, (8.0, 6)),
        (8.0, 5, False, (4.0, 0)),
        (1.0, 5, False, (1.0, 0)),  # never below one
        (8.0, loss_scale.PERIOD - 1, True, (16.0, 0)),
        (loss_scale.HIGHEST, loss_scale.PERIOD - 1, True, (loss_scale.HIGHEST, 0)),
    ],
)
def test_the_scale_follows_overflow(scale, good, finite, expected):
    before = sam_jax.LossScale(jnp.float32(scale), jnp.int32(good))
    after = before.adjusted(jnp.bool_(finite))
    assert (float(after.scale), int(after.good)) == expected
    assert [x.dtype for x in after] == [x.dtype for x in before]


def test_an_overflow_of_the_second_gradient_alone_shows_in_the_updates():
    def loss(w):
        return jnp.sum(w.astype(jnp.float16) ** 2).astype(jnp.float32)

    # The derivative 2 w 2^8 is finite in float16 at w = 100, at 100 + 200 it is not.
    scale = sam_jax.LossScale(jnp.float32(2.0**8), jnp.int32(0))
    value_and_grad_fn = scale.value_and_grad(loss)
    w, tx = jnp.full(1, 100.0), optax.chain(sam_jax.sam(200.0), optax.sgd(0.1))
    _, grads = value_and_grad_fn(w)
    np.testing.assert_array_equal(grads, [200.0])
    updates, _ = tx.update(grads, tx.init(w), w, value_and_grad_fn=value_and_grad_fn)
    assert not jnp.isfinite(updates).all()
    updates, _ = tx.update(grads, tx.init(w), w, grad_fn=jax.grad(loss))
    assert jnp.isfinite(updates).all()
