import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from sam_jax.methods import noise
from tests.methods import problems


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)))


def test_a_key_of_its_own_for_every_seed_and_count():
    keys = {
        bits(noise.update_key(seed, jnp.int32(count), None))
        for seed in range(4)
        for count in range(5)
    }
    assert len(keys) == 20


def test_the_same_seed_and_count_give_the_same_key():
    one, two = (noise.update_key(3, jnp.int32(7), None) for _ in range(2))
    jitted = jax.jit(lambda count: noise.update_key(3, count, None))(jnp.int32(7))
    assert bits(one) == bits(two) == bits(jitted)


def test_the_callers_key_replaces_the_count_and_not_the_seed():
    key, other = jax.random.split(jax.random.key(0))
    count = jnp.int32(0)
    assert bits(noise.update_key(1, count, key)) == bits(
        noise.update_key(1, jnp.int32(9), key)
    )
    keys = [
        noise.update_key(1, count, None),
        noise.update_key(1, count, key),
        noise.update_key(2, count, key),
        noise.update_key(1, count, other),
        key,
    ]
    assert len(set(map(bits, keys))) == len(keys)


def test_the_first_key_that_is_given_counts():
    key, other = jax.random.split(jax.random.key(0))
    count = jnp.int32(0)
    first = bits(noise.update_key(1, count, key))
    assert bits(noise.update_key(1, count, None, key)) == first
    assert bits(noise.update_key(1, count, key, other)) == first
    assert bits(noise.update_key(1, count, None, None)) == bits(
        noise.update_key(1, count)
    )


def test_a_seed_may_be_traced():
    traced = jax.jit(lambda seed: noise.update_key(seed, jnp.int32(2), None))
    assert bits(traced(5)) == bits(noise.update_key(5, jnp.int32(2), None))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_normal_numbers_like_a_tree(dtype):
    tree = {
        "matrix": jnp.zeros((3, 4), dtype),
        "scalar": jnp.zeros([], jnp.float32),
        "empty": jnp.zeros((0, 2), dtype),
    }
    drawn = noise.normal_like(jax.random.key(0), tree)
    assert jax.tree.structure(drawn) == jax.tree.structure(tree)
    for x, like in zip(jax.tree.leaves(drawn), jax.tree.leaves(tree), strict=True):
        assert (x.shape, x.dtype) == (like.shape, like.dtype)
    assert len(set(np.ravel(drawn["matrix"]).tolist())) > 6


def test_normal_numbers_are_standard_and_leaves_independent():
    tree = {"a": jnp.full((200, 100), 7.0), "b": jnp.zeros(20_000)}
    drawn = noise.normal_like(jax.random.key(1), tree)
    a, b = np.ravel(drawn["a"]), np.asarray(drawn["b"])
    for x in (a, b):  # six standard errors of 20,000 draws
        assert abs(x.mean()) < 0.042
        assert x.std() == pytest.approx(1, abs=0.03)
        assert np.mean(np.abs(x) < 1) == pytest.approx(0.6827, abs=0.02)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.042


def test_uniform_numbers_are_float32_in_the_unit_interval():
    tree = {"a": jnp.zeros((100, 100), jnp.bfloat16), "b": jnp.zeros([], jnp.float16)}
    drawn = noise.uniform_like(jax.random.key(2), tree)
    assert jax.tree.structure(drawn) == jax.tree.structure(tree)
    assert {x.dtype for x in jax.tree.leaves(drawn)} == {jnp.dtype("float32")}
    assert drawn["a"].shape == (100, 100) and drawn["b"].shape == ()
    counts, _ = np.histogram(drawn["a"], bins=10, range=(0, 1))
    assert counts.sum() == 10_000  # all within
    np.testing.assert_allclose(counts, 1000, atol=180)  # six standard errors
    # Finer than the 8 bits of bfloat16: a share of 0.1 % can be drawn.
    assert len(np.unique(drawn["a"])) > 9_000


def test_keys_decide_the_numbers():
    tree = [jnp.zeros(5), jnp.zeros(5)]
    one, two, other = (
        noise.normal_like(jax.random.key(seed), tree) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.isin(np.ravel(one), np.ravel(other)).any()
    jitted = jax.jit(noise.normal_like)(jax.random.key(0), tree)
    np.testing.assert_allclose(jitted, one, rtol=1e-6)


def test_a_tree_without_leaves_stays_one():
    assert noise.normal_like(jax.random.key(0), {}) == {}
    assert noise.uniform_like(jax.random.key(0), (None, {})) == (None, {})


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: sam_jax.random_sam(sigma=0.1, seed=seed),
        # Its noise is of the precision, which stays.
        lambda seed: sam_jax.bsam(0.1, num_examples=4, b2=1 - 1e-9, seed=seed),
        lambda seed: sam_jax.esam(gamma=1.0, seed=seed),
    ],
    ids=["random_sam", "bsam", "esam"],
)
def test_methods_draw_anew_by_seed_update_and_key(make):
    w, (key, other) = jnp.arange(1.0, 65.0), jax.random.split(jax.random.key(5))

    def point(seed=0, updates=0, **given):
        tx = make(seed)
        state = tx.init(w)
        for _ in range(updates):
            _, state = tx.update(w, state, w, grad_fn=lambda w: w)
        return tuple(problems.points(tx, w, state, w, **given)[0].tolist())

    drawn = [point(), point(1), point(updates=1)]
    drawn += [point(key=key), point(1, key=key), point(key=other)]
    assert len(set(drawn)) == 6
    assert point(updates=1) == drawn[2]
    assert point(updates=1, key=key) == drawn[3]  # the key is the update's own
