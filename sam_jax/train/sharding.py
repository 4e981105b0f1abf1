"""Devices of a run and how arrays lie on them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sam_jax import errors

DATA_AXIS = "data"


def make_mesh(num_devices: int) -> jax.sharding.Mesh:
    """A line of devices over which batches are split.

    Args:
        num_devices: how many of this machine's devices; -1 for all.

    Returns:
        A mesh with the axis ``data``.

    Raises:
        UserError: if there are not so many.
    """
    available = jax.devices()
    count = len(available) if num_devices == -1 else num_devices
    if not 1 <= count <= len(available):
        raise errors.UserError(
            f"config.mesh.data must be -1 or in [1, {len(available)}], the number of "
            f"devices, got {num_devices}"
        )
    return jax.make_mesh(
        (count,),
        (DATA_AXIS,),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=available[:count],
    )


def check_batch_size(batch_size: int, mesh: jax.sharding.Mesh) -> None:
    """Refuses a batch that cannot be split evenly.

    Raises:
        UserError: with both numbers and the nearest batch sizes that work.
    """
    if batch_size % mesh.size:
        below = batch_size // mesh.size * mesh.size
        nearest = f"{below} or {below + mesh.size}" if below else f"{mesh.size}"
        raise errors.UserError(
            f"config.batch_size={batch_size} does not divide by the {mesh.size} "
            f"devices: take {nearest}, or --config.mesh.data=1"
        )


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """The whole array on every device."""
    return jax.NamedSharding(mesh, jax.P())


def put_batch(
    batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh
) -> dict[str, Any]:
    """Moves a batch to the devices, split along its first axis."""
    split = jax.NamedSharding(mesh, jax.P(DATA_AXIS))
    return {name: jax.device_put(x, split) for name, x in batch.items()}
