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


DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)
leaf = st.tuples(
    st.sampled_from(DTYPES),
    st.sampled_from([(), (3,), (2, 3), (0, 2)]),
    st.floats(0, 1),  # where in the dtype's range, from the smallest to the largest
    st.booleans(),  # known when the program is compiled
    st.booleans(),  # one number all over
)


@pytest.mark.usefixtures("float64")
@settings(max_examples=25, deadline=None)
@given(st.lists(leaf, max_size=3), st.booleans())
def test_norm_is_exact_for_every_tree_constant_or_not(leaves, zero):
    rng, arrays = np.random.default_rng(0), []
    for dtype, shape, place, _, alike in leaves:
        limits = jnp.finfo(dtype)
        low, high = float(limits.minexp), float(limits.maxexp) - 2
        draws = np.ones(shape) if alike else rng.uniform(1, 2, shape)
        exponent = round(low + place * (high - low))
        arrays.append(jnp.asarray(draws * (0 if zero else 2.0**exponent), dtype))
    known = [
        x if constant else None
        for x, (*_, constant, _) in zip(arrays, leaves, strict=True)
    ]

    @jax.jit
    def measured(given):
        tree = [g if k is None else k for g, k in zip(given, known, strict=True)]
        tree.append(None)
        return numerics.norm(tree), numerics.cosine(tree, tree), numerics.unit(tree)

    norm, cosine, unit = measured(arrays)
    wide = [np.longdouble(np.asarray(x, np.float64)) for x in arrays]
    expected = np.sqrt(sum(np.sum(x**2) for x in wide)) if wide else 0
    widest = jnp.float64 if jnp.float64 in [x.dtype for x in arrays] else jnp.float32
    accuracy = 4 * float(jnp.finfo(widest).eps)
    assert norm.dtype == widest
    assert float(norm) == pytest.approx(float(expected), rel=accuracy, abs=0)
    assert float(cosine) == pytest.approx(float(expected > 0), abs=1e-6)
    for x, y in zip(unit[:-1], arrays, strict=True):
        assert x.dtype == y.dtype
        right = np.float64(np.longdouble(np.asarray(y, np.float64)) / (expected or 1))
        tiny, eps = (float(getattr(jnp.finfo(x.dtype), k)) for k in ("tiny", "eps"))
        np.testing.assert_allclose(np.float64(x), right, rtol=2 * eps, atol=2 * tiny)


sizes = st.integers(-126, 127).map(lambda exponent: 2.0**exponent)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes)
def test_quotient_is_right_where_it_leaves_the_range(a, b, x):
    part, rest = numerics.quotient(jnp.float32(a), jnp.float32(b))
    right = a / b
    if 2.0**-240 < right < 2.0**250:
        assert float(part) * float(rest) == pytest.approx(right, rel=1e-6)
    if 2.0**-120 < right < 2.0**120 and b < 2.0**120:
        assert part == 1
    product = float(numerics.multiply(jnp.float32(x), part, rest))
    if 2.0**-126 <= x * right < 2.0**128:
        assert product == pytest.approx(x * right, rel=1e-6)


def test_a_quotient_by_zero_is_zero_and_the_floor_counts():
    for a in (0.0, 1.0, 3e38):
        assert float(numerics.quotient(a, jnp.float32(0))[1]) == 0
        assert float(numerics.quotient(a, jnp.float32(0), 1e-12)[1]) == 0
    part, rest = numerics.quotient(1.0, jnp.float32(1e-20), 1e-12)
    assert (float(part), float(rest)) == (1, pytest.approx(1e12))


def test_terms_that_cancel_beyond_the_largest_number():
    g = jnp.array([1e38, -3e38, 1.0])
    np.testing.assert_allclose(numerics.combine((-8.0, g), (9.0, g)), g, rtol=1e-6)
    assert jnp.isinf(numerics.combine((2.0, g), (2.0, g))).tolist() == [True, True, 0]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_norm_of_half_precision_is_taken_in_float32(dtype):
    # 300 squared is beyond float16; ones summed in bfloat16 stop at 256.
    norm = numerics.norm(jnp.full(4, 300, dtype))
    assert norm.dtype == jnp.float32
    assert float(norm) == 600
    assert float(numerics.norm(jnp.ones(4097, dtype))) == pytest.approx(4097**0.5)


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


@settings(max_examples=60, deadline=None)
@given(vectors, vectors)
def test_orthogonal_part_agrees_with_numpy(a, b):
    a, b = np.float32(a), np.float32(b)
    length = float(b @ b)
    expected = a - (a @ b) / length * b if length else a
    part = numerics.orthogonal(tree_of(a), tree_of(b))
    assert jax.tree.structure(part) == jax.tree.structure(tree_of(a))
    flat = np.array([part["a"], part["b"][0][0, 0], part["b"][1][0]])
    np.testing.assert_allclose(flat, expected, atol=1e-6)


@pytest.mark.parametrize("scale_a", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("scale_b", [1e-30, 1.0, 1e30])
def test_orthogonal_part_at_any_scale(scale_a, scale_b):
    # The squares of both leave float32, and so does their inner product.
    a, b = jnp.array([1.0, 2.0]) * scale_a, jnp.array([0.0, 3.0]) * scale_b
    part = numerics.orthogonal(a, b)
    np.testing.assert_allclose(part / scale_a, [1, 0], atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_orthogonal_part_keeps_the_dtype(dtype):
    # In float16 the products (1000 * 1000) would be infinite.
    a, b = jnp.array([1000.0, 0.0], dtype), jnp.array([1000.0, 1000.0], dtype)
    part = numerics.orthogonal(a, b)
    assert part.dtype == dtype
    np.testing.assert_allclose(np.float32(part), [500, -500], rtol=1e-2)


def test_orthogonal_to_nothing_is_the_whole():
    a = jnp.array([1.0, -2.0])
    np.testing.assert_array_equal(numerics.orthogonal(a, jnp.zeros(2)), a)
    np.testing.assert_array_equal(numerics.orthogonal(jnp.zeros(2), a), jnp.zeros(2))


@settings(max_examples=60, deadline=None)
@given(vectors, vectors)
def test_dot_agrees_with_numpy(a, b):
    product = numerics.dot(tree_of(a), tree_of(b))
    assert product.dtype == jnp.float32
    assert float(product) == pytest.approx(np.dot(a, b), abs=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_dot_of_half_precision_is_summed_in_float32(dtype):
    # 300 squared is beyond float16; ones summed in bfloat16 stop at 256.
    large, ones = jnp.full(4, 300, dtype), jnp.ones(4097, dtype)
    assert float(numerics.dot(large, large)) == 4 * 300**2
    assert float(numerics.dot(ones, ones)) == 4097
    assert numerics.dot(ones, ones).dtype == jnp.float32


@pytest.mark.usefixtures("float64")
def test_dot_of_mixed_precision_is_taken_in_the_widest():
    a = [jnp.full(1, 3.0, jnp.float32), jnp.full(1, 1e-9)]
    b = [jnp.full(1, 1.0, jnp.float32), jnp.full(1, 1.0)]
    assert numerics.dot(a, b).dtype == jnp.float64
    assert float(numerics.dot(a, b)) == 3 + 1e-9


def test_dot_of_nothing_is_zero():
    assert numerics.dot({}, {}) == 0
    assert numerics.dot(jnp.zeros((0, 3)), jnp.zeros((0, 3))) == 0


def test_combine_is_the_linear_combination():
    a, b, c = tree_of([1, 2, 3]), tree_of([10, 20, 30]), tree_of([0.5, 0, -0.5])
    total = numerics.combine((2.0, a), (jnp.float32(-0.5), b), (4, c))
    assert jax.tree.structure(total) == jax.tree.structure(a)
    flat = [float(total["a"]), float(total["b"][0][0, 0]), float(total["b"][1][0])]
    assert flat == [2 - 5 + 2, 4 - 10, 6 - 15 - 2]
    assert total["empty"].shape == (0, 2)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_combine_keeps_the_first_dtype_and_rounds_once(dtype):
    # 2 * 6e4 is beyond float16, the difference is not.
    first, second = jnp.asarray([6e4], dtype), jnp.asarray([5e4], jnp.float32)
    total = numerics.combine((2.0, first), (-2.0, second))
    assert total.dtype == dtype
    expected = 2 * np.float64(first) - 1e5
    np.testing.assert_array_equal(
        total, jnp.asarray(expected, jnp.float32).astype(dtype)
    )


@pytest.mark.usefixtures("float64")
def test_combine_takes_factors_of_any_precision():
    total = numerics.combine((jnp.float32(0.5), jnp.ones(1)), (2, jnp.full(1, 1e-12)))
    assert total.dtype == jnp.float64
    assert float(total[0]) == 0.5 + 2e-12


def test_combine_can_be_differentiated_in_the_factor():
    a, b = jnp.array([1.0, 2.0]), jnp.array([3.0, 5.0])
    slope = jax.jacobian(lambda t: numerics.combine((1 - t, a), (t, b)))(0.3)
    np.testing.assert_allclose(slope, b - a, rtol=1e-6)


def test_combine_refuses_trees_of_other_structures():
    with pytest.raises(ValueError):
        numerics.combine((1.0, [jnp.ones(1)]), (1.0, [jnp.ones(1), jnp.ones(1)]))


@pytest.mark.parametrize("size", [1e-50, 1e-200, 1e38, 3e38])
def test_leaves_of_two_precisions_share_a_norm_out_of_the_range_of_one(size):
    with jax.enable_x64(True):
        narrow = jnp.zeros(2, jnp.float32) if size < 1 else jnp.float32([size, 0])
        tree = {"a": narrow, "b": jnp.full(2, min(size, 1e-4), jnp.float64)}
        unit = jax.jit(numerics.unit)(tree)
        assert [unit[key].dtype for key in "ab"] == [jnp.float32, jnp.float64]
        np.testing.assert_allclose(numerics.norm(unit), 1, rtol=1e-6)
        np.testing.assert_allclose(numerics.cosine(tree, tree), 1, rtol=1e-6)
