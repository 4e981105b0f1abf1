"""Devices: how many are taken, and what lies where."""

import jax
import numpy as np
import pytest

from sam_jax import errors
from sam_jax.train import sharding


@pytest.mark.parametrize(("asked", "taken"), [(1, 1), (3, 3), (8, 8), (-1, 8)])
def test_takes_so_many_devices(asked, taken):
    assert sharding.make_mesh(asked).size == taken


@pytest.mark.parametrize("asked", [0, 9, -2])
def test_refuses_devices_that_are_not_there(asked):
    with pytest.raises(errors.UserError, match=rf"\[1, 8\].* got {asked}$"):
        sharding.make_mesh(asked)


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
