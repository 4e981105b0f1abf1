"""The trainer's step, compiled for a TPU slice, and what its program says."""

import functools
import math
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from sam_jax import data, errors
from sam_jax.data import catalog, splits
from sam_jax.rehearsal import hlo, topologies
from sam_jax.train import build, settings

LANES, ROWS = 128, 8  # of the arrays that a TPU works on


class Shapes(NamedTuple):
    """What a step knows of its data.

    Attributes:
        image: height, width and channels.
        classes: their number.
        examples: in the training set.
    """

    image: tuple[int, ...]
    classes: int
    examples: int


# Sets of images of any size, which come as `config.data.image_size` says.
_PICTURES = {
    "imagenet2012": Shapes((224, 224, 3), 1000, 1_281_167),
    "tiny_imagenet": Shapes((64, 64, 3), 200, 100_000),
}


def shapes(config: settings.Data, **given: Any) -> Shapes:
    """The shapes of a data set that is not read.

    Args:
        config: of the data.
        **given: ``image``, ``classes``, ``examples``, which are known better.

    Returns:
        The shapes; the examples are those that are left to train on.

    Raises:
        UserError: if the data set is not known and not all is given.

    Example:
        >>> shapes(settings.Data("cifar10"))
        Shapes(image=(32, 32, 3), classes=10, examples=45000)
    """
    given = {name: x for name, x in given.items() if x is not None}
    name = catalog.short(config.name)
    known: dict[str, Any] = {}
    if name in catalog.CATALOG:
        entry = catalog.CATALOG[name]
        known = Shapes(
            entry.image_shape, entry.num_classes, entry.train_examples
        )._asdict()
    elif name in _PICTURES:
        known = _PICTURES[name]._asdict()
    if config.image_size and "image" not in given:
        channels = 3 if config.stream or not known else known["image"][-1]
        known["image"] = (config.image_size, config.image_size, channels)
    missing = [name for name in Shapes._fields if name not in known | given]
    if missing:
        flags = {"image": "224,224,3", "classes": "1000", "examples": "1281167"}
        words = " ".join(f"--{name}={flags[name]}" for name in missing)
        raise errors.UserError(
            f"a rehearsal reads no data, and does not know those of "
            f"config.data.name={config.name}: add, for example, {words}"
        )
    found = Shapes(**known | given)
    held = config.validation
    left = found.examples - round(held * found.examples if held < 1 else held)
    wanted = config.train_examples or max(left, 1)
    if wanted > left:
        raise errors.UserError(
            f"config.data.validation={held} leaves {max(left, 0)} of {found.examples} "
            f"training examples, and {wanted} are wanted: take fewer"
        )
    return found._replace(examples=wanted)


def stand_in(config: settings.Data, shapes: Shapes) -> data.Dataset:
    """A data set of those shapes without contents; it takes no memory."""

    def split(count: int) -> data.ArraySource:
        labels = np.broadcast_to(np.int32(0), (count,))
        images = np.broadcast_to(np.uint8(0), (count, *shapes.image))
        return data.ArraySource(splits.Split(images, labels, labels))

    channels = shapes.image[-1]
    return data.Dataset(
        name=config.name,
        class_names=tuple(map(str, range(shapes.classes))),
        image_shape=shapes.image,
        mean=config.mean or (0.5,) * channels,
        std=config.std or (0.25,) * channels,
        train=split(shapes.examples),
        validation=None,
        test=split(1),
    )


def steps(
    config: settings.Settings, topology: topologies.Topology, shapes: Shapes
) -> build.Run:
    """The functions of a run on a slice that need not be there."""
    if config.data.stream and config.steps_per_dispatch > 1:
        raise errors.UserError(
            "config.steps_per_dispatch needs the training set in memory: set "
            "config.data.stream=False, or config.steps_per_dispatch=1"
        )
    groups, mesh = build.layout(config, topology.devices())
    if mesh.size != topology.size:
        raise errors.UserError(
            f"config.mesh takes {mesh.size} of the {topology.size} chips of "
            f"{topology.name}: give a slice of that size, or config.mesh.data=-1"
        )
    make = functools.partial(build.steps, groups=groups, mesh=mesh)
    return build.build(config, dataset=stand_in(config.data, shapes), make=make)


def set_effort(effort: float) -> None:
    """How hard the compiler tries from now on, in this process; see `told`."""
    number = "jax_exec_time_optimization_effort"
    if number in jax.config.values:
        jax.config.update(number, effort)
    else:  # JAX 0.12 has levels instead
        level = "O0" if effort < 0 else "O3" if effort > 0 else "UNKNOWN"
        jax.config.update("jax_optimization_level", level)


def told(
    config: settings.Settings,
    topology: topologies.Topology,
    shapes: Shapes,
    effort: float = -1.0,
) -> dict[str, Any]:
    """Compiles the train step and says what the program needs, sends and takes.

    Args:
        config: of the run.
        topology: of the chips.
        shapes: of the data.
        effort: of the compiler, from -1, much the fastest, to 0, that of a run.

    Returns:
        What `report` shows, as plain numbers for JSON; bytes, FLOP and seconds are
        those of one chip and one step. A step that needs too much memory has ``fits``
        false, and ``missing_bytes``.
    """
    run = steps(config, topology, shapes)
    begun = time.monotonic()
    set_effort(effort)
    share = config.batch_size // run.mesh.size
    found = {
        "topology": topology.name,
        "chips": topology.size,
        "hosts": len({d.process_index for d in run.mesh.devices.flat}),
        "batch_size": config.batch_size,
        "per_chip": share,
        "batch_norm": {
            "examples": batch_norm_examples(config, run),
            "one_chip": share,
        },
        "hbm_bytes": topology.chip.hbm * 2**30,
        "warnings": warnings_of(config, run, share),
    }
    if config.steps_per_dispatch > 1:
        resident = math.prod((shapes.examples, *shapes.image))
        found["warnings"].append(
            f"config.steps_per_dispatch keeps {resident / 2**30:.2f} GiB of training "
            "images on every chip, which are not counted here"
        )
    jitted: Any = run.train_step
    lowered = jitted.lower(run.abstract_state(), run.abstract_batch())
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return found | too_large(error, run, found["hbm_bytes"])
    found["compile_seconds"] = round(time.monotonic() - begun, 1)
    return found | of_program(compiled, config, topology, run, found["warnings"])


def of_program(
    compiled: Any,
    config: settings.Settings,
    topology: topologies.Topology,
    run: build.Run,
    warnings: list[str],
) -> dict[str, Any]:
    """What the text of a compiled step says; warnings are added to the list."""
    program = hlo.Program(compiled.as_text())
    cost = compiled.cost_analysis()
    rounds = loops(program)
    flops, moved, compiler = (
        rounds * cost.get(name, 0.0)
        for name in ("flops", "bytes accessed", "optimal_seconds")
    )
    collectives = program.collectives()
    network = sum(of_network(topology, each) for each in collectives)
    hidden = sum(of_network(topology, each) for each in collectives if each.hidden)
    chip = topology.chip
    products, memory = flops / chip.flops, moved / chip.bandwidth
    # What is asynchronous may take the time of the rest, and no less than its own.
    roofline = max(products, memory, hidden) + network - hidden
    state = bytes_of_state(run)
    analysis = compiled.memory_analysis()
    spare = state - analysis.alias_size_in_bytes
    if spare > 0.01 * state:
        warnings.append(f"{spare / 1e6:.1f} MB of the donated state are not reused")
    warnings += in_float32(config, program)
    copied = sum(n * each.bytes for each, n in program.copies() if each.bytes > 2**16)
    if copied > 0.01 * moved:
        warnings.append(f"copies between layouts move {copied / 1e6:.1f} MB")
    return {
        "fits": True,
        "memory": {
            "arguments": analysis.argument_size_in_bytes,
            "temporaries": analysis.temp_size_in_bytes,
            "program": analysis.generated_code_size_in_bytes,
            "reused": analysis.alias_size_in_bytes,
            "peak": analysis.peak_memory_in_bytes,
        },
        "state_bytes": state,
        "collectives": hlo.totals(collectives),
        "flops": flops,
        "moved_bytes": moved,
        "loop_rounds": round(rounds, 3),
        "seconds": {
            "compiler": compiler,
            "products": products,
            "memory": memory,
            "network": network,
            "hidden": hidden,
            "roofline": roofline,
        },
        "communication": (network - hidden) / roofline if roofline else 0.0,
        "utilization": flops / chip.flops / max(roofline, compiler, 1e-12),
    }


def of_network(topology: topologies.Topology, each: hlo.Collective) -> float:
    """Seconds of a collective in a step, all its times."""
    if each.devices < 2:
        return 0.0
    if each.name == hlo.BETWEEN:
        return each.times * each.sent / topology.chip.network
    return each.times * topology.seconds(each.sent, each.devices)


def loops(program: hlo.Program) -> float:
    """By what the products in loops make a program longer than one round of each."""
    found = program.products()
    once = sum(each.flops for each in found)
    return sum(each.flops * each.times for each in found) / once if once else 1.0


def batch_norm_examples(config: settings.Settings, run: build.Run) -> int:
    """Examples by whose statistics BatchNorm normalizes in training."""
    if config.batch_norm == "batch":
        return config.batch_size
    if isinstance(config.batch_norm, int):
        return config.batch_norm
    return config.batch_size // run.groups.count // run.groups.chunks


def bytes_of_state(run: build.Run) -> int:
    """Of the state, on one chip."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(run.abstract_state())
    )


# ── Warnings ─────────────────────────────────────────────────────────────────────────


def warnings_of(config: settings.Settings, run: build.Run, share: int) -> list[str]:
    """What can be said before the step is compiled."""
    found = []
    if config.model.dtype == "float32":
        found.append(
            "the network computes in float32, on a TPU in several passes through its "
            "units: --config.model.dtype=bfloat16"
        )
    if share % ROWS:
        found.append(
            f"{share} examples a chip are padded to {-(-share // ROWS) * ROWS}: take a "
            f"batch of a multiple of {ROWS * run.mesh.size}"
        )
    kernels = [x for x in jax.tree.leaves(run.abstract_state().params) if x.ndim > 1]
    narrow = [x for x in kernels if min(x.shape[-2:]) < LANES]
    if narrow:
        found.append(
            f"{len(narrow)} of {len(kernels)} kernels have fewer than {LANES} channels "
            "on a side, and are padded to that"
        )
    before = jax.eval_shape(run.init, run.seed)
    after, _ = jax.eval_shape(run.train_step, before, run.abstract_batch())
    if any(
        (a.shape, a.dtype, a.weak_type) != (b.shape, b.dtype, b.weak_type)
        for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)
    ):
        found.append(
            "the state after an update is of another type: the next one compiles again"
        )
    return found


def in_float32(config: settings.Settings, program: hlo.Program) -> list[str]:
    """Products of float32 in a network that is to compute in another dtype."""
    if config.model.dtype == "float32":
        return []
    found = program.products()
    total = sum(each.flops * each.times for each in found)
    wide = sum(
        each.flops * each.times
        for each in found
        if all(dtype == "f32" for dtype, _ in each.operands)
    )
    if wide <= 0.01 * total:
        return []
    share = f"{wide / total:.0%}"
    return [f"{share} of the products are in float32, not in {config.model.dtype}"]


# ── What does not fit ────────────────────────────────────────────────────────────────

_SIZE = r"([\d.]+)([KMGT]?)B?"
_TOO_LARGE = (
    rf"Used {_SIZE} of {_SIZE} hbm",
    rf"for HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)",
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def too_large(error: Exception, run: build.Run, hbm: int) -> dict[str, Any]:
    """The compiler's message about a step that needs too much memory.

    Raises:
        UserError: for anything else that it says.
    """
    found = (re.search(pattern, str(error)) for pattern in _TOO_LARGE)
    sizes = next(filter(None, found), None)
    if sizes is None:
        raise errors.UserError(
            f"the compiler for TPUs fails: {errors.one_line(error)}"
        ) from error
    used, there = (float(sizes[i]) * _UNITS[sizes[i + 1]] for i in (1, 3))
    return {
        "fits": False,
        "needed_bytes": round(used),
        "there_bytes": round(there),
        "missing_bytes": round(used - there),
        "advice": advice(run, used, hbm),
    }


def advice(run: build.Run, used: float, hbm: int) -> str:
    """What would make a step fit."""
    config, found = run.config, []
    times = 2 ** math.ceil(math.log2(max(used / hbm, 1.01)))
    fsdp = min(run.mesh.size, 8)
    if bytes_of_state(run) > hbm / 2 and config.mesh.fsdp < fsdp:
        found.append(f"--config.mesh.fsdp={fsdp}")
    if config.batch_norm != "batch":
        # Fewer cut no group, which is not perturbed in parts.
        groups = config.batch_size // (config.method_group_size or config.batch_size)
        steps = max(groups, config.accumulation_steps) * times
        found.append(f"--config.accumulation_steps={steps}")
    found += [] if config.remat else ["--config.remat=True"]
    if config.model.dtype == "float32":
        found.append("--config.model.dtype=bfloat16")
    return ", ".join(found) + ", a smaller batch or more chips"


def request(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """`told`, of what can be written down.

    Args:
        wanted: ``card``, ``changes``, ``topology``, ``per_chip``, ``shapes`` and
            ``effort``.
    """
    from sam_jax.train import cards

    topology = topologies.read(wanted["topology"])
    changes = list(wanted["changes"])
    if wanted["per_chip"]:
        changes.append(f"--config.batch_size={wanted['per_chip'] * topology.size}")
    config = cards.load(wanted["card"], *changes)
    of_data = shapes(config.data, **wanted["shapes"])
    return told(config, topology, of_data, wanted["effort"])
