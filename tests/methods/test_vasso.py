import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods import problems


@pytest.mark.usefixtures("float64")
def test_the_displacement_follows_a_reference_average_of_the_batches():
    rho, theta, average = 0.3, 0.2, None
    tx, params = sam_jax.vasso(rho, theta=theta), problems.network(jnp.float64)
    state = tx.init(params)
    for seed in range(6):
        batch = problems.batch(jnp.float64, seed=seed)
        grads = jax.grad(problems.network_loss)(params, batch)
        moved = problems.perturbed_params(tx, grads, state, params)
        g = np.append(grads["kernel"], grads["bias"])
        average = g if average is None else (1 - theta) * average + theta * g
        e = np.append(
            moved["kernel"] - params["kernel"], moved["bias"] - params["bias"]
        )
        expected = rho * average / np.linalg.norm(average)
        np.testing.assert_allclose(e, expected, rtol=1e-9)
        _, state = tx.update(grads, state, params, grad_fn=lambda w: w)


def test_lam_zero_perturbs_by_the_average_itself():
    tx, params = sam_jax.vasso(0.5, theta=0.25, lam=0.0), jnp.zeros(2)
    state = tx.init(params)
    for grads, moved in [([4.0, 0.0], [2.0, 0.0]), ([0.0, 8.0], [1.5, 1.0])]:
        grads = jnp.array(grads)
        perturbed = problems.perturbed_params(tx, grads, state, params)
        np.testing.assert_allclose(perturbed, moved, rtol=1e-6)
        _, state = tx.update(grads, state, params, grad_fn=lambda w: w)


def test_theta_follows_a_schedule():
    # 1 in the first update, of no effect there; then 0.5, then 0: the average stays.
    tx = sam_jax.vasso(1.0, theta=lambda count: jnp.maximum(1 - count / 2, 0.0), lam=0)
    params, seen = jnp.zeros(1), []
    state = tx.init(params)
    for g in (4.0, 8.0, 100.0):
        d, state = tx.update(jnp.array([g]), state, params, grad_fn=lambda w: w)
        seen.append(float(d[0]))
    assert seen == pytest.approx([4.0, 6.0, 6.0], rel=1e-6)


@pytest.mark.parametrize("late", [0, 1, 3])
def test_skipped_updates_do_not_start_the_average(late):
    # The first gradient that the method sees is the average, whatever was before. Not
    # normalized, so that a share of it would show: lam is 0.
    tx = sam_jax.late_phase(sam_jax.vasso(0.5, theta=0.1, lam=0.0), start=late)
    params, skipped = jnp.zeros(2), jnp.array([7.0, 7.0])
    state = tx.init(params)
    for _ in range(late):
        d, state = tx.update(skipped, state, params, grad_fn=lambda w: w)
        np.testing.assert_array_equal(d, skipped)
    for _ in range(2):
        d, state = tx.update(jnp.array([3.0, 4.0]), state, params, grad_fn=lambda w: w)
        np.testing.assert_allclose(d, [1.5, 2.0], rtol=1e-6)
