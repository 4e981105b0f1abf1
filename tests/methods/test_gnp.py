import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

TRAITS = Traits(exact=False)

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
START = np.array([1.0, -2.0, 0.5])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("normalize_clean", [False, True])
def test_closed_form_on_a_quadratic(normalize_clean):
    # g = A w, g_p = A (w + rho g / |g|): the direction is (1 - a) c g + a g_p with
    # c = 1, or 1 / |g| where the clean gradient is normalized.
    w, rho, alpha, t = START, 0.3, 0.7, 0.1
    direction = sam_jax.gnp(rho, alpha=alpha, normalize_clean=normalize_clean)
    loss = problems.quadratic(MATRIX)
    tx = optax.chain(direction, optax.sgd(t))
    for seen in problems.trajectory(tx, loss, jnp.asarray(START), steps=10):
        g = MATRIX @ w
        length = np.linalg.norm(g)
        g_p = MATRIX @ (w + rho * g / length)
        clean = g / length if normalize_clean else g
        w = w - t * ((1 - alpha) * clean + alpha * g_p)
        np.testing.assert_allclose(seen, w, rtol=1e-11)


@pytest.mark.usefixtures("float64")
def test_to_first_order_the_direction_is_that_of_the_penalised_loss():
    loss = problems.network_loss
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)
    rho, alpha = 1e-5, 0.3
    call = problems.gradients(loss, batch)
    tx = sam_jax.gnp(rho, alpha=alpha)
    g = call["grad_fn"](params)
    d, _ = tx.update(g, tx.init(params), params, **call)

    def gradient_norm(params):
        return optax.tree.norm(jax.grad(loss)(params, batch))

    slope = jax.grad(gradient_norm)(params)
    for key in params:
        penalty = (d[key] - g[key]) / (alpha * rho)
        np.testing.assert_allclose(penalty, slope[key], rtol=1e-3)


@pytest.mark.parametrize("normalize_clean", [False, True])
def test_alpha_one_is_sam(normalize_clean):
    def run(direction):
        tx = optax.chain(direction, optax.sgd(0.1, momentum=0.9))
        args = (problems.network_loss, problems.network(), (problems.batch(),), 5)
        return jax.tree.leaves(problems.trajectory(tx, *args))

    ours = run(sam_jax.gnp(0.3, alpha=1.0, normalize_clean=normalize_clean))
    for x, y in zip(ours, run(sam_jax.sam(0.3)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_alpha_warms_up_with_a_schedule():
    # g = (3, 4), g_p = (0, 0): the direction is (1 - alpha) g.
    tx = sam_jax.gnp(0.1, alpha=lambda count: jnp.minimum(count / 4, 1.0))
    params, grads = jnp.zeros(2), jnp.array([3.0, 4.0])
    state = tx.init(params)
    for share in (0, 0.25, 0.5, 0.75, 1, 1):
        d, state = tx.update(grads, state, params, grad_fn=lambda w: 0 * w)
        np.testing.assert_allclose(d, (1 - share) * grads, atol=1e-6)


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_outside_of_the_interval_is_refused(alpha):
    with pytest.raises(ValueError, match=r"^alpha must be a number in \[0, 1\]"):
        sam_jax.gnp(alpha=alpha)
