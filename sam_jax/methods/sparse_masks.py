"""What the methods that perturb a part of the weights share: masks of exact size."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax.methods import core, devices


class SparseState(NamedTuple):
    """State of an ascent that keeps a part of the coordinates.

    Attributes:
        count: updates done so far. Scalar, int32.
        due: the first update that renews the mask. Scalar, int32.
        mask: the coordinates kept; a tree of booleans like the parameters.
    """

    count: core.Count
    due: jax.Array
    mask: Any


def moving(
    renewal: Callable[..., Any], every: int, *, start: bool
) -> optax.GradientTransformationExtraArgs:
    """Keeps the coordinates of a mask that is renewed periodically.

    Args:
        renewal: ``(updates, state, params, **keywords of the update) -> (() -> mask)``;
            what it returns is called only where a renewal is due.
        every: updates between two renewals, the first included.
        start: the mask before the first renewal: all coordinates, or none.

    Returns:
        A transformation with a `SparseState`.
    """

    def init_fn(params: optax.Params) -> SparseState:
        return SparseState(
            count=jnp.zeros([], jnp.int32),
            due=jnp.zeros([], jnp.int32),
            mask=jax.tree.map(lambda w: jnp.full_like(w, start, bool), params),
        )

    def update_fn(
        updates: optax.Updates,
        state: SparseState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SparseState]:
        due = state.count >= state.due
        mask = jax.lax.cond(
            due,
            renewal(updates, state, params, **extra_args),
            lambda: state.mask,
        )
        kept = jax.tree.map(lambda x, keep: jnp.where(keep, x, 0), updates, mask)
        return kept, SparseState(
            count=core.next_count(state.count),
            due=jnp.where(due, core.next_due(state.count, every), state.due),
            mask=mask,
        )

    return core.transformation(init_fn, update_fn)


def size_of(tree: Any, sparsity: float) -> int:
    """How many coordinates of a tree are kept: all but the share ``sparsity``."""
    total = sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree))
    return total - round(sparsity * total)


def top(scores: Any, size: int | jax.Array) -> Any:
    """Marks the largest scores of a whole tree.

    Args:
        scores: a tree of real arrays of one dtype.
        size: how many; ties are broken by the order of the coordinates.

    Returns:
        A tree of booleans like ``scores``, exactly ``size`` of them true.

    Example:
        >>> import jax.numpy as jnp
        >>> top({"a": jnp.array([3.0, 1.0]), "b": jnp.array(2.0)}, 2)
        {'a': Array([ True, False], dtype=bool), 'b': Array(True, dtype=bool)}
    """
    leaves, structure = jax.tree.flatten(scores)
    if not leaves:
        return scores
    order = jnp.argsort(
        jnp.concatenate([devices.whole(leaf).ravel() for leaf in leaves])
    )
    places = jnp.arange(order.size, dtype=jnp.int32)
    largest = places >= order.size - jnp.asarray(size, jnp.int32)
    marks = jnp.zeros(order.size, bool).at[order].set(largest)
    offsets = [0]
    for leaf in leaves:
        offsets.append(offsets[-1] + leaf.size)
    parts = [
        devices.placed_as(marks[start : start + leaf.size].reshape(leaf.shape), leaf)
        for start, leaf in zip(offsets, leaves, strict=False)
    ]
    return structure.unflatten(parts)
