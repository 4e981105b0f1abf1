"""Runs of the trainer with images at hand, and its step as a compiled program."""

import time
from typing import Any

import jax
import numpy as np

from sam_jax import data, methods
from sam_jax.train import build, dispatch, sharding
from sam_jax.train import settings as settings_lib

SGD = "sgd"
# Those of configs/methods/, which say where they are from.
COEFFICIENTS = {
    "sam": {"rho": 0.05},
    "asam": {"rho": 0.5, "eta": 0.01},
    "looksam": {"rho": 0.05, "k": 5, "alpha": 0.7},
}


def settings(method: str, **values: Any) -> settings_lib.Settings:
    """The settings of ``configs/cifar10_sam.py`` in bfloat16, on one device.

    Args:
        method: its name, or ``sgd``.
        **values: others, nested as in a configuration.

    Returns:
        The settings.

    Example:
        >>> settings("sam", batch_size=64).method.name
        'sam'
    """
    name = "none" if method == SGD else method
    base = {
        "data": {"crop": 4, "flip": True, "validation": 0},
        "model": {"name": "resnet18", "dtype": "bfloat16"},
        "method": {"name": name, **COEFFICIENTS.get(method, {})},
        "mesh": {"data": 1},
    }
    return settings_lib.read({**base, **values})


def run(chosen: settings_lib.Settings, dataset: data.Dataset) -> build.Run:
    """The parts of a run on images that are in memory.

    Args:
        chosen: its settings; those of the data are augmentation only.
        dataset: the images.

    Returns:
        The parts.
    """
    augment = data.augment.make_augment(
        crop=chosen.data.crop,
        flip=chosen.data.flip,
        cutout=chosen.data.cutout,
        mean=dataset.mean,
        std=dataset.std,
    )
    made = build.steps(
        chosen,
        build.DataSpec.of(dataset, chosen.batch_size),
        augment=augment,
        normalize=data.augment.make_normalize(mean=dataset.mean, std=dataset.std),
    )
    return build.Run(**vars(made), dataset=dataset)


class Feed:
    """Trains as the trainer does, without logs; a call does the next steps.

    Args:
        parts: of the run.
        steps: in a call.

    Attributes:
        state: after the steps so far.
    """

    def __init__(self, parts: build.Run, steps: int) -> None:
        self._advance = dispatch.from_step(parts, 0)
        self.state = parts.init(parts.seed)
        self._steps = steps

    def __call__(self) -> None:
        """Does the steps and waits for them."""
        done = 0
        while done < self._steps:
            self.state, _, several = self._advance(self.state, self._steps - done)
            done += several
        jax.block_until_ready(self.state)


class Program:
    """A compiled step on one batch, again and again; a call does so many steps.

    Args:
        parts: of the run.
        steps: in a call.

    Attributes:
        row: what is known without running it: seconds of compilation, operations as
            written, bytes as compiled.
    """

    def __init__(self, parts: build.Run, steps: int) -> None:
        start = time.perf_counter()
        train_step: Any = parts.train_step
        lowered = train_step.lower(parts.abstract_state(), parts.abstract_batch())
        self._compiled = lowered.compile()
        self.row = {
            "compile_seconds": time.perf_counter() - start,
            "flops": flops(lowered),
            **memory(self._compiled),
        }
        self._parts, self._steps = parts, steps
        self._state: Any = None

    def __call__(self) -> None:
        """Does the steps and waits for them."""
        if self._state is None:
            size = self._parts.config.batch_size
            batch = next(self._parts.dataset.train.batches(batch_size=size, seed=0))
            self._batch = sharding.put_batch(batch, self._parts.mesh)
            self._state = self._parts.init(self._parts.seed)
        for _ in range(self._steps):
            self._state, _ = self._compiled(self._state, self._batch)
        jax.block_until_ready(self._state)


def flops(lowered: Any) -> float:
    """Operations of a program as written: a GPU's libraries are not counted."""
    return float(lowered.cost_analysis()["flops"])


def memory(compiled: Any) -> dict[str, int]:
    """Bytes that a program needs, as compiled."""
    found = compiled.memory_analysis()
    used = {
        "argument_bytes": found.argument_size_in_bytes,
        "output_bytes": found.output_size_in_bytes,
        "temporary_bytes": found.temp_size_in_bytes,
        "shared_bytes": found.alias_size_in_bytes,
    }
    total = sum(used.values()) - 2 * used["shared_bytes"]
    return {**used, "total_bytes": total}


def median(values: Any) -> float:
    """The median as a plain number."""
    return float(np.median(values))


def names() -> list[str]:
    """The base optimizer and all methods, those most in use first."""
    first = [SGD, "sam", "asam", "looksam", "vasso", "gsam"]
    return [*first, *(name for name in methods.names() if name not in first)]
