"""The tree of a state as a checkpoint stores it, and whether one fits the other."""

import collections
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from sam_jax import errors
from sam_jax.methods.observations import Diagnostics

LATER = "layer_shares"  # of `Diagnostics`; earlier versions have not stored it


def as_stored(state: Any, stored: Any) -> Any:
    """The same leaves in the structure of an earlier version's checkpoint.

    It has no field for what came later: what is None, or `LATER`. The first kept the
    states of method and base optimizer as a pair without names.
    """
    if _lacks_later(stored):
        state = jax.tree.map(_without_later, state, is_leaf=_is_seen)
    if not (hasattr(state, "_fields") and isinstance(stored, dict)):
        return state
    fields = {k: v for k, v in state._asdict().items() if v is not None or k in stored}
    if isinstance(stored.get("opt_state"), list):
        fields["opt_state"] = list(state.opt_state)
    return collections.namedtuple("AsStored", fields)(**fields)


def completed(state: Any, restored: Any, stored: Any) -> Any:
    """What was restored, in the structure of a state; zeros for what was not stored."""
    leaves, lacks = iter(jax.tree.leaves(restored)), _lacks_later(stored)

    def leaf(path: Any, expected: Any) -> Any:
        if lacks and getattr(path[-1], "name", None) == LATER:
            return jnp.zeros(expected.shape, expected.dtype, device=expected.sharding)
        return next(leaves)

    return jax.tree_util.tree_map_with_path(leaf, state)


def _lacks_later(stored: Any) -> bool:
    return not any(path.endswith(f"/{LATER}") for path in _signatures(stored))


def _is_seen(node: Any) -> bool:
    return isinstance(node, Diagnostics)


def _without_later(node: Any) -> Any:
    if not _is_seen(node):
        return node
    fields = {name: x for name, x in node._asdict().items() if name != LATER}
    return collections.namedtuple("Earlier", fields)(**fields)


def check_compatible(folder: pathlib.Path, stored: Any, expected: Any) -> None:
    """Raises UserError with the first leaf that differs in path, shape or dtype."""
    have = _signatures(stored)
    want = _signatures(expected)
    for path in [*want, *have]:
        if have.get(path) != want.get(path):
            raise errors.UserError(
                f"checkpoint {folder} is of another model or method (leaf '{path}': "
                f"stored {have.get(path, 'nothing')}, expected "
                f"{want.get(path, 'nothing')}): give another --workdir, or the "
                "settings it was written with"
            )


def _signatures(tree: Any) -> dict[str, str]:
    """For each leaf with data, in order: its path, and such as ``float32[3,4]``."""
    signatures = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, abstract(leaf))
        if 0 not in leaf.shape:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            signatures[name] = f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
    return signatures


def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and place of an array."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def without_empty(tree: Any) -> Any:
    """The tree with None for arrays without elements, which Orbax refuses."""
    return jax.tree.map(lambda leaf: leaf if leaf.size else None, tree)


def with_empty(tree: Any, restored: Any) -> Any:
    """What was restored, with the arrays of `tree` that have no elements."""

    def whole(leaf: jax.ShapeDtypeStruct, value: Any) -> Any:
        if leaf.size:
            return value
        return jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)

    return jax.tree.map(whole, tree, restored)
