import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import sam_jax
from sam_jax.methods import averages

GRADIENTS = np.random.default_rng(0).normal(size=(8, 3))


def outputs(block, gradients=GRADIENTS):
    """Of the block for each gradient, and its last state."""
    state, seen = block.init(jnp.zeros(3, gradients.dtype)), []
    for g in gradients:
        updates, state = block.update(jnp.asarray(g), state)
        seen.append(updates)
    return np.array(seen), state


def ema_of(gradients, new_weight):
    average, seen = gradients[0], []
    for count, g in enumerate(gradients):
        if count:
            average = (1 - new_weight(count)) * average + new_weight(count) * g
        seen.append(average)
    return np.array(seen)


# ── The average itself ───────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "theta, value",
    [
        (0.3, lambda count: 0.3),
        (1, lambda count: 1.0),
        (0.0, lambda count: 0.0),
        (lambda count: 0.9 ** count.astype(float), lambda count: 0.9**count),
    ],
    ids=["number", "one", "zero", "schedule"],
)
def test_ema_is_the_recursion_from_the_first_gradient(theta, value):
    seen, state = outputs(sam_jax.ema(theta))
    np.testing.assert_allclose(seen, ema_of(GRADIENTS, value), rtol=1e-13)
    np.testing.assert_array_equal(state.average, seen[-1])
    assert state.count == len(GRADIENTS) and bool(state.started)


# ── What is left of a gradient ───────────────────────────────────────────────────────


# ── State ────────────────────────────────────────────────────────────────────────────

BLOCKS = {
    "ema": lambda: sam_jax.ema(0.5),
    "subtract_ema": lambda: sam_jax.subtract_ema(1.0, 0.5),
    "subtract_ema, current": lambda: sam_jax.subtract_ema(
        1.0, 0.5, include_current=True
    ),
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_a_count_that_ran_ahead_does_not_start_the_average(block):
    # As after updates that a cadence skipped: the zeros of the state are no average.
    state = block().init(jnp.zeros(2))._replace(count=jnp.int32(5))
    g = jnp.array([1.0, -2.0])
    updates, state = block().update(g, state)
    np.testing.assert_array_equal(updates, g)
    np.testing.assert_array_equal(state.average, g)
    assert state.count == 6


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_averages_in_its_dtype_and_does_not_overflow(dtype):
    block = sam_jax.ema(0.25)
    params = {"a": jnp.zeros(2, dtype), "b": jnp.zeros([], jnp.float32)}
    state = block.init(params)
    for _ in range(3):
        g = jax.tree.map(lambda x: jnp.full_like(x, 6e4), params)
        updates, state = block.update(g, state)
    for tree in (updates, state.average):
        assert tree["a"].dtype == dtype and tree["b"].dtype == jnp.float32
        np.testing.assert_array_equal(tree["a"], g["a"])


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_devices_keep_the_mean_of_their_averages(block):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    gradients = np.arange(1.0, 5.0, dtype=np.float32)

    def update(g, state):
        _, state = block().update(g, state)
        return state

    # The state is declared the same on all devices, which JAX checks by its type.
    specs = {"in_specs": (P("data"), P()), "out_specs": P()}
    mapped = jax.jit(jax.shard_map(update, mesh=mesh, **specs))
    state = mapped(gradients, block().init(jnp.zeros(1)))
    assert isinstance(state, averages.AverageState)
    np.testing.assert_array_equal(state.average, [2.5])
    for shard in state.average.addressable_shards:
        np.testing.assert_array_equal(shard.data, [2.5])


# ── Coefficients ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), float("inf"), "?"])
def test_weights_outside_of_the_interval_are_refused(bad):
    with pytest.raises(ValueError, match=r"^theta must be a number in \[0, 1\]"):
        sam_jax.ema(bad)
    with pytest.raises(ValueError, match=r"^lam must be a number in \[0, 1\]"):
        sam_jax.subtract_ema(1.0, bad)


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf"), "?"])
def test_a_negative_share_is_refused(bad):
    with pytest.raises(ValueError, match=r"^sigma must be a finite number >= 0"):
        sam_jax.subtract_ema(bad, 0.9)


def test_an_average_of_wider_weights_is_not_rounded_to_the_gradients_dtype():
    block, params = averages.ema(0.001), jnp.zeros(1, jnp.float32)
    state = block.init(params)
    _, state = block.update(jnp.ones(1, jnp.bfloat16), state)
    for _ in range(100):
        output, state = block.update(jnp.zeros(1, jnp.bfloat16), state)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(state.average, [0.999**100], rtol=1e-5)
