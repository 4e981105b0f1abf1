"""What whole runs left behind, and how to compare it."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import optax

from sam_jax.train import (
    build,
    checkpoint,
    data_record,
    loaded,
    loop,
    losses,
    metrics,
    network,
)

ROOT = pathlib.Path(__file__).parents[2]
# Of a process with one device, which compiles as quickly as this one, and rounds alike.
ONE_DEVICE = {
    "XLA_FLAGS": " ".join(
        flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag
    ),
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}
LEARNING_RATE = 0.1  # of the chains that the fixture `chain` makes
STEPS_PER_EPOCH = 4
DIGITS = str(ROOT / "configs" / "digits_sam.py")


def reference(name):
    """What a setting has for a part of `my_parts`, seen from the root."""
    return f"tests/train/my_parts.py:{name}"


def python(program):
    """What a Python program leaves, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )


def chain(optimizer):
    """Method and base of an optimizer in one transformation, as for a batch."""
    return optax.chain(optimizer.method, optimizer.base)


class Finished:
    """A run that has ended, with what it left."""

    def __init__(self, config, folder, command=None, **brought):
        self.config, self.folder = config, folder
        self.results = loop.train_and_evaluate(config, folder, command, **brought)

    @property
    def rows(self):
        return metrics.read_history(self.folder / metrics.METRICS_FILE)


def disturbed(run, number, action):
    """A run that does something before its update of that number."""
    calls = []

    def train_step(state, batch):
        calls.append(batch)
        if len(calls) == number:
            action()
        return run.train_step(state, batch)

    return dataclasses.replace(run, train_step=train_step)


def checkpoints(folder):
    """The steps that are saved."""
    return {int(path.name) for path in (folder / "checkpoints").glob("[0-9]*")}


def saved(config, folder):
    """The last checkpoint: leaves of the state by path, and the progress."""
    abstract = build.build(config).abstract_state()
    with checkpoint.Checkpoints(folder) as checkpoints:
        found = checkpoints.restore(abstract)
    assert found is not None
    state, progress = found
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}, progress


def comparable(rows):
    """Rows without what a clock measures."""
    clocks = ("wall_time", "examples_per_second")
    return [{k: v for k, v in row.items() if k not in clocks} for row in rows]


def assert_same_state(config, folder, reference):
    """Checks that two runs have saved the same bits; what else each has noted."""
    (state, progress), (expected, goal) = (
        saved(config, each) for each in (folder, reference)
    )
    assert state.keys() == expected.keys()
    for path, leaf in state.items():
        np.testing.assert_array_equal(leaf, expected[path], err_msg=path, strict=True)
    return progress, goal


def assert_same_run(config, folder, reference):
    """Checks that two runs have saved the same bits, and the same best step."""
    progress, goal = assert_same_state(config, folder, reference)
    assert progress["best"] == goal["best"]


def damage(checkpoint_folder):
    """Flips one bit in the middle of the largest file of a checkpoint."""
    files = [path for path in checkpoint_folder.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def untrained(
    config, folder, image_shape=(8, 8, 1), names=tuple("0123456789"), draw=None
):
    """A `LoadedRun` with weights that nothing has trained; or drawn from shapes."""
    pixels = (0.5,) * image_shape[-1]
    record = data_record.DataRecord("none", image_shape, names, pixels, pixels, 4)
    model = network.network(config, len(names))
    example = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    if draw is None:
        weights = model.init(jax.random.key(0), example)
    else:
        shapes = jax.eval_shape(model.init, jax.random.key(0), example)
        weights = jax.tree.map(draw, shapes)
    measure = losses.make_losses(config, len(names)).measure
    return loaded.LoadedRun(folder, 12, config, record, model, *weights, measure)
