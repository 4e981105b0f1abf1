import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods.traits import Traits

# Below -sqrt(10) every update is SAM: a squared norm s that has just entered the
# variance with the weight 0.1 is at most sqrt(10) standard deviations from the mean.
TRAITS = Traits(any_value=frozenset({"threshold"}), settings={"threshold": -10.0})


def with_sam(tx, norms):
    """In which updates SAM is used, for gradients of these norms."""
    params, used = jnp.zeros(2), []
    state = tx.init(params)
    step = jax.jit(
        lambda grads, state: tx.update(grads, state, params, grad_fn=lambda w: grads)
    )
    for norm in norms:
        _, state = step(jnp.array([norm, 0.0], jnp.float32), state)
        used.append(bool(sam_jax.diagnostics(state)["perturbation_norm"] > 0))
    return used


@pytest.mark.parametrize("threshold", [-1.0, -0.3, 0.0, 0.5, 1.5])
def test_decides_by_the_moving_mean_and_variance(threshold):
    norms = np.random.default_rng(0).uniform(0.5, 2.0, size=40)
    delta, mean, variance, expected = 0.8, None, 0.0, []
    for square in norms**2:
        if mean is None:
            mean = square
            expected.append(True)
            continue
        mean = delta * mean + (1 - delta) * square
        variance = delta * variance + (1 - delta) * (square - mean) ** 2
        expected.append(bool(square >= mean + threshold * variance**0.5))
    assert 1 < sum(expected) < 39  # both are seen
    tx = sam_jax.ae_sam(0.1, threshold=threshold, delta=delta)
    assert with_sam(tx, norms) == expected


def test_the_threshold_follows_a_schedule():
    # 100 in the first three updates, then -100.
    threshold = optax.linear_schedule(100.0, -100.0, 1, transition_begin=2)
    norms = [1.0, 2.0, 3.0, 1.0, 0.5, 2.0]
    used = with_sam(sam_jax.ae_sam(0.1, threshold=threshold), norms)
    assert used == [True, False, False, True, True, True]


def test_one_huge_gradient_does_not_end_the_decisions():
    tx, params = sam_jax.ae_sam(0.1), jnp.zeros(1)
    state = tx.init(params)
    step = jax.jit(
        lambda grads, state: tx.update(grads, state, params, grad_fn=lambda w: grads)
    )
    for norm in [1.0, 1e30] + [1.0] * 500:
        _, state = step(jnp.full(1, norm, jnp.float32), state)
    assert np.isfinite(state.decision.mean) and np.isfinite(state.decision.variance)
    assert float(state.decision.mean) == pytest.approx(1.0, rel=1e-3)
