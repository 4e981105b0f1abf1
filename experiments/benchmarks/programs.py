"""The trainer's step on images in memory: compiled and counted, or fed as a run is."""

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sam_jax import data, errors, methods
from sam_jax.train import build, config, dispatch, sharding
from sam_jax.train import settings as settings_lib

SGD = "sgd"
HALF = (0.5, 0.5, 0.5)
AUGMENTED = {"crop": 4, "flip": True}  # settings of the data


def network(text: str, **more: Any) -> dict[str, Any]:
    """Settings of a network that is written ``name`` or ``name:width``.

    Example:
        >>> network("resnet18:16", dtype="bfloat16")
        {'name': 'resnet18', 'width': 16, 'dtype': 'bfloat16'}
    """
    name, _, width = text.partition(":")
    if width and not width.isdecimal():
        raise errors.UserError(f"a model is written name or name:width, got {text!r}")
    return {"name": name, "width": int(width) if width else None, **more}


def settings(
    method: str, model: str = "resnet18", /, **values: Any
) -> settings_lib.Settings:
    """Settings of a run on one device: a method as its fragment sets it, a network.

    Args:
        method: its name, ``sgd``, or a cadence before it, such as ``every_k/sam``.
        model: ``name`` or ``name:width``.
        **values: others, nested as in a configuration.

    Returns:
        The settings, of a constant learning rate if no schedule is given.

    Example:
        >>> settings("every_k/sam", "mlp:8", batch_size=64).cadence.k
        5
    """
    cadence, _, name = method.rpartition("/")
    base = {
        "method": config.of_fragment(name, config.CARDS / "card.py"),
        "cadence": {"name": cadence or "always"},
        "schedule": {"name": "constant"},
        "model": network(model),
        "mesh": {"data": 1},
    }
    merged = {
        key: {**base.get(key, {}), **value} if isinstance(value, Mapping) else value
        for key, value in values.items()
    }
    return settings_lib.read(base | merged)


def names() -> list[str]:
    """The base optimizer and all methods, those most in use first."""
    first = [SGD, "sam", "asam", "looksam", "vasso", "gsam"]
    return [*first, *(name for name in methods.names() if name not in first)]


def noise(
    examples: int, side: int = 32, classes: int = 10, channels: int = 3
) -> data.Dataset:
    """Random bytes in classes, the same to train on as to test.

    Example:
        >>> noise(20, side=4).image_shape
        (4, 4, 3)
    """
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (examples, side, side, channels), np.uint8)
    labels = generator.integers(0, classes, examples).astype(np.int32)
    half, split = HALF[:channels], (images, labels)
    return dataset("noise", split, split, half, half, classes)


def dataset(
    name: str, train: Any, test: Any, mean: Any, std: Any, classes: int = 10
) -> data.Dataset:
    """Images and labels as a data set without a validation set."""
    sources = [
        data.ArraySource(data.Split(images, labels, labels))
        for images, labels in (train, test)
    ]
    named = tuple(map(str, range(classes)))
    return data.Dataset(
        *(name, named, train[0].shape[1:], mean, std, sources[0], None, sources[1])
    )


def run(chosen: settings_lib.Settings, images: data.Dataset, **own: Any) -> build.Run:
    """The parts of a run on images that are in memory.

    Args:
        chosen: its settings; those of the data are augmentation only.
        images: the data.
        **own: others than those of the settings, as `build.steps` takes them, such as
            ``optimizer`` or ``groups``.
    """
    found = build.build(chosen, dataset=images)
    if own:
        augment = data.augment.make_augment(
            crop=chosen.data.crop,
            flip=chosen.data.flip,
            mean=images.mean,
            std=images.std,
        )
        made = build.steps(chosen, found.spec, augment=augment, **own)
        found = dataclasses.replace(found, **vars(made))
    return found


class Program:
    """A compiled step on one batch, again and again; a call does so many steps.

    Attributes:
        compiled: the step.
        row: what is known without running it: seconds of compilation, operations as
            written, bytes as compiled.
        state: after the steps so far; None before the first call makes it.
    """

    def __init__(self, parts: build.Run, steps: int = 1) -> None:
        start = time.perf_counter()
        written = lowered(parts)
        self.compiled = written.compile()
        self.row = {
            "compile_seconds": time.perf_counter() - start,
            "flops": flops(written),
            **memory(self.compiled),
        }
        self._parts, self._steps = parts, steps
        self.state: Any = None
        self._batch: Any = None

    def __call__(self) -> None:
        """Does the steps and waits for them."""
        if self._batch is None:
            size = self._parts.config.batch_size
            batch = next(self._parts.dataset.train.batches(batch_size=size, seed=0))
            self._batch = sharding.put_batch(batch, self._parts.mesh)
        if self.state is None:
            self.state = self._parts.init(self._parts.seed)
        for _ in range(self._steps):
            self.state, _ = self.compiled(self.state, self._batch)
        jax.block_until_ready(self.state)


class Feed:
    """Trains as the trainer does, without logs; a call does the next steps.

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


def lowered(parts: build.Run) -> Any:
    """The step of a run, not yet compiled."""
    train_step: Any = parts.train_step
    return train_step.lower(parts.abstract_state(), parts.abstract_batch())


def flops(lowered: Any) -> float:
    """Operations of a program as written: a GPU's libraries are not counted.

    The plugin of a GPU counts none; the CPU's client counts those of any program.
    """
    found = lowered.cost_analysis()
    if found is None:
        try:
            from jax._src.lib import _jax  # pyright: ignore[reportPrivateImportUsage]

            written = lowered.compiler_ir("hlo").as_hlo_module()
            client = jax.devices("cpu")[0].client
            found = _jax.hlo_module_cost_analysis(client, written)
        # No public name, so it may move; JAX_PLATFORMS may leave the CPU out.
        except (ImportError, AttributeError, RuntimeError):
            return math.nan
    return float(found["flops"])


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
