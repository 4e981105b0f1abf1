import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax.methods import core
from tests.methods import problems

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
START = np.array([1.0, -2.0, 0.5])


@pytest.mark.usefixtures("float64")
def test_many_steps_find_the_worst_point_of_the_ball(monkeypatch):
    # On a quadratic it is known: w + e with A (w + e) = mu e, |e| = rho, and the
    # largest such mu, which is above the top eigenvalue.
    monkeypatch.setattr(core, "unroll", lambda length: False)
    rho, w = 0.5, START

    def direction(steps):
        tx, params = sam_jax.multistep_sam(rho, steps=steps), jnp.asarray(w)
        grad_fn = jax.grad(problems.quadratic(MATRIX))
        d, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
        return d

    low, high = np.linalg.eigvalsh(MATRIX)[-1], 100.0
    for _ in range(200):  # |e(mu)| = |(mu - A)^-1 A w| falls with mu
        mu = (low + high) / 2
        e = np.linalg.solve(mu * np.eye(3) - MATRIX, MATRIX @ w)
        low, high = (mu, high) if np.linalg.norm(e) > rho else (low, mu)
    worst = MATRIX @ (w + e)
    np.testing.assert_allclose(direction(steps=200), worst, rtol=1e-9)
    assert np.abs(direction(steps=1) - worst).max() > 1e-2


def test_the_projection_does_not_lengthen_what_is_within_the_ball():
    # 0.5 (1, 0) + 0.5 (-0.8, 0.6) = (0.1, 0.3)
    tx, params = sam_jax.multistep_sam(0.5, steps=2), jnp.zeros(2)
    back = iter([jnp.array([-0.8, 0.6]), jnp.zeros(2)])
    seen = []

    def grad_fn(weights):
        seen.append(weights)
        return next(back)

    with jax.disable_jit():
        tx.update(jnp.array([1.0, 0.0]), tx.init(params), params, grad_fn=grad_fn)
    np.testing.assert_allclose(seen, [[0.5, 0.0], [0.1, 0.3]], rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 4])
def test_takes_one_gradient_per_step_and_one_at_the_end(steps):
    assert problems.evaluations(sam_jax.multistep_sam(steps=steps), 1) == [steps + 1]


@pytest.mark.parametrize(
    "tx",
    [
        optax.chain(sam_jax.multistep_sam(0.4, steps=4), optax.sgd(0.1)),
        sam_jax.lookbehind(0.1, 0.3, k=4),
    ],
    ids=["multistep_sam", "lookbehind"],
)
def test_a_loop_gives_what_the_unrolled_one_does(tx, monkeypatch):
    # Other backends than the CPU run a real loop.
    args = (problems.network_loss, problems.network(), (problems.batch(),), 3)
    unrolled = problems.trajectory(tx, *args)
    monkeypatch.setattr(core, "unroll", lambda length: False)
    looped = problems.trajectory(tx, *args)
    for x, y in zip(*map(jax.tree.leaves, (looped, unrolled)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
