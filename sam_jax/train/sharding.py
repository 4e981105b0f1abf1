"""Devices of a run, and how arrays are laid out on them.

The mesh is a grid of ``data`` times ``fsdp`` devices, both set by the configuration.
A batch is split over all of them, first axis first. Every device holds
all parameters and state; where ``fsdp`` is above 1, each array is cut along its largest
axis over the devices of a row ("fully sharded data parallel").

Devices that share one perturbation (see `sam_jax.train.groups`) are neighbours in that
order. So that a group may be part of a row or several rows, each of the two axes is
written as two: groups, and members of a group.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils

from sam_jax import errors

DATA_AXES = ("data", "data_members")
FSDP_AXES = ("fsdp", "fsdp_members")
AXES = DATA_AXES + FSDP_AXES
GROUP_AXES = ("data", "fsdp")  # devices that differ here are in different groups

# Elements; smaller arrays are replicated: gathering them costs more than it saves.
SMALLEST_SHARDED = 4096


def devices() -> list[Any]:
    """The devices that JAX finds."""
    try:
        return jax.devices()
    except (AssertionError, RuntimeError) as error:
        asked = jax.config.jax_platforms  # pyright: ignore
        if not asked:  # JAX has tried all that it knows
            raise
        why = str(error).partition(" (set ")[0] or "it has no plugin for them"
        raise errors.UserError(
            f"JAX_PLATFORMS={asked} asks for devices that JAX does not find "
            f"({errors.one_line(why)}): "
            f'install JAX for them, such as pip install "jax[cuda13]", or take what is '
            "there with JAX_PLATFORMS="
        ) from error


def grid(data: int, fsdp: int, count: int | None = None) -> tuple[int, int]:
    """Rows and columns of the grid of devices.

    Args:
        data: rows; -1 for as many as there are devices.
        fsdp: devices in a row; parameters are split over them.
        count: of the devices; None for those that JAX finds.

    Raises:
        UserError: as `devices`; if there are fewer, ``fsdp`` does not divide
            them, some would be left out although other processes hold them, or these
            processes are not connected.
    """
    count = count or len(devices())
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise errors.UserError(
            f"there are {jax.process_count()} processes that do not know of each "
            "other, as on a slice of several TPU hosts: start each with --distributed"
        )
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    if not 1 <= fsdp <= count or (data == -1 and fsdp not in divisors):
        raise errors.UserError(
            f"config.mesh.fsdp={fsdp} does not divide the {count} devices: take one of "
            f"{', '.join(map(str, divisors))}"
        )
    most = count // fsdp
    rows = most if data == -1 else data
    if not 1 <= rows <= most:
        what = "devices" if fsdp == 1 else f"rows of {fsdp} devices"
        raise errors.UserError(
            f"config.mesh.data must be -1 or in [1, {most}], the number of {what}, got "
            f"{data}"
        )
    if jax.process_count() > 1 and rows * fsdp != count:
        raise errors.UserError(
            f"config.mesh.data={data} times config.mesh.fsdp={fsdp} leaves "
            f"{count - rows * fsdp} of {count} devices out, and a process could have "
            "none: take --config.mesh.data=-1"
        )
    return rows, fsdp


def make_mesh(
    data: int,
    fsdp: int = 1,
    members: int | None = None,
    given: Sequence[Any] | None = None,
) -> jax.sharding.Mesh:
    """The grid of devices over which batches and parameters are split.

    Args:
        data: rows of the grid; -1 for as many as there are devices.
        fsdp: devices in a row; parameters are split over them.
        members: neighbouring devices that share a perturbation; None for all.
        given: the devices, which need not exist; None for those that JAX finds.

    Returns:
        A mesh of ``data * fsdp`` devices with the axes `AXES`.

    Raises:
        UserError: see `grid`; or if a group fits neither into a row nor into whole
            rows.
    """
    given = jax.devices() if given is None else given
    rows, fsdp = grid(data, fsdp, len(given))
    members = rows * fsdp if members is None else members
    if members % fsdp and fsdp % members:
        raise errors.UserError(
            f"a group of {members} devices fits neither into a row of {fsdp} "
            "(config.mesh.fsdp) nor into whole rows: take another "
            "config.method_group_size, or --config.mesh.fsdp="
            f"{math.gcd(members, fsdp)}"
        )
    in_rows, in_row = max(1, members // fsdp), min(members, fsdp)
    shape = (rows // in_rows, in_rows, fsdp // in_row, in_row)
    return jax.sharding.Mesh(
        arrange(given[: rows * fsdp], shape),
        AXES,
        axis_types=(jax.sharding.AxisType.Auto,) * 4,
    )


def arrange(devices: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Lays devices out on a grid, neighbours where the network is fast.

    ``jax.make_mesh`` refuses devices on several nodes or slices, and grids that divide
    an axis of a TPU's torus.

    Returns:
        The devices, of that shape. Those that fill a box of one TPU slice follow its
        torus; others stand slice by slice (of GPUs, node by node), process by process.
    """
    slices = {getattr(device, "slice_index", 0) for device in devices}
    if devices[0].platform == "tpu" and len(slices) == 1 and _fill_a_box(devices):
        return mesh_utils.create_device_mesh(
            shape, devices, allow_split_physical_axes=True
        )
    ordered = sorted(
        devices, key=lambda d: (getattr(d, "slice_index", 0), d.process_index, d.id)
    )
    return np.array(ordered).reshape(shape)


def _fill_a_box(devices: Sequence[Any]) -> bool:
    places = np.array([(*d.coords, d.core_on_chip) for d in devices])
    return np.prod(np.ptp(places, axis=0) + 1) == len(devices)


def check_batch_size(batch_size: int, devices: int) -> None:
    """Refuses a batch that cannot be split evenly over the devices."""
    if batch_size % devices:
        below = batch_size // devices * devices
        nearest = f"{below} or {below + devices}" if below else f"{devices}"
        # Of several processes none may be left without a device.
        fewer = (
            ", or fewer devices (--config.mesh.data=1 --config.mesh.fsdp=1)"
            if jax.process_count() == 1
            else ""
        )
        raise errors.UserError(
            f"config.batch_size={batch_size} does not divide by the {devices} "
            f"devices: take {nearest}{fewer}"
        )


def describe(mesh: jax.sharding.Mesh) -> str:
    """The devices in words, for the head of a run's log."""
    words = f"{mesh.size} x {mesh.devices.flat[0].device_kind}"
    row = math.prod(mesh.shape[axis] for axis in FSDP_AXES)
    if row > 1:
        words += f", the state cut over rows of {row}"
    processes = jax.process_count()
    return words if processes == 1 else f"{words}, in {processes} processes"


# ── Layout of arrays ─────────────────────────────────────────────────────────────────


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """The whole array on every device."""
    return jax.NamedSharding(mesh, jax.P())


def split(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """The first axis cut over all devices, as batches are."""
    return jax.NamedSharding(mesh, jax.P(AXES))


def of_state(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """The layout of the arrays of a state: cut over ``fsdp``, or whole.

    Returns:
        The same tree of shardings. An array of at least `SMALLEST_SHARDED` elements is
        cut along its largest axis that divides by the devices of a row, the last one of
        several; others are whole on every device.
    """
    parts = math.prod(mesh.shape[axis] for axis in FSDP_AXES)

    def place(leaf: Any) -> jax.sharding.NamedSharding:
        shape = leaf.shape
        axes = [i for i, n in enumerate(shape) if n % parts == 0]
        if parts == 1 or math.prod(shape) < SMALLEST_SHARDED or not axes:
            return replicated(mesh)
        largest = max(axes, key=lambda i: (shape[i], i))
        spec = [FSDP_AXES if i == largest else None for i in range(len(shape))]
        return jax.NamedSharding(mesh, jax.P(*spec))

    return jax.tree.map(place, tree)


# ── Batches ──────────────────────────────────────────────────────────────────────────


def local_rows(batch_size: int, mesh: jax.sharding.Mesh) -> np.ndarray:
    """The rows of a batch on the devices of this process, ascending.

    Args:
        batch_size: examples in the whole batch, a multiple of the devices.
        mesh: of the run.

    Returns:
        Int [rows]; all of them if there is one process.
    """
    places = split(mesh).addressable_devices_indices_map((batch_size,))
    return np.unique([np.arange(batch_size)[index] for index in places.values()])


def put_batch(
    batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh
) -> dict[str, Any]:
    """Moves a batch to the devices, split along its first axis.

    Args:
        batch: the rows on the devices of this process, see `local_rows`.
        mesh: of the run.

    Returns:
        Arrays of the whole batch; each process holds its own devices' part.
    """
    sharding = split(mesh)

    def put(local: np.ndarray) -> jax.Array:
        if sharding.is_fully_addressable:
            return jax.device_put(local, sharding)
        batch_size = len(local) * mesh.size // len(mesh.local_devices)
        rows = local_rows(batch_size, mesh)

        def part(index: Any) -> np.ndarray:
            return local[np.searchsorted(rows, np.arange(batch_size)[index[0]])]

        shape = (batch_size, *local.shape[1:])
        return jax.make_array_from_callback(shape, sharding, part)

    return {name: put(local) for name, local in batch.items()}
