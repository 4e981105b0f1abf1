import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
START = np.array([1.0, -2.0, 0.5])


def run(direction, steps=5):
    tx = optax.chain(direction, optax.sgd(0.1, momentum=0.9))
    args = (problems.network_loss, problems.network(), (problems.batch(),), steps)
    return jax.tree.leaves(problems.trajectory(tx, *args))


@pytest.mark.parametrize(
    "lam, other", [(1.0, sam_jax.sam), (1, sam_jax.sam), (0.0, sam_jax.usam)]
)
def test_the_ends_are_sam_and_usam(lam, other):
    for x, y in zip(
        run(sam_jax.unified_sam(0.3, lam=lam)), run(other(0.3)), strict=True
    ):
        np.testing.assert_array_equal(x, y)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "lam, lam_of",
    [
        (0.3, lambda t: 0.3),
        ("1/t", lambda t: 1 / t),
        ("1-1/t", lambda t: 1 - 1 / t),
        (lambda count: 0.5 ** count.astype(float), lambda t: 0.5 ** (t - 1)),
    ],
    ids=["number", "1/t", "1-1/t", "schedule"],
)
def test_recursion_on_a_quadratic(lam, lam_of):
    # x_{t+1} = x_t - gamma A (x_t + rho (1 - lam_t + lam_t / |g|) g), g = A x_t,
    # with t counted from 1.
    x, gamma, rho = START, 0.1, 0.2
    tx = optax.chain(sam_jax.unified_sam(rho, lam=lam), optax.sgd(gamma))
    loss = problems.quadratic(MATRIX)
    seen = problems.trajectory(tx, loss, jnp.asarray(START), steps=10)
    for t, actual in enumerate(seen, start=1):
        g = MATRIX @ x
        factor = rho * (1 - lam_of(t) + lam_of(t) / np.linalg.norm(g))
        x = x - gamma * MATRIX @ (x + factor * g)
        np.testing.assert_allclose(actual, x, rtol=1e-11)


@pytest.mark.parametrize(
    "lam, lengths",
    [
        # |g| = 4, rho = 0.1: the length is 0.1 (4 (1 - lam) + lam).
        ("1/t", [0.1, 0.25, 0.3, 0.325]),
        ("1-1/t", [0.4, 0.25, 0.2, 0.175]),
    ],
)
def test_lengths_of_the_displacement(lam, lengths):
    tx, params = sam_jax.unified_sam(0.1, lam=lam), jnp.zeros(2)
    grads, state, seen = jnp.array([0.0, 4.0]), tx.init(params), []
    for _ in lengths:
        _, state = tx.update(grads, state, params, grad_fn=lambda w: w)
        seen.append(float(sam_jax.diagnostics(state)["perturbation_norm"]))
    assert seen == pytest.approx(lengths, rel=1e-6)


def test_the_default_is_the_papers_steady_best():
    tx, params = sam_jax.unified_sam(0.1), jnp.zeros(1)
    _, state = tx.update(jnp.full(1, 4.0), tx.init(params), params, grad_fn=lambda w: w)
    assert sam_jax.diagnostics(state)["perturbation_norm"] == pytest.approx(0.4)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("lam", [0.25, 0.5, 0.75, 1.0])
def test_ends_in_a_cycle_around_the_minimum_of_a_quadratic(lam):
    # Along the top eigenvector, of curvature L, a step is
    #     x -> x - gamma L (x + rho ((1 - lam) L x + lam sign x)).
    # It maps c to -c if 2 c = gamma L (c (1 + L rho (1 - lam)) + rho lam).
    gamma, rho, top = 0.02, 0.05, 10.0
    tx = optax.chain(sam_jax.unified_sam(rho, lam=lam), optax.sgd(gamma))
    loss = problems.quadratic(np.diag([0.1, top]))
    # 20,000 steps: the flat direction loses a factor 1 - gamma / 10 in each.
    last, _ = problems.train(tx, loss, jnp.array([0.1, 0.1]), steps=20_000)
    amplitude = (
        gamma * top * rho * lam / (2 - gamma * top * (1 + top * rho * (1 - lam)))
    )
    np.testing.assert_allclose(np.abs(last), [0, amplitude], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("lam", ["1/T", "t", ""])
def test_other_strings_are_refused(lam):
    with pytest.raises(ValueError, match=r"one of '1/t', '1-1/t', got '"):
        sam_jax.unified_sam(lam=lam)


@pytest.mark.parametrize("lam", [-0.1, 1.1, float("nan"), None])
def test_other_numbers_are_refused(lam):
    with pytest.raises(ValueError, match=r"lam must be a number in \[0, 1\]"):
        sam_jax.unified_sam(lam=lam)
