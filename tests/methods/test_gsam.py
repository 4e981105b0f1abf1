import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax import schedules
from tests.methods import problems
from tests.methods.traits import Traits

TRAITS = Traits(exact=False)  # at rho = 0 the orthogonal part is rounding

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
START = np.array([1.0, -2.0, 0.5])


@pytest.mark.usefixtures("float64")
def test_closed_form_on_a_quadratic():
    # g = A w, g_p = A (w + rho g / |g|); the part of g orthogonal to g_p is
    # g - (g.g_p / g_p.g_p) g_p, and the direction is g_p less alpha times it.
    w, rho, alpha, t = START, 0.3, 0.6, 0.1
    tx = optax.chain(sam_jax.gsam(rho, alpha=alpha), optax.sgd(t))
    loss = problems.quadratic(MATRIX)
    for seen in problems.trajectory(tx, loss, jnp.asarray(START), steps=10):
        g = MATRIX @ w
        g_p = MATRIX @ (w + rho * g / np.linalg.norm(g))
        w = w - t * (g_p - alpha * (g - (g @ g_p) / (g_p @ g_p) * g_p))
        np.testing.assert_allclose(seen, w, rtol=1e-11)


@pytest.mark.usefixtures("float64")
def test_without_alpha_it_is_sam():
    args = (problems.network(jnp.float64), (problems.batch(jnp.float64),), 5)
    ours, theirs = (
        problems.trajectory(
            optax.chain(method, optax.sgd(0.1)), problems.network_loss, *args
        )
        for method in (sam_jax.gsam(0.3, alpha=0.0), sam_jax.sam(0.3))
    )
    for x, y in zip(ours, theirs, strict=True):
        for key in x:
            np.testing.assert_allclose(x[key], y[key], rtol=1e-11)


def test_the_radius_can_follow_the_learning_rate():
    # From 0.1 to 0 in four updates; the radius goes from 0.6 to 0.2 with it.
    learning_rate = optax.linear_schedule(0.1, 0.0, 4)
    rho = schedules.tied_to(learning_rate, 0.2, 0.6, lr_min=0.0, lr_max=0.1)
    tx = optax.chain(sam_jax.gsam(rho), optax.sgd(learning_rate))
    step = problems.make_step(tx, problems.network_loss)
    params, radii = problems.network(), []
    state = tx.init(params)
    for _ in range(6):
        params, state = step(params, state, problems.batch())
        radii.append(float(sam_jax.diagnostics(state)["perturbation_norm"]))
    assert radii == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.2], rel=1e-5)
