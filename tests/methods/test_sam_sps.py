import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# At rho = 0 the Polyak step remains, which is no optimizer of Optax's chains.
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


def polyak(w, rho, lam, f_min=0.0):
    """Size of the step without its cap, and the gradient at e."""
    g = CURVATURE * w
    displacement = rho * (1 - lam + lam / np.linalg.norm(g)) * g
    e = w + displacement
    g_p = CURVATURE * e
    return (CURVATURE @ e**2 / 2 - f_min - g_p @ displacement) / (g_p @ g_p), g_p


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("f_min", [0.0, -2.5])
def test_the_step_is_polyaks(lam, f_min):
    size, g_p = polyak(START, 0.1, lam, f_min)
    assert 0 < size < 1
    after, _ = step(sam_jax.sam_sps(1.0, 0.1, lam=lam, f_min=f_min))
    np.testing.assert_allclose(after, START - size * g_p, rtol=1e-14)


@pytest.mark.usefixtures("float64")
def test_the_learning_rate_is_a_cap():
    size, g_p = polyak(START, 0.1, 1.0)
    after, _ = step(sam_jax.sam_sps(size / 2, 0.1))
    np.testing.assert_allclose(after, START - size / 2 * g_p, rtol=1e-14)
    # Below every Polyak step it is SAM with SGD, by the rate's own schedule.
    rate = lambda count: 0.01 * 0.5 ** jnp.float64(count)  # noqa: E731
    capped = problems.trajectory(sam_jax.sam_sps(rate, 0.1), loss, jnp.array(START))
    sam = optax.chain(sam_jax.sam(0.1), optax.sgd(rate))
    plain = problems.trajectory(sam, loss, jnp.array(START))
    np.testing.assert_allclose(capped, plain, rtol=1e-13)


@pytest.mark.usefixtures("float64")
def test_weight_decay_acts_at_the_weights_and_not_in_the_size():
    size, g_p = polyak(START, 0.1, 1.0)
    after, _ = step(sam_jax.sam_sps(1.0, 0.1, weight_decay=0.5))
    np.testing.assert_allclose(after, START - size * (g_p + 0.5 * START), rtol=1e-14)


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


def test_mask_perturbs_some_parameters_only():
    params = problems.network()
    tx = sam_jax.sam_sps(mask={"kernel": True, "bias": False})
    points = []

    def value_and_grad_fn(w):
        points.append(w)
        return jnp.float32(1.0), w

    tx.update(params, tx.init(params), params, value_and_grad_fn=value_and_grad_fn)
    [point] = points
    assert point["bias"] == params["bias"]
    moved = np.linalg.norm(point["kernel"] - params["kernel"])
    assert moved == pytest.approx(0.1, rel=1e-5)


def test_grad_fn_does_not_tell_the_loss():
    w = jnp.ones(2)
    tx = sam_jax.sam_sps()
    with pytest.raises(ValueError, match=r"^value_and_grad_fn is missing"):
        tx.update(w, tx.init(w), w, grad_fn=jax.grad(loss))
