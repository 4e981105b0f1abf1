"""What the sections share: ways to train, runs on digits or on noise, programs."""

import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sam_jax import data
from sam_jax.train import build as build_lib
from sam_jax.train import config as config_lib
from sam_jax.train import groups, settings, sharding

CARD = pathlib.Path(__file__).parents[3] / "configs" / "digits_sam.py"
BASELINE, DEVICE_GROUPS = "SGD", "SAM, m of a device"
Results = Any  # plain JSON
Tables = dict[str, str]  # title -> Markdown


class Way(NamedTuple):
    """How to train.

    Attributes:
        method: its name.
        group: ``(batch, devices) -> m``, the examples that share a perturbation.
    """

    method: str
    group: Callable[[int, int], int]


WAYS = {
    BASELINE: Way(config_lib.BASELINE, lambda batch, devices: batch),
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


def make_config(model: str, method: str, **changes: Any) -> settings.Settings:
    """Settings of a run on the digits, on one device.

    Args:
        model: ``name`` or ``name:width``.
        method: its name.
        **changes: other values by key.

    Returns:
        The settings.
    """
    config = config_lib.default_config()
    config.method = config_lib.load_method(method, CARD)
    config.data.name = "digits"
    config.mesh.data = 1
    config.model.name, _, width = model.partition(":")
    config.model.width = int(width) if width else None
    config.update_from_flattened_dict(changes)
    return settings.read(config)


def random_images(examples: int, side: int = 32) -> data.Dataset:
    """Noise in ten classes, of the shape of CIFAR-10."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (examples, side, side, 3), np.uint8)
    labels = generator.integers(0, 10, examples).astype(np.int32)
    source = data.ArraySource(data.Split(images, labels, labels))
    half = (0.5, 0.5, 0.5)
    classes = tuple("0123456789")
    return data.Dataset(
        *("noise", classes, (side, side, 3), half, half), source, None, source
    )


def on_one_device(
    config: settings.Settings,
    dataset: data.Dataset,
    of_groups: groups.Groups | None = None,
) -> build_lib.Run:
    """The parts of a run with other data and groups than `sam_jax.train.build` gives.

    Args:
        config: of the run; its data are not used.
        dataset: to train on, without augmentation.
        of_groups: who shares a perturbation, if not as configured.

    Returns:
        The parts.

    Raises:
        UserError: if a setting will not do.
    """
    normalize = data.augment.make_normalize(mean=dataset.mean, std=dataset.std)
    made = build_lib.steps(
        config,
        build_lib.DataSpec.of(dataset, config.batch_size),
        augment=lambda key, images: normalize(images),
        normalize=normalize,
        groups=of_groups,
    )
    return build_lib.Run(**vars(made), dataset=dataset)


class Program:
    """A compiled training step and what it works on; a call does the next steps.

    Args:
        run: the parts of the run.
        steps: in a call.

    Attributes:
        compiled: the step.
        compile_seconds: from the Python function to the program.
        state: after the steps so far.
    """

    def __init__(self, run: build_lib.Run, steps: int = 1) -> None:
        batch_size = run.config.batch_size
        batches = run.dataset.train.batches(batch_size=batch_size, seed=0)
        self._batch = sharding.put_batch(next(batches), run.mesh)
        self._steps = steps
        self.state = zeros(run.abstract_state())  # the time of a step is the same
        start = time.perf_counter()
        train_step: Any = run.train_step
        self.compiled = train_step.lower(self.state, self._batch).compile()
        self.compile_seconds = time.perf_counter() - start

    def __call__(self) -> None:
        """Does the steps and waits for them."""
        for _ in range(self._steps):
            self.state, _ = self.compiled(self.state, self._batch)
        jax.block_until_ready(self.state)


def zeros(tree: Any) -> Any:
    """Arrays of these shapes, dtypes and shardings; faster made than a first state."""
    places = jax.tree.map(lambda x: x.sharding, tree)

    def make() -> Any:
        return jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), tree)

    return jax.jit(make, out_shardings=places)()


def median(values: Sequence[float]) -> float:
    """The median."""
    return float(np.median(values))


def mega(size: float) -> str:
    """Bytes in megabytes."""
    return f"{size / 1e6:.3f}"
