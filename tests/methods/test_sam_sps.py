import jax
import jax.numpy as jnp
import numpy as np

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# At rho = 0 the Polyak step remains, which is not an optimizer of Optax's chains.
TRAITS = Traits(
    base=None,
    rate=0.2,
    any_value=frozenset({"seed", "f_min"}),
    needs=("params", "value_and_grad_fn"),
)

CURVATURE, START = np.array([1.0, 4.0]), np.array([1.0, -2.0])


def loss(w):
    return jnp.sum(jnp.asarray(CURVATURE, w.dtype) * jnp.square(w)) / 2


def step(tx, w=START, loss=loss):
    w = jnp.asarray(w)
    call = problems.gradients(loss)
    updates, state = tx.update(call["grad_fn"](w), tx.init(w), w, **call)
    return np.asarray(w + updates), state


def test_the_named_schedules_of_unified_sam():
    named, _ = step(sam_jax.sam_sps(1.0, 0.3, lam="1/t"))
    schedule, _ = step(sam_jax.sam_sps(1.0, 0.3, lam=sam_jax.schedules.one_over_t()))
    np.testing.assert_array_equal(named, schedule)


def test_the_loss_may_be_a_number_of_python():
    w, tx = jnp.asarray(START), sam_jax.sam_sps(1.0, 0.3)
    given = {"value_and_grad_fn": lambda w: (3.0, jax.grad(loss)(w))}
    updates, _ = tx.update(jax.grad(loss)(w), tx.init(w), w, **given)
    assert np.isfinite(updates).all() and np.abs(updates).max() > 0


def test_no_step_below_the_bound_or_without_a_gradient():
    after, _ = step(sam_jax.sam_sps(1.0, f_min=1e6))
    np.testing.assert_array_equal(after, START)
    flat = lambda w: 5.0 + 0.0 * jnp.sum(w)  # noqa: E731
    after, _ = step(sam_jax.sam_sps(1.0, weight_decay=0.1), loss=flat)
    np.testing.assert_array_equal(after, START)


def test_a_gradient_whose_square_overflows_gives_polyaks_step():
    # (1e30 w)**2 is beyond float32; at rho = 0 the step is w / 2 all the same.
    steep = lambda w: 1e30 * jnp.sum(jnp.square(w)) / 2  # noqa: E731
    after, _ = step(sam_jax.sam_sps(1.0, 0.0), np.float32([2.0, 0.0]), steep)
    np.testing.assert_allclose(after, [1.0, 0.0], rtol=1e-5)


def test_converges_where_no_step_size_is_known():
    # Interpolation: the minimum of every batch is zero, whatever its scale.
    for scale in (1e-3, 1.0, 1e3):
        scaled = lambda w, scale=scale: scale * loss(w)  # noqa: E731
        tx = sam_jax.sam_sps(1e6, rho=1e-3 / scale, lam=0.0)
        after, _ = problems.train(tx, scaled, jnp.float32(START), steps=200)
        assert loss(after) < 1e-6 * loss(jnp.float32(START))
