"""Directions with a given error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax.theory import desingularizing, inexact

GRADS = {"a": jnp.array([3.0, 0.0]), "b": jnp.array(4.0)}


def update(tx, grads, times=1):
    state = tx.init(grads)
    for i in range(times):
        found, state = tx.update(grads, state, key=jax.random.key(i))
    return found


@pytest.mark.parametrize(
    "direction", [inexact.against, inexact.along, inexact.anywhere]
)
def test_the_error_has_the_length_that_is_asked_for(direction):
    for make, size, length in ((inexact.igd, 0.7, 0.7), (inexact.igdr, 0.2, 1.0)):
        found = update(make(size, direction), GRADS)
        away = jax.tree.map(jnp.subtract, found, GRADS)
        flat = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(away)])
        assert jnp.linalg.norm(flat) == pytest.approx(length, rel=1e-6)


def test_a_schedule_counts_updates():
    tx = inexact.igdr(lambda count: count / 10, inexact.along)
    assert update(tx, GRADS)["b"] == 4.0
    assert update(tx, GRADS, times=3)["b"] == pytest.approx(4.8)


def test_a_size_out_of_its_range():
    with pytest.raises(ValueError, match="eps must be"):
        inexact.igd(-0.5)
    with pytest.raises(ValueError, match="nu must be"):
        inexact.igdr(1.5)


def test_a_stationary_point_stays_one():
    zero = jax.tree.map(jnp.zeros_like, GRADS)
    assert update(inexact.igdr(0.5, inexact.anywhere), zero)["b"] == 0.0
    assert update(inexact.igd(0.5, inexact.along), zero)["b"] == 0.0


# ── Desingularizing functions ────────────────────────────────────────────────────────

POINTS = np.geomspace(1e-9, 0.06, 40)


@pytest.mark.parametrize("q", [0.0, 0.3, 0.5, 0.9])
def test_powers_satisfy_assumption_2_3_with_one(q):
    c, ratio = desingularizing.power(2.0, q).assumption_2_3(POINTS), 1e-9 / 0.06
    assert c == pytest.approx((1 + ratio**q) / (1 + ratio) ** q)  # which is above 1


def test_a_slope_that_falls_by_steps_does_not():
    """Concave, but 1/phi' grows twentyfold from x to 2x."""
    steep = desingularizing.Desingularizing(
        lambda t: np.minimum(20 * np.asarray(t), 2 + np.asarray(t)),
        lambda t: np.where(np.asarray(t) < 0.11, 20.0, 1.0),
    )
    assert steep.assumption_2_3(np.array([0.1])) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "phi, end",
    [(desingularizing.power(3.0, 0.4), 10.0), (desingularizing.LOGARITHMIC, 0.1)],
)
def test_the_slope_is_the_derivative(phi, end):
    t, h = np.linspace(0.1, 0.9, 5) * end, 1e-6
    found = (phi.value(t + h) - phi.value(t - h)) / (2 * h)
    np.testing.assert_allclose(found, phi.slope(t), rtol=1e-6)


def test_impossible_functions_are_refused():
    with pytest.raises(ValueError, match=r"q must be in \[0, 1\) and M > 0, got 1"):
        desingularizing.power(1.0, 1.0)
    with pytest.raises(ValueError, match="no two points have a sum in"):
        desingularizing.LOGARITHMIC.assumption_2_3(np.array([0.1]))
