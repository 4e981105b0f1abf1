"""Random numbers of methods: a function of the seed and the number of the update.

No key is kept in a state, so that a resumed run repeats them without further ado.
"""

from typing import Any

import jax
import jax.numpy as jnp

from sam_jax.methods import devices


def update_key(
    seed: int | jax.Array, count: jax.Array, *keys: jax.Array | None
) -> jax.Array:
    """The key of one update.

    Args:
        seed: of the method.
        count: updates done so far. Scalar, int32.
        keys: what the caller passed to the update, typed keys of their own for every
            update. The first that is not None counts; without any it is derived from
            the seed and the count.

    Returns:
        A typed key.
    """
    for key in keys:
        if key is not None:
            return jax.random.fold_in(key, seed)
    return jax.random.fold_in(jax.random.key(seed), count)


def normal_like(key: jax.Array, tree: Any) -> Any:
    """Independent standard normal numbers.

    Args:
        key: a typed key.
        tree: arrays of real dtypes.

    Returns:
        Arrays of the same structure, shapes and dtypes.
    """
    return _like(key, tree, jax.random.normal)


def uniform_like(key: jax.Array, tree: Any) -> Any:
    """Independent numbers, uniform in [0, 1), float32; otherwise as `normal_like`."""
    return _like(
        key, tree, lambda key, shape, _: jax.random.uniform(key, shape, jnp.float32)
    )


def _like(key: jax.Array, tree: Any, draw: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(1, len(leaves)))

    def flat(key: jax.Array, leaf: Any) -> jax.Array:
        # Drawn flat: XLA's CPU backend is very slow to compile draws of many axes.
        numbers = draw(key, (jnp.size(leaf),), jnp.asarray(leaf).dtype)
        return devices.placed_as(numbers.reshape(jnp.shape(leaf)), leaf)

    return structure.unflatten(
        [flat(key, leaf) for key, leaf in zip(keys, leaves, strict=False)]
    )
