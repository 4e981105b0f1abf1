"""Step time of SGD and SAM on larger networks, memory, the largest batch.

Parts: a network each. Images are noise, of the size that the network is made for;
bfloat16, all in one program on one batch that lies on the device.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax

from experiments.benchmarks import programs
from experiments.gpu.contest import Contender, Contest
from experiments.gpu.tasks import BFLOAT16, Context, Row, Task
from sam_jax.train import build

METHODS = (programs.SGD, "sam")
STEPS, ROUNDS, MULTIPLE = 5, 10, 32
# Side of the images, classes, examples in a batch.
SIZES = {
    "wrn28_10": (32, 10, 128),
    "resnet50_imagenet": (224, 1000, 128),
    "vit_s16": (224, 1000, 256),
}
TINY: dict[str, dict[str, Any]] = {
    "wrn28_10": {"name": "wrn10_1"},
    "resnet50_imagenet": {"name": "resnet_digits"},
    "vit_s16": {"name": "vit_ti16", "options": {"depth": 2}},
}


def tasks(context: Context) -> Iterator[Task]:
    """Steps in turns, then how far a batch can grow."""
    batch = 4 if context.tiny else SIZES[context.part][2]
    makers = {
        method: functools.partial(contender, context, method, batch)
        for method in METHODS
    }
    yield from Contest(
        context, [makers], 2 if context.tiny else ROUNDS, preparation=50
    ).tasks()
    for method in METHODS:
        grown = functools.partial(largest, context, method, batch)
        yield Task(f"largest/{method}", 60, grown)


def run(context: Context, method: str, batch: int) -> build.Run:
    """A run of a network, with just one batch of images."""
    side, classes, _ = SIZES[context.part]
    model: dict[str, Any] = {"name": context.part, **BFLOAT16}
    if context.tiny:
        side, classes = 16, 10
        model |= {**TINY[context.part], "width": 4}
    chosen = programs.settings(
        method,
        batch_size=batch,
        model=model,
        data={"crop": min(4, side // 8), "flip": True},
    )
    return programs.run(chosen, programs.noise(batch, side, classes))


def contender(context: Context, method: str, batch: int) -> Contender:
    """A step, again and again on one batch."""
    steps = 1 if context.tiny else STEPS
    program = programs.Program(run(context, method, batch), steps)
    return Contender(program, steps, batch, program.row)


def largest(context: Context, method: str, batch: int) -> Row:
    """The largest batch, in multiples of 32, whose program fits on the device.

    The bytes of two programs give a line; the batch that it promises is compiled and
    run once, and a smaller one where that fails.

    Returns:
        The batch and the bytes, as compiled.
    """
    stats = jax.devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit", 2**26)
    small, large = (
        programs.Program(run(context, method, size), 1).row["total_bytes"]
        for size in (batch, 2 * batch)
    )
    slope = (large - small) / batch
    promised = batch + (limit - small) / slope
    multiple = 1 if context.tiny else MULTIPLE
    failures = []
    for share in (0.98, 0.92, 0.85):
        size = int(share * promised) // multiple * multiple
        size = min(size, 8) if context.tiny else size
        try:
            program = programs.Program(run(context, method, size), 1)
            program()
        except jax.errors.JaxRuntimeError as error:
            failures.append([size, str(error)[:200]])
            continue
        return {
            "batch": size,
            "bytes_limit": limit,
            "bytes_per_example": slope,
            "too_large": failures,
            **program.row,
        }
    return {"batch": None, "bytes_limit": limit, "too_large": failures}
