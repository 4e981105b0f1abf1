import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax.methods import ascent, numerics


def apply(block, tree):
    return block.update(tree, block.init(tree))[0]


def tree():
    return {"a": jnp.array([[3.0, 0.0]]), "b": jnp.array(-4.0)}


def assert_close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-37, 1e-25, 1e25, 1e37])
def test_normalize_gives_unit_length_at_any_scale(scale):
    g = jnp.array([1.0, 2.0, -2.0]) * scale
    unit = apply(sam_jax.normalize(eps=0.0), g)
    np.testing.assert_allclose(unit, [1 / 3, 2 / 3, -2 / 3], rtol=1e-6)


def test_below_the_floor_the_result_shrinks_with_the_gradient():
    block = sam_jax.normalize(eps=0.1)
    for norm, expected in [(0.0, 0.0), (0.025, 0.25), (0.1, 1.0), (5.0, 1.0)]:
        length = numerics.norm(apply(block, jnp.array([0.6, 0.8]) * norm))
        assert float(length) == pytest.approx(expected, rel=1e-6)


def test_partially_normalize_mixes_the_factors():
    # 1 - lam + lam / 5 for the norm 5 of the tree.
    for lam, factor in [(0.0, 1.0), (0.25, 0.8), (1.0, 0.2)]:
        mixed = apply(sam_jax.partially_normalize(lam), tree())
        assert_close(mixed, jax.tree.map(lambda x, f=factor: f * x, tree()))


def test_partially_normalize_passes_the_gradient_exactly_for_lam_zero():
    g = jnp.array([0.1, 1 / 3, 1e30, 0.0])
    np.testing.assert_array_equal(apply(sam_jax.partially_normalize(0.0), g), g)


@pytest.mark.parametrize("make", [sam_jax.scale, sam_jax.partially_normalize])
def test_numbers_keep_no_state_and_schedules_count(make):
    assert jax.tree.leaves(make(0.5).init(tree())) == []

    block = make(lambda count: 0.25 * count.astype(jnp.float32))
    state, g = block.init(tree()), tree()
    for count in range(3):
        assert state.count == count
        updates, state = block.update(g, state)
        assert_close(updates, apply(make(0.25 * count), g))
    assert isinstance(state, ascent.ScheduledState)
    assert state.count.dtype == jnp.int32


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_blocks_keep_the_dtype(dtype):
    g = jnp.full((4,), 1000.0, dtype)  # its norm overflows float16 if squared there
    block = optax.chain(sam_jax.normalize(), sam_jax.scale(0.5))
    displacement = apply(block, g)
    assert displacement.dtype == dtype
    np.testing.assert_array_equal(displacement, np.full(4, 0.25))


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf"), "?"])
def test_bad_coefficients_are_refused(bad):
    for make, name in [
        (sam_jax.scale, "rho"),
        (sam_jax.normalize, "eps"),
        (sam_jax.partially_normalize, "lam"),
        (lambda eps: sam_jax.partially_normalize(0.5, eps), "eps"),
    ]:
        with pytest.raises(ValueError, match=rf"^{name} must be "):
            make(bad)
    with pytest.raises(ValueError, match=r"^lam must be a number in \[0, 1\]"):
        sam_jax.partially_normalize(1.1)


# ── Sizes of the weights ─────────────────────────────────────────────────────────────


def weights():
    return {"kernel": jnp.array([[3.0, -4.0]]), "bias": jnp.array([-2.0])}


@pytest.mark.parametrize(
    "form, kernel, bias",
    [
        ({}, [[3.5, 4.5]], [1.0]),
        ({"biases": True}, [[3.5, 4.5]], [2.5]),
        ({"layerwise": True}, [[5.5, 5.5]], [1.0]),
        ({"layerwise": True, "biases": True}, [[5.5, 5.5]], [2.5]),
    ],
    ids=str,
)
def test_weights_are_scaled_by_their_sizes_and_biases_on_demand(form, kernel, bias):
    params = weights()
    block = sam_jax.scale_by_weights(eta=0.5, **form)
    ones = jax.tree.map(jnp.ones_like, params)
    scaled, _ = block.update(ones, block.init(params), params)
    assert_close(scaled, {"kernel": np.array(kernel), "bias": np.array(bias)})
    # T^2 g / |T g| for g = 1
    T = np.append(*jax.tree.leaves(scaled))
    block = sam_jax.normalize_by_weights(eta=0.5, **form)
    unit, _ = block.update(ones, block.init(params), params)
    expected = T**2 / np.linalg.norm(T)
    np.testing.assert_allclose(np.append(*jax.tree.leaves(unit)), expected, rtol=1e-6)


def test_steepest_is_the_farthest_point_of_the_ellipsoid():
    g, axes = np.array([[1.0, -2.0, 0.0], [2.0, 0.5, 3.0]], np.float32)
    point = np.asarray(ascent.steepest(jnp.asarray(g), jnp.asarray(axes)))
    assert np.linalg.norm(point / axes) == pytest.approx(1, rel=1e-6)
    others = np.random.default_rng(0).normal(size=(1000, 3))
    others *= axes / np.linalg.norm(others, axis=1, keepdims=True)
    assert np.all(others @ g < point @ g)
    nothing = ascent.steepest(jnp.zeros(3), jnp.asarray(axes))
    np.testing.assert_array_equal(nothing, np.zeros(3))


def test_weights_of_zero_size_give_zero():
    params = {"kernel": jnp.zeros((2, 2))}
    grads = {"kernel": jnp.ones((2, 2))}
    block = sam_jax.normalize_by_weights(eta=0.0)
    unit, _ = block.update(grads, block.init(params), params)
    np.testing.assert_array_equal(unit["kernel"], np.zeros((2, 2)))


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf"), "?", lambda n: 1.0])
def test_a_bad_eta_is_refused(bad):
    for make in (sam_jax.scale_by_weights, sam_jax.normalize_by_weights):
        with pytest.raises(ValueError, match=r"^eta must be a finite number >= 0"):
            make(bad)
