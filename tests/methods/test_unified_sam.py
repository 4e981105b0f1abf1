import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems


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
def test_ends_in_a_cycle_around_the_minimum_of_a_quadratic():
    # Along the top eigenvector, of curvature L, a step is
    #     x -> x - gamma L (x + rho ((1 - lam) L x + lam sign x)).
    # It maps c to -c if 2 c = gamma L (c (1 + L rho (1 - lam)) + rho lam).
    gamma, rho, top, lam = 0.02, 0.05, 10.0, np.array([0.25, 0.5, 0.75, 1.0])
    loss = problems.quadratic(np.diag([0.1, top]))

    @jax.vmap
    def last(lam):
        tx = optax.chain(sam_jax.unified_sam(rho, lam=lam), optax.sgd(gamma))
        # 20,000 steps: the flat direction loses a factor 1 - gamma / 10 in each.
        return problems.train(tx, loss, jnp.array([0.1, 0.1]), steps=20_000)[0]

    amplitude = (
        gamma * top * rho * lam / (2 - gamma * top * (1 + top * rho * (1 - lam)))
    )
    expected = np.stack([np.zeros(4), amplitude], axis=1)
    np.testing.assert_allclose(np.abs(last(lam)), expected, rtol=1e-10, atol=1e-10)
