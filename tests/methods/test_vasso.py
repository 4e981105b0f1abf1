import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
START = np.array([1.0, -2.0, 0.5])


def run(direction):
    tx = optax.chain(direction, optax.sgd(0.1, momentum=0.9))
    args = (problems.network_loss, problems.network(), (problems.batch(),), 5)
    return jax.tree.leaves(problems.trajectory(tx, *args))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("lam", [1.0, 0.4, 0.0])
def test_closed_form_on_a_quadratic(lam):
    # g = A w, e <- (1 - theta) e + theta g from e = g; the direction is
    # A (w + rho (1 - lam + lam / |e|) e).
    w, e, rho, theta, t = START, None, 0.2, 0.3, 0.1
    tx = optax.chain(sam_jax.vasso(rho, theta=theta, lam=lam), optax.sgd(t))
    loss = problems.quadratic(MATRIX)
    for seen in problems.trajectory(tx, loss, jnp.asarray(START), steps=10):
        g = MATRIX @ w
        e = g if e is None else (1 - theta) * e + theta * g
        w = w - t * MATRIX @ (w + rho * (1 - lam + lam / np.linalg.norm(e)) * e)
        np.testing.assert_allclose(seen, w, rtol=1e-11)


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


@pytest.mark.parametrize("theta", [1.0, 1])
def test_theta_one_is_sam(theta):
    ours, theirs = run(sam_jax.vasso(0.3, theta=theta)), run(sam_jax.sam(0.3))
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_theta_one_is_unified_sam_for_any_lam(lam):
    ours = run(sam_jax.vasso(0.2, theta=1.0, lam=lam))
    for x, y in zip(ours, run(sam_jax.unified_sam(0.2, lam=lam)), strict=True):
        np.testing.assert_array_equal(x, y)


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


@pytest.mark.parametrize("bad", [-0.1, 1.1, None])
def test_weights_outside_of_the_interval_are_refused(bad):
    with pytest.raises(ValueError, match=r"^theta must be a number in \[0, 1\]"):
        sam_jax.vasso(theta=bad)
    with pytest.raises(ValueError, match=r"^lam must be a number in \[0, 1\]"):
        sam_jax.vasso(lam=bad)
