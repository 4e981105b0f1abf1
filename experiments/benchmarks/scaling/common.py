"""What the sections share: ways to train, numbers of devices."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from experiments.benchmarks import programs
from sam_jax import data

BASELINE, DEVICE_GROUPS = "SGD", "SAM, m of a device"


class Way(NamedTuple):
    """How to train.

    Attributes:
        method: its name.
        group: ``(batch, devices) -> m``, the examples that share a perturbation.
    """

    method: str
    group: Callable[[int, int], int]


WAYS = {
    BASELINE: Way(programs.SGD, lambda batch, devices: batch),
    "SAM, m = batch": Way("sam", lambda batch, devices: batch),
    DEVICE_GROUPS: Way("sam", lambda batch, devices: batch // devices),
    "SAM, m of half a device": Way("sam", lambda batch, devices: batch // devices // 2),
}
COUNT_FLAG = "--xla_force_host_platform_device_count"


def xla_flags(devices: int) -> str:
    """The user's XLA flags with so many fake devices."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    others = [flag for flag in flags if not flag.startswith(COUNT_FLAG)]
    return " ".join([*others, f"{COUNT_FLAG}={devices}"])


def device_counts() -> list[int]:
    """Numbers of devices to compare."""
    return [n for n in (1, 2, 4, 8) if n <= jax.device_count()]


def digits(examples: int) -> data.Dataset:
    """Noise of the shape of the digits."""
    return programs.noise(examples, side=8, channels=1)


def mega(size: Any) -> str:
    """Bytes in megabytes."""
    return f"{size / 1e6:.3f}"
