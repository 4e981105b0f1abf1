import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# One update in five takes the second gradient.
TRAITS = Traits(calls=6)

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
START = np.array([1.0, -2.0, 0.5])


def counted_gradients(tx, updates):
    calls, params = [], problems.network()

    def loss(params, batch):
        jax.debug.callback(lambda: calls.append(1))
        return problems.network_outputs(params, batch)

    step = jax.jit(problems.make_step(tx, problems.network_loss._replace(outputs=loss)))
    state = tx.init(params)
    for _ in range(updates):
        params, state = step(params, state, problems.batch())
    jax.effects_barrier()
    return len(calls)


@pytest.mark.usefixtures("float64")
def test_recursion_on_a_quadratic():
    # Every third update is SAM's and stores g_v, the part of g_p orthogonal to g; the
    # others add it to g in the length alpha |g|.
    w, rho, alpha, t, k = START, 0.3, 0.7, 0.05, 3
    tx = optax.chain(sam_jax.looksam(rho, k=k, alpha=alpha), optax.sgd(t))
    loss = problems.quadratic(MATRIX)
    g_v = None
    seen = problems.trajectory(tx, loss, jnp.asarray(START), steps=8)
    for count, actual in enumerate(seen):
        g = MATRIX @ w
        if count % k == 0:
            d = MATRIX @ (w + rho * g / np.linalg.norm(g))
            g_v = d - (d @ g) / (g @ g) * g
        else:
            d = g + alpha * np.linalg.norm(g) / np.linalg.norm(g_v) * g_v
        w = w - t * d
        np.testing.assert_allclose(actual, w, rtol=1e-11)


@pytest.mark.usefixtures("float64")
def test_an_interval_of_one_is_sam():
    args = (problems.network(jnp.float64), (problems.batch(jnp.float64),), 5)
    ours, theirs = (
        problems.trajectory(
            optax.chain(method, optax.sgd(0.1)), problems.network_loss, *args
        )
        for method in (sam_jax.looksam(0.3, k=1), sam_jax.sam(0.3))
    )
    for x, y in zip(ours, theirs, strict=True):
        for key in x:
            np.testing.assert_allclose(x[key], y[key], rtol=1e-11)


@pytest.mark.parametrize("k, calls", [(1, 14), (2, 11), (3, 10), (7, 8)])
def test_takes_the_second_gradient_in_every_kth_update(k, calls):
    # Seven updates: 7 + ceil(7 / k) gradients.
    tx = optax.chain(sam_jax.looksam(0.1, k=k), optax.sgd(0.1))
    assert counted_gradients(tx, 7) == calls


def test_rounding_is_not_stretched_to_the_length_of_the_gradient():
    # On w.w / 2 the perturbed gradient is parallel to the gradient, whatever rounding
    # says, so there is nothing to reuse.
    params = jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)
    tx, state = sam_jax.looksam(0.05, k=2), None
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


def test_layerwise_displaces_every_array_by_its_own_length():
    params, grads = problems.network(), {"kernel": jnp.ones((3, 4)), "bias": 1e6}
    grads["bias"] = jnp.asarray(grads["bias"], jnp.float32)
    tx = sam_jax.looksam(0.1, layerwise=True)
    moved = problems.perturbed_params(tx, grads, tx.init(params), params)
    # The gradient's direction, a tenth of the weights' norm: |0.5| / 10 for the bias.
    assert float(moved["bias"] - params["bias"]) == pytest.approx(0.05, rel=1e-5)
    length = 0.1 * np.linalg.norm(params["kernel"])
    np.testing.assert_allclose(
        moved["kernel"] - params["kernel"], length / 12**0.5, rtol=1e-5
    )


def test_layerwise_leaves_zero_weights_and_zero_gradients():
    params = {"w": jnp.zeros(3), "v": jnp.ones(2)}
    grads = {"w": jnp.ones(3), "v": jnp.zeros(2)}
    tx = sam_jax.looksam(0.1, layerwise=True)
    moved = problems.perturbed_params(tx, grads, tx.init(params), params)
    for key in params:
        np.testing.assert_array_equal(moved[key], params[key])
