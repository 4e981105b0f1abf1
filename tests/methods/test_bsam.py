import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods import problems
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


def test_the_noise_has_the_variance_of_the_posterior():
    tx, w = sam_jax.bsam(0.1, num_examples=50), jnp.full(20_000, 3.0)
    state = tx.init(w)
    state = state._replace(precision=jnp.where(jnp.arange(20_000) < 10_000, 0.5, 8.0))
    grad_fn, points = recorder(lambda w: w)
    tx.update(w, state, w, grad_fn=grad_fn)
    noise = np.asarray(points[0] - w)
    for half, s in ((noise[:10_000], 0.5), (noise[10_000:], 8.0)):
        assert half.std() == pytest.approx((50 * s) ** -0.5, rel=0.03)
        assert abs(half.mean()) < 4 * half.std() / 100


def test_ascends_from_the_mean_and_along_the_noisy_gradient():
    tx, w = sam_jax.bsam(0.1, 0.5, num_examples=4), jnp.arange(1.0, 9.0)
    state = tx.init(w)._replace(precision=jnp.full(8, 2.0))
    grad_fn, points = recorder(jnp.square)
    tx.update(jnp.full(8, jnp.nan), state, w, grad_fn=grad_fn)
    noisy, perturbed = points
    np.testing.assert_allclose(perturbed, w + 0.5 * noisy**2 / 2, rtol=1e-6)
    assert (noisy != w).all()


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


def test_draws_anew_by_update_seed_and_key():
    w, noisy = jnp.ones(4), []

    def first_point(seed, state=None, **keywords):
        tx = sam_jax.bsam(0.1, num_examples=4, seed=seed)
        grad_fn, points = recorder(lambda w: w)
        _, after = tx.update(w, state or tx.init(w), w, grad_fn=grad_fn, **keywords)
        noisy.append(points[0].tolist())
        return after

    state = first_point(0)
    first_point(0, state._replace(count=state.count + 0))
    first_point(1)
    first_point(0, key=jax.random.key(7))
    first_point(1, key=jax.random.key(7))
    assert len({tuple(point) for point in noisy}) == 5
    first_point(0)
    assert noisy[-1] == noisy[0]


def test_mask_keeps_the_noise_from_the_others_too():
    params = problems.network()
    grad_fn, points = recorder(lambda w: w)
    mask = {"kernel": True, "bias": False}
    tx = sam_jax.bsam(0.1, num_examples=4, mask=mask)
    tx.update(params, tx.init(params), params, grad_fn=grad_fn)
    for point in points:
        assert (point["kernel"] != params["kernel"]).all()
        assert point["bias"] == params["bias"]


def test_moments_of_half_precision_are_kept_in_float32():
    # One minus b2 is below the resolution of bfloat16: s would never move.
    w = jnp.ones(3, jnp.bfloat16)
    tx = sam_jax.bsam(0.1, num_examples=MANY, weight_decay=0.0)
    updates, state = tx.update(w, tx.init(w), w, grad_fn=jnp.zeros_like)
    assert updates.dtype == jnp.bfloat16
    assert state.momentum.dtype == state.precision.dtype == jnp.float32
    np.testing.assert_allclose(state.precision, 0.999 + 0.001 * 0.1, rtol=1e-6)
