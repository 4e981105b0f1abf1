import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods.traits import Traits

# The caller's gradient is evaluated, where its effects are counted, but not used. At
# rho = 0 the step is still an adaptive one at noisy weights.
TRAITS = Traits(
    base=None,
    calls=5 * 3,
    needs=("params", "grad_fn", "num_examples"),
    unused_gradient=True,
    rate=0.2,
)

MANY = 10**24  # so many examples that the noise is below rounding


def recorder(grad):
    """A gradient function, and the points at which it has been called."""
    points = []

    def grad_fn(w):
        points.append(w)
        return grad(w)

    return grad_fn, points


def test_the_callers_gradient_is_not_used():
    tx, w = sam_jax.bsam(0.1, num_examples=4), jnp.ones(3)
    given = [
        tx.update(g, tx.init(w), w, grad_fn=lambda w: 2 * w)
        for g in (jnp.ones(3), jnp.full(3, jnp.nan))
    ]
    for x, y in zip(*map(jax.tree.leaves, given), strict=True):
        np.testing.assert_array_equal(x, y)


def test_number_of_examples_is_given_or_a_keyword():
    w = jnp.ones(1000)

    def spread(tx, **keywords):
        grad_fn, points = recorder(lambda w: w)
        tx.update(w, tx.init(w), w, grad_fn=grad_fn, **keywords)
        return float(jnp.std(points[0]))

    given = spread(sam_jax.bsam(0.1, num_examples=100))
    assert given == pytest.approx(0.1, rel=0.1)
    assert spread(sam_jax.bsam(0.1), num_examples=100) == given
    assert spread(sam_jax.bsam(0.1, num_examples=100), num_examples=1) == given
    with pytest.raises(ValueError, match=r"^num_examples is missing.*num_examples=N\)"):
        spread(sam_jax.bsam(0.1))


def test_moments_of_half_precision_are_kept_in_float32():
    # One minus b2 is below the resolution of bfloat16: s would never move.
    w = jnp.ones(3, jnp.bfloat16)
    tx = sam_jax.bsam(0.1, num_examples=MANY, weight_decay=0.0)
    updates, state = tx.update(w, tx.init(w), w, grad_fn=jnp.zeros_like)
    assert updates.dtype == jnp.bfloat16
    assert state.momentum.dtype == state.precision.dtype == jnp.float32
    np.testing.assert_allclose(state.precision, 0.999 + 0.001 * 0.1, rtol=1e-6)
