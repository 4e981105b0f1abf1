import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems

GRADS = jnp.array([8.0, -7.0, 6.0, -5.0, 4.0, -3.0, 2.0, -1.0])


def masks(tx, steps, grads=GRADS, **keywords):
    """The mask in each of some updates with the same gradient."""

    def update(state, _):
        _, state = tx.update(grads, state, grads, grad_fn=lambda w: w, **keywords)
        return state, optax.tree.get(state, "mask")

    return np.asarray(jax.lax.scan(update, tx.init(grads), length=steps)[1])


@pytest.mark.parametrize("sparsity, size", [(0.5, 4), (0.3, 6), (0.9, 1), (0, 8)])
def test_every_mask_has_the_size(sparsity, size):
    tx = sam_jax.dynamic_sparse_sam(sparsity=sparsity, every=1, drop_rate=0.7)
    assert [mask.sum() for mask in masks(tx, 5)] == [size] * 5


def test_the_first_mask_is_random():
    many = jnp.ones(1000)
    [first], [again], [other] = (
        masks(sam_jax.dynamic_sparse_sam(seed=seed), 1, many) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert 150 < (first & other).sum() < 350  # 250 of two independent halves
    keys = [
        masks(sam_jax.dynamic_sparse_sam(), 1, many, key=jax.random.key(i))[0]
        for i in range(2)
    ]
    assert 150 < (keys[0] & keys[1]).sum() < 350


def test_drops_no_more_than_there_is_room_for():
    first, second = masks(
        sam_jax.dynamic_sparse_sam(sparsity=0.25, drop_rate=1.0, every=1), 2
    )
    # Both zeros became ones, in place of the two smallest.
    assert second[~first].all() and second.sum() == 6
    assert not second[np.flatnonzero(first)[-2:]].any()


def test_drop_rate_may_decay():
    decay = lambda count: jnp.where(count < 2, 0.5, 0.0)  # noqa: E731
    tx = sam_jax.dynamic_sparse_sam(drop_rate=decay, every=1)
    first, second, third, fourth = masks(tx, 4)
    assert (first != second).any()
    np.testing.assert_array_equal(second, third)
    np.testing.assert_array_equal(third, fourth)


def test_drawn_at_the_first_use_under_a_cadence():
    tx = sam_jax.late_phase(sam_jax.dynamic_sparse_sam(every=3), start=4)
    sizes = [mask.sum() for mask in masks(tx, 7)]
    assert sizes == [0, 0, 0, 0, 4, 4, 4]
    _, _, _, _, first, same, renewed = masks(tx, 7)
    np.testing.assert_array_equal(first, same)
    assert (first != renewed).any()


def test_sparsity_is_that_of_the_parameters_kept():
    params = problems.network()
    tx = sam_jax.dynamic_sparse_sam(sparsity=0.75, mask={"kernel": True, "bias": False})
    _, state = tx.update(params, tx.init(params), params, grad_fn=lambda w: w)
    [mask] = jax.tree.leaves(optax.tree.get(state, "mask"))
    assert mask.shape == (3, 4) and mask.sum() == 3
