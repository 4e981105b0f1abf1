import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_jax.methods import numerics

numbers = st.floats(-1, 1, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
vectors = st.lists(numbers, min_size=3, max_size=3)


def tree_of(vector, dtype=jnp.float32):
    """The same numbers in leaves of several ranks, one of them empty."""
    a, b, c = (jnp.asarray(x, dtype) for x in vector)
    return {"a": a, "b": [b[None, None], c[None]], "empty": jnp.zeros((0, 2), dtype)}


@settings(max_examples=60, deadline=None)
@given(vectors, st.integers(-100, 115))
def test_norm_agrees_with_numpy_at_any_scale(vector, exponent):
    # The squares leave float32's range from exponents of about +-64 on.
    scaled = np.ldexp(np.float32(vector), exponent)
    expected = np.linalg.norm(scaled.astype(np.float64))
    norm = numerics.norm(tree_of(scaled))
    assert norm.dtype == jnp.float32
    assert float(norm) == pytest.approx(expected, rel=3e-7, abs=0)


@settings(max_examples=30, deadline=None)
@given(vectors, st.integers(-900, 900))
def test_norm_agrees_with_numpy_in_float64(vector, exponent):
    with jax.enable_x64(True):
        scaled = np.ldexp(np.float64(vector), exponent)
        norm = numerics.norm(tree_of(scaled, jnp.float64))
        # NumPy's own norm leaves the range here.
        expected = np.ldexp(np.linalg.norm(vector), exponent)
        assert norm.dtype == jnp.float64
        assert float(norm) == pytest.approx(expected, rel=1e-15, abs=0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_norm_of_half_precision_is_taken_in_float32(dtype):
    # 300 squared is beyond float16; ones summed in bfloat16 stop at 256.
    norm = numerics.norm(jnp.full(4, 300, dtype))
    assert norm.dtype == jnp.float32
    assert float(norm) == 600
    assert float(numerics.norm(jnp.ones(4097, dtype))) == pytest.approx(4097**0.5)


@pytest.mark.usefixtures("float64")
def test_norm_of_mixed_precision_is_taken_in_the_widest():
    tree = [jnp.ones(1, jnp.float16), jnp.full(1, 1e-9), jnp.ones(2, jnp.float32)]
    norm = numerics.norm(tree)
    assert norm.dtype == jnp.float64
    assert float(norm) == pytest.approx(3**0.5, rel=1e-15)


@pytest.mark.parametrize("tree", [{}, jnp.zeros((0, 3)), jnp.zeros(3), [None]])
def test_norm_and_cosine_of_nothing_are_zero(tree):
    assert numerics.norm(tree) == 0
    assert numerics.cosine(tree, tree) == 0


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_norm_does_not_hide_a_bad_gradient(bad):
    assert not jnp.isfinite(numerics.norm([jnp.ones(3), jnp.array(bad)]))


def test_norm_has_a_derivative_at_zero_and_elsewhere():
    gradient = jax.grad(numerics.norm)
    np.testing.assert_allclose(gradient(jnp.array([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(gradient(jnp.array([3e25, 4e25])), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(gradient(jnp.zeros(2)), [0, 0])


@settings(max_examples=60, deadline=None)
@given(vectors, vectors, st.integers(-100, 115), st.integers(-100, 115))
def test_cosine_agrees_with_numpy_at_any_scale(a, b, scale_a, scale_b):
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    expected = np.dot(a, b) / lengths if lengths else 0.0
    scaled_a, scaled_b = (
        tree_of(np.ldexp(np.float32(x), scale))
        for x, scale in [(a, scale_a), (b, scale_b)]
    )
    cosine = numerics.cosine(scaled_a, scaled_b)
    assert cosine.dtype == jnp.float32
    assert float(cosine) == pytest.approx(expected, abs=1e-6)
    assert numerics.cosine(scaled_b, scaled_a) == cosine


def test_safe_inverse_has_a_floor_and_no_pole():
    x = jnp.array([0.0, 1e-3, 0.5, 4.0])
    floored = [numerics.safe_inverse(entry, 0.1) for entry in x]
    np.testing.assert_allclose(floored, [0, 10, 2, 0.25], rtol=1e-6)
    assert numerics.safe_inverse(jnp.array(1e-3)) == pytest.approx(1e3)
    assert jax.grad(numerics.safe_inverse)(0.0) == 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_multiply_rounds_once_to_the_dtype_of_the_leaf(dtype):
    # In float16 the factor alone would be infinite and the entry alone zero.
    tree = [jnp.asarray(2.0**-12, dtype), jnp.ones((2, 1), dtype)]
    small, one = numerics.multiply(tree, jnp.float32(2.0**17 / 3))
    assert (small.dtype, one.shape) == (dtype, (2, 1))
    assert small == jnp.asarray(32 / 3, dtype)
