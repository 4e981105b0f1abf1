"""ViT-B/16 with SAM compiled for eight GPUs from one, or for eight fake CPU devices.

Parts: ``batch`` (one perturbation, m = batch) and ``device`` (one for each device's
examples, m-sharpness). Nothing is run: the program says which arrays travel between the
devices and what memory each needs.
"""

import functools
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from experiments.benchmarks import programs
from experiments.benchmarks.measure import Missing
from experiments.gpu.tasks import BFLOAT16, Context, Row, Task
from sam_jax.rehearsal import hlo
from sam_jax.train import build, sharding
from sam_jax.train.layout import lay_out

DEVICES, PER_DEVICE = 8, 64


def tasks(context: Context) -> Iterator[Task]:
    """One program."""
    yield Task("program", 60, functools.partial(program, context))


def devices() -> list[Any]:
    """Eight GPUs that are only compiled for, or the fake devices of a CPU."""
    if jax.default_backend() == "cpu":
        return jax.devices()[:DEVICES]
    try:
        described = topologies.get_topology_desc(
            platform="cuda", topology=f"1x1x{DEVICES}"
        )
    except (NotImplementedError, jax.errors.JaxRuntimeError) as error:
        raise Missing(f"this JAX describes no {DEVICES} GPUs: {error}") from error
    return list(described.devices)


def program(context: Context) -> Row:
    """Compiles the step.

    Returns:
        Bytes on a device; how many all-reduces, the bytes that a device sends in them,
        and how many copies of all parameters they carry.
    """
    per_device = 1 if context.tiny else PER_DEVICE
    side = 16 if context.tiny else 224
    small = {"name": "vit_ti16", "width": 8, "options": {"depth": 2}}
    model = small if context.tiny else {"name": "vit_b16"}
    batch = DEVICES * per_device
    whole = context.part == "batch"
    chosen = programs.settings(
        "sam",
        batch_size=batch,
        model={**model, **BFLOAT16},
        method_group_size=batch if whole else per_device,
    )
    groups = lay_out(batch, chosen.method_group_size, 1, chosen.batch_norm, DEVICES, 1)
    mesh = jax.sharding.Mesh(
        np.array(devices()).reshape(-1, groups.members, 1, 1),
        sharding.AXES,
        axis_types=(jax.sharding.AxisType.Auto,) * 4,
    )
    spec = build.DataSpec((side, side, 3), 1000, 1_281_167, 1_281_167 // batch)
    made: Any = build.steps(chosen, spec, groups=groups, mesh=mesh)
    before = made.abstract_state()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(before.params))
    start = time.perf_counter()
    compiled = programs.lowered(made).compile()
    seconds = time.perf_counter() - start
    found = [c for c in hlo.collectives(compiled) if c.name == "all-reduce"]
    return {
        "devices": DEVICES,
        "kind": mesh.devices.flat[0].device_kind,
        "batch": batch,
        "m": batch if whole else per_device,
        "parameters": parameters,
        "compile_seconds": seconds,
        "all_reduces": len(found),
        "all_reduce_sent_bytes": sum(c.sent for c in found if c.devices > 1),
        "parameter_copies_reduced": hlo.copies(compiled, parameters),
        **programs.memory(compiled),
    }
