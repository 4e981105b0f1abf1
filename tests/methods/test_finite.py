"""`apply_if_finite`: a second gradient that is not finite moves nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.contract import cases
from tests.methods.traits import sgd, traits


@pytest.fixture(autouse=True)
def strict():
    """In the place of the room's fixture: Optax's averages need promotion."""
    return


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
        pytest.skip("takes no gradient by itself")
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


@pytest.mark.parametrize("limit", [-1, 1.5, None])
def test_the_limit_is_an_integer(limit):
    with pytest.raises(
        sam_jax.checks.BadValue, match=r"^max_consecutive_errors must be"
    ):
        sam_jax.apply_if_finite(sam_jax.sam(0.1), limit)
