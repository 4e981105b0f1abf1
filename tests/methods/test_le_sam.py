import jax.numpy as jnp
import pytest

import sam_jax


def moved_by(tx, gradient):
    """How far the second gradient is from the weights, for a gradient at them."""
    w, points = jnp.zeros(2), []
    tx.update(gradient, tx.init(w), w, grad_fn=lambda p: points.append(p) or p)
    return float(jnp.linalg.norm(points[0]))


@pytest.mark.parametrize("length", [0.1, 1.0, 4.0, 1e25])
def test_the_loss_rises_by_sigma_unless_the_radius_is_too_large(length):
    gradient = length * jnp.array([0.6, 0.8])
    seen = moved_by(sam_jax.le_sam(1.5, sigma=0.5), gradient)
    assert seen == pytest.approx(min(0.5 / length, 1.5), rel=1e-5)


def test_without_a_rise_there_is_no_perturbation():
    assert moved_by(sam_jax.le_sam(0.3, sigma=0.0), jnp.zeros(2)) == 0
    assert moved_by(sam_jax.le_sam(0.3, sigma=0.0), jnp.ones(2)) == 0
