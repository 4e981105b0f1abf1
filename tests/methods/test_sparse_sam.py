import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax.methods import sparse_masks
from tests.methods import problems
from tests.methods.traits import Traits

# Sixteen gradients of single examples in the first of the five updates.
TRAITS = Traits(
    calls=5 * 2 + 16, needs=("params", "grad_fn", "subset_grad_fn"), examples=True
)

# Every example has the loss x.w**2 / 2, with the gradient x * w.
ROWS = np.array([[3.0, 1.0, 0.0, 2.0], [0.0, 1.0, 2.0, -2.0], [9.0, 9.0, 9.0, 9.0]])
WEIGHTS = np.array([1.0, -1.0, 2.0, 0.1])
rows_loss = problems.Supervised(
    lambda w, rows: w, lambda w, rows: rows @ jnp.square(w) / 2
)


def kept_by(tx, steps=1, weights=WEIGHTS, rows=ROWS):
    """The masks after each of some updates, at weights that stay."""
    w, rows = jnp.asarray(weights), jnp.asarray(rows)
    state, seen = tx.init(w), []
    for _ in range(steps):
        call = problems.keywords(rows_loss, w, rows)
        _, state = tx.update(call["grad_fn"](w), state, w, **call)
        seen.append(np.asarray(optax.tree.get(state, "mask")))
    return seen


def test_starts_with_all_weights():
    params = problems.network()
    mask = optax.tree.get(sam_jax.sparse_sam().init(params), "mask")
    assert jax.tree.map(lambda m: m.dtype == bool and bool(m.all()), mask) == {
        "kernel": True,
        "bias": True,
    }


def test_takes_the_single_gradients_only_when_the_mask_is_due():
    tx, w, taken = sam_jax.sparse_sam(num_samples=2, every=3), jnp.ones(4), []
    update = jax.jit(
        lambda state, count: tx.update(
            w, state, w, grad_fn=lambda w: w, subset_grad_fn=subset_grad_fn(count)
        )
    )

    def subset_grad_fn(count):
        def grad(w, rows):
            assert rows.shape == (1,) and rows.dtype == jnp.int32
            jax.debug.callback(lambda *seen: taken.append(seen), count, rows[0])
            return w

        return grad

    state = tx.init(w)
    for count in range(7):
        _, state = update(state, count)
    jax.effects_barrier()
    seen = sorted((int(count), int(row)) for count, row in taken)
    assert seen == [(count, row) for count in (0, 3, 6) for row in (0, 1)]


@pytest.mark.parametrize(
    "cadence, first",
    [
        (lambda method: sam_jax.late_phase(method, start=2), 2),
        (lambda method: sam_jax.every_k(method, k=3), 0),
    ],
)
def test_a_cadence_neither_delays_nor_loses_a_mask(cadence, first):
    # The mask is due in the updates 0, 4, 8, ...; the next use of the method renews it.
    tx, masks = cadence(sam_jax.sparse_sam(num_samples=2, every=4)), []
    state = tx.init(jnp.ones(2))
    for count in range(7):
        w = jnp.ones(2)
        largest = jnp.float32([count % 2 == 0, count % 2 == 1])
        _, state = tx.update(
            w,
            state,
            w,
            grad_fn=lambda w: w,
            subset_grad_fn=lambda w, rows, largest=largest: w * largest,
        )
        masks.append(optax.tree.get(state, "mask").tolist())
    assert masks[first][first % 2] and masks[first] != [True, True]
    renewed = {2: (0, [True, False]), 0: (6, [True, False])}[first]
    assert masks[6] == renewed[1]


@pytest.mark.parametrize("sparsity, size", [(0.5, 2), (0.9, 0), (0.4, 2), (0.25, 3)])
def test_ties_do_not_change_the_size(sparsity, size):
    tx = sam_jax.sparse_sam(sparsity=sparsity, num_samples=1)
    [mask] = kept_by(tx, weights=np.ones(4), rows=np.ones((1, 4)))
    assert mask.sum() == size


def test_no_more_samples_than_the_batch_has():
    # Rows beyond it would count the last example again, here the third.
    rows = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
    tx = sam_jax.sparse_sam(num_samples=100)
    [mask] = kept_by(tx, weights=np.ones(2), rows=rows)
    assert mask.tolist() == [True, False]


def test_sparsity_is_that_of_the_parameters_kept():
    tx = sam_jax.sparse_sam(
        0.3, sparsity=0.75, mask={"kernel": True, "bias": False}, num_samples=4
    )
    params = problems.network()
    call = problems.keywords(problems.network_loss, params, problems.batch())
    _, state = tx.update(call["grad_fn"](params), tx.init(params), params, **call)
    [mask] = jax.tree.leaves(optax.tree.get(state, "mask"))
    assert mask.shape == (3, 4) and mask.sum() == 3
    batch = problems.batch()
    squares = sum(
        jax.grad(problems.network_loss)(params, tuple(x[i : i + 1] for x in batch))[
            "kernel"
        ]
        ** 2
        for i in range(4)
    )
    assert squares[mask].min() > squares[~mask].max()


def test_top_marks_as_many_as_asked_for_in_any_tree():
    tree = {"a": jnp.array([[1.0, 5.0], [5.0, 0.0]]), "b": jnp.array(3.0), "c": ()}
    for size in range(6):
        marked = sparse_masks.top(tree, size)
        assert jax.tree.structure(marked) == jax.tree.structure(tree)
        assert sum(int(m.sum()) for m in jax.tree.leaves(marked)) == size
    assert sparse_masks.top(tree, 3)["a"].tolist() == [[False, True], [True, False]]
    assert sparse_masks.top({}, 0) == {}
