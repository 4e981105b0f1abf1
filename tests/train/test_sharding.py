"""Devices: how many are taken, and what lies where."""

import dataclasses

import jax
import numpy as np
import pytest

from sam_jax import errors
from sam_jax.train import loaded, sharding


@pytest.mark.parametrize(("asked", "taken"), [(1, 1), (3, 3), (8, 8), (-1, 8)])
def test_takes_so_many_devices(asked, taken):
    assert sharding.make_mesh(asked).size == taken


@pytest.mark.parametrize("asked", [0, 9, -2])
def test_refuses_devices_that_are_not_there(asked):
    with pytest.raises(errors.UserError, match=rf"\[1, 8\].* got {asked}$"):
        sharding.make_mesh(asked)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (AssertionError(), "it has no plugin for them"),
        (
            RuntimeError("no backend (set JAX_PLATFORMS='')"),
            r"not find \(no backend\): ",
        ),
    ],
)
def test_devices_that_are_asked_for_and_not_there(monkeypatch, error, why):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    for use in (
        lambda: sharding.grid(-1, 1),
        lambda: loaded.load_run("no such folder"),
    ):
        with pytest.raises(errors.UserError, match=f"JAX_PLATFORMS=cpu.*{why}"):
            use()


def test_batch_is_split_in_order_and_state_is_whole():
    mesh = sharding.make_mesh(4)
    images = np.arange(8 * 2).reshape(8, 2)
    batch = sharding.put_batch({"image": images}, mesh)
    shards = sorted(batch["image"].addressable_shards, key=lambda s: s.device.id)
    for number, shard in enumerate(shards):
        np.testing.assert_array_equal(shard.data, images[2 * number : 2 * number + 2])
    whole = jax.device_put(images, sharding.replicated(mesh))
    assert [s.data.shape for s in whole.addressable_shards] == [(8, 2)] * 4


@pytest.mark.parametrize(
    ("batch_size", "advice"), [(100, "take 96 or 104"), (5, "take 8,")]
)
def test_refuses_a_batch_that_does_not_divide(batch_size, advice):
    with pytest.raises(errors.UserError, match=advice) as raised:
        sharding.check_batch_size(batch_size, 8)
    assert f"batch_size={batch_size}" in str(raised.value)
    assert "the 8 devices" in str(raised.value)


def test_accepts_a_batch_that_divides():
    assert sharding.check_batch_size(96, 8) is None


def test_several_processes_are_not_advised_to_leave_devices_out(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(errors.UserError, match=r"take 8 or 16$"):
        sharding.check_batch_size(12, 8)


# ── The grid, and the state cut over its rows ────────────────────────────────────────


@pytest.mark.parametrize(
    ("data", "fsdp", "members", "shape"),
    [
        (-1, 1, None, (1, 8, 1, 1)),
        (-1, 4, None, (1, 2, 1, 4)),
        (-1, 1, 2, (4, 2, 1, 1)),
        (2, 4, 1, (2, 1, 4, 1)),
        (2, 4, 2, (2, 1, 2, 2)),
        (4, 2, 4, (2, 2, 1, 2)),
        (3, 2, None, (1, 3, 1, 2)),
    ],
)
def test_groups_are_neighbours_on_the_grid(data, fsdp, members, shape):
    mesh = sharding.make_mesh(data, fsdp, members)
    assert tuple(mesh.shape.values()) == shape
    assert [d.id for d in mesh.devices.flat] == list(range(mesh.size))


@pytest.mark.parametrize("fsdp", [0, 3, 16])
def test_refuses_rows_that_do_not_divide_the_devices(fsdp):
    message = rf"mesh.fsdp={fsdp} .* the 8 devices: take one of 1, 2, 4, 8$"
    with pytest.raises(errors.UserError, match=message):
        sharding.make_mesh(-1, fsdp)


def test_refuses_more_rows_than_there_are():
    with pytest.raises(
        errors.UserError, match=r"\[1, 2\], .* rows of 4 devices, got 3"
    ):
        sharding.make_mesh(3, 4)


def test_refuses_groups_that_fit_no_row():
    with pytest.raises(errors.UserError, match=r"group of 2 .* row of 3 .*fsdp=1$"):
        sharding.make_mesh(2, 3, members=2)


def test_refuses_processes_that_are_not_connected(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(errors.UserError, match=r"4 processes .* --distributed"):
        sharding.make_mesh(-1)


def test_large_arrays_are_cut_along_their_largest_axis_that_divides():
    mesh = sharding.make_mesh(2, 4)
    shapes = {
        "kernel": (3, 3, 64, 128),
        "square": (64, 64),
        "odd": (128, 33),
        "never": (65, 67),
        "small": (4, 64),
        "scalar": (),
    }
    arrays = {k: jax.ShapeDtypeStruct(s, np.float32) for k, s in shapes.items()}
    places = sharding.of_state(arrays, mesh)
    local = {k: place.shard_shape(shapes[k]) for k, place in places.items()}
    assert local == {
        "kernel": (3, 3, 64, 32),
        "square": (64, 16),
        "odd": (32, 33),
        "never": (65, 67),
        "small": (4, 64),
        "scalar": (),
    }
    assert all(
        place.is_fully_replicated
        for place in sharding.of_state(arrays, sharding.make_mesh(8)).values()
    )


@dataclasses.dataclass(frozen=True)
class Device:
    """What a mesh asks of a device; there is no such hardware here."""

    id: int
    process_index: int
    slice_index: int
    platform: str
    device_kind: str
    coords: tuple[int, ...] | None = None
    core_on_chip: int = 0


GRIDS = [(1, 16, 1, 1), (16, 1, 1, 1), (8, 2, 1, 1), (2, 8, 1, 1), (1, 2, 1, 8)]


def assert_each_once(found, devices, shape):
    assert found.shape == shape
    assert {device.id for device in found.flat} == {device.id for device in devices}


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("kind", ["TPU v5 lite", "TPU v6 lite"])
def test_any_grid_of_a_tpu_slice(kind, shape):
    devices = [
        Device(4 * y + x, 2 * (y // 2) + x // 2, 0, "tpu", kind, (x, y, 0))
        for y in range(4)
        for x in range(4)
    ]
    assert_each_once(sharding.arrange(devices, shape), devices, shape)


@pytest.mark.parametrize("count", range(1, 9))
def test_any_part_of_a_tpu_slice(count):
    """Also three of eight chips, which do not form a box."""
    devices = [
        Device(2 * y + x, 0, 0, "tpu", "TPU v5 lite", (x, y, 0))
        for y in range(4)
        for x in range(2)
    ][:count]
    shape = (1, count, 1, 1)
    assert_each_once(sharding.arrange(devices, shape), devices, shape)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
@pytest.mark.parametrize("shape", GRIDS)
def test_several_nodes_and_slices_stand_one_after_another(platform, shape):
    devices = [
        Device(8 * node + i, node, node, platform, "kind", (i, 0, 0))
        for node in range(2)
        for i in range(8)
    ]
    found = sharding.arrange(devices[::-1], shape)
    assert_each_once(found, devices, shape)
    assert [device.slice_index for device in found.flat] == [0] * 8 + [1] * 8
