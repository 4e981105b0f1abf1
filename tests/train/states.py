"""A state with every kind of leaf, and what a folder of checkpoints holds."""

import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax.train import checkpoint


class State(NamedTuple):
    step: jax.Array
    params: dict
    opt_state: optax.OptState
    key: jax.Array
    extra: dict


def make_state(fill: float = 1.0, width: int = 5) -> State:
    noise = jax.random.normal(jax.random.key(3), (16, width))
    params = {"dense/0": {"kernel": noise * fill, "bias": jnp.full([8], float(fill))}}
    tx = optax.chain(
        optax.masked(optax.trace(0.9), lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
        optax.add_decayed_weights(0.1),
        optax.scale_by_learning_rate(optax.constant_schedule(0.1)),
    )
    return State(
        step=jnp.int32(fill),
        params=params,
        opt_state=tx.init(params),
        key=jax.random.key(int(fill)),
        extra={
            "none": None,
            "nothing": {},
            "keys": jax.random.split(jax.random.key(1, impl="rbg"), 8),
            "half": jnp.asarray([float(fill), jnp.nan, -0.0], jnp.bfloat16),
            "flags": jnp.asarray([True, False]),
            "bytes": [jnp.asarray([255, 0], jnp.uint8), jnp.int8(-128)],
            "subnormal": jnp.asarray(np.float32(1e-42) * np.arange(8, dtype="f4")),
            "empty": jnp.zeros([0, 3], jnp.float16),
        },
    )


def bits(tree) -> list:
    """Paths, dtypes, shapes and bytes of all leaves."""

    def raw(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x).tobytes()

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        (jax.tree_util.keystr(path), str(x.dtype), x.shape, raw(x))
        for path, x in leaves
    ]


def abstract(tree, sharding_of=lambda x: x.sharding):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding_of(x)), tree
    )


def steps_on_disk(workdir: pathlib.Path) -> set[str]:
    return {path.name for path in (workdir / "checkpoints").iterdir()}


def save_steps(workdir: pathlib.Path, *steps: int, best: tuple[int, ...] = ()) -> None:
    with checkpoint.Checkpoints(workdir) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), {"at": step}, is_best=step in best)
