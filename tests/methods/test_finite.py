"""`apply_if_finite`: a second gradient that is not finite moves nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import sam_jax
from tests.methods import problems
from tests.methods.contract import cases
from tests.methods.traits import sgd, traits

pytestmark = pytest.mark.usefixtures("promotion_of_optax")


def calls(bad):
    """Keywords of an update, its own gradients multiplied by something."""
    params, batch = problems.network(), problems.batch()
    given = problems.keywords(problems.network_loss, params, batch)

    def spoilt(function):
        return lambda *args: jax.tree.map(lambda x: bad * x, function(*args))

    return given | {k: spoilt(f) for k, f in given.items() if k.endswith("_fn")}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@cases.every_method("sam", "looksam", "bsam", "functional_sam")
def test_a_second_gradient_that_is_not_finite_is_left_out(name, bad):
    if traits(name).needs == ("params",):
        pytest.skip("takes no gradient itself")
    params = problems.network()
    tx = sam_jax.apply_if_finite(cases.optimizer(name), 1)
    grads = cases.gradient_at(params)
    with jax.disable_jit():
        _, before = tx.update(grads, tx.init(params), params, **calls(1.0))
        assert before.last_finite and before.total_notfinite == 0
        start = tx.init(params)
        updates, after = tx.update(grads, start, params, **calls(bad))
    assert not any(map(np.any, jax.tree.leaves(updates)))
    cases.assert_equal(after.inner_state, start.inner_state)
    assert not after.last_finite
    assert after.notfinite_count == after.total_notfinite == 1


def test_a_limit_of_updates_in_a_row_and_a_count_of_all():
    tx = sam_jax.apply_if_finite(optax.chain(sam_jax.sam(0.1), sgd(0.1)), 2)
    w = jnp.ones(2)

    @jax.jit
    def update(state, bad):
        return tx.update(w, state, w, grad_fn=lambda w: bad * w)

    state, seen = tx.init(w), []
    for bad in [1.0, jnp.nan, jnp.nan, 1.0, jnp.nan, jnp.nan, jnp.nan]:
        updates, state = update(state, bad)
        counts = int(state.notfinite_count), int(state.total_notfinite)
        seen.append((bool(jnp.isfinite(updates).all()), *counts))
    assert seen == [
        (True, 0, 0),
        (True, 1, 1),
        (True, 2, 2),
        (True, 0, 2),
        (True, 1, 3),
        (True, 2, 4),
        (False, 3, 5),  # beyond the limit: applied, to be seen
    ]


def test_numbers_that_never_were_finite_and_gradients_turned_finite():
    plateau = optax.contrib.reduce_on_plateau()  # its best loss starts at infinity
    tx = optax.chain(sam_jax.sam(0.1), sgd(0.1), plateau)
    w = jnp.ones(2)
    tx = sam_jax.apply_if_finite(tx, 1)
    _, state = tx.update(w, tx.init(w), w, grad_fn=lambda w: w, value=1.0)
    assert state.last_finite
    # The update is finite, but an average would keep the NaN for ever.
    hidden = optax.chain(sam_jax.sam(0.1), optax.ema(0.9), optax.zero_nans(), sgd(0.1))
    tx = sam_jax.apply_if_finite(hidden, 1)
    start = tx.init(w)
    _, state = tx.update(w, start, w, grad_fn=lambda w: w * jnp.nan)
    assert not state.last_finite
    cases.assert_equal(state.inner_state, start.inner_state)


def test_a_state_may_have_python_numbers():
    counting = optax.GradientTransformation(
        lambda _: (0, 0.0), lambda u, s, p=None: (u, (s[0] + 1, s[1] + 0.5))
    )
    tx = sam_jax.apply_if_finite(optax.chain(sam_jax.sam(0.1), counting), 1)
    w = jnp.ones(2)
    _, state = tx.update(w, tx.init(w), w, grad_fn=lambda w: w)
    assert state.inner_state[1] == (1, 0.5)
    _, after = tx.update(w, state, w, grad_fn=lambda w: w * jnp.nan)
    assert after.inner_state[1] == (1, 0.5) and after.total_notfinite == 1


@pytest.mark.parametrize("check_vma", [True, False])
def test_devices_leave_out_what_is_not_finite_on_one_of_them(check_vma):
    method = sam_jax.apply_if_finite(sam_jax.sam(0.1), 10)
    tx, w = optax.chain(method, sam_jax.pmean("data"), sgd(0.1)), jnp.ones(2)

    def step(w, state, bad):
        own = jax.lax.pcast(w, "data", to="varying") if check_vma else w
        updates, state = tx.update(own, state, own, grad_fn=lambda w: w * bad)
        state = state if check_vma else jax.tree.map(lambda x: x[None], state)
        return optax.apply_updates(w, updates), state

    mesh = jax.sharding.Mesh(jax.devices()[:2], ("data",))
    out = P() if check_vma else P("data")  # without types, those of both devices
    sharded = jax.shard_map(
        step,
        mesh=mesh,
        check_vma=check_vma,
        in_specs=(P(), P(), P("data")),
        out_specs=(P(), out),
    )
    after, state = jax.jit(sharded)(w, tx.init(w), jnp.array([jnp.nan, 1.0]))
    np.testing.assert_array_equal(after, w)
    assert np.all(state[0].total_notfinite == 1) and not np.any(state[0].last_finite)


@pytest.mark.parametrize("limit", [-1, 1.5, None])
def test_the_limit_is_an_integer(limit):
    with pytest.raises(
        sam_jax.checks.BadValue, match=r"^max_consecutive_errors must be"
    ):
        sam_jax.apply_if_finite(sam_jax.sam(0.1), limit)
