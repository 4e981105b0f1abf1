"""How the trainer scales: devices, processes, groups on a device, and on a GPU.

    python -m experiments.benchmarks.scaling \
        --out=experiments/benchmarks/results/scaling.json

``--sections=devices,memory,processes,groups,gpu`` chooses among

- devices: a fixed batch (strong scaling) and a fixed number of examples per device
  (weak scaling) on 1, 2, 4, 8 devices: collectives and memory, as compiled, and times;
- memory: what a device keeps between steps with the state cut over fsdp devices;
- processes: the trainer in one process and in several, with as many devices;
- groups: several groups that share a perturbation on one device, one after another as
  the trainer does it, and otherwise;
- gpu: examples per second and share of the peak, if there is a GPU.

Several sections run in a process each. Without accelerators the devices are fake ones,
eight or (groups) one unless ``XLA_FLAGS`` says how many. They share the cores: where
these are fewer, a time that grows with the number of devices is the overhead of
splitting a step, and says nothing of real devices. What is counted (collectives, bytes)
holds for them as well. Times are taken in turns, and ratios round by round. A model is
written ``name`` or ``name:width``.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks import hlo, measure, trainer_overhead
from sam_jax import data, errors, models
from sam_jax.train import build as build_lib
from sam_jax.train import config as config_lib
from sam_jax.train import dispatch, groups, metrics, sharding, state, step

CARD = pathlib.Path(__file__).parents[2] / "configs" / "digits_sam.py"
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


def main(argv: Sequence[str]) -> int:
    """Measures as the command line says, prints the tables, writes the record.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--rounds", type=int, default=5, help="times for each")
    parser.add_argument("--model", default="resnet_digits", help="devices, processes")
    parser.add_argument("--batch", type=int, default=64, help="of strong scaling")
    parser.add_argument("--per_device", type=int, default=8, help="of weak scaling")
    parser.add_argument("--steps", type=int, default=5, help="devices: in one time")
    parser.add_argument("--memory_models", default="resnet18:16,wrn28_10")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--process_epochs", type=int, default=4)
    parser.add_argument("--process_rounds", type=int, default=3)
    parser.add_argument("--groups_model", default="resnet18:16")
    parser.add_argument("--groups_batch", type=int, default=128)
    parser.add_argument("--groups_size", type=int, default=32, help="m")
    parser.add_argument("--gpu_models", default="resnet18,wrn28_10,resnet50")
    parser.add_argument("--gpu_batch", type=int, default=256)
    parser.add_argument("--gpu_calls", type=int, default=50, help="steps in one time")
    parser.add_argument("--peak_tflops", type=float, help="of the GPU, in bfloat16")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file")
    args = parser.parse_args(argv)
    try:
        results = run_sections(args, argv)
    except errors.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return error.returncode  # it has said why
    measure.write(args.out, MODULE, argv, results)
    return 0


# ── Sections ─────────────────────────────────────────────────────────────────────────

MODULE = "experiments.benchmarks.scaling"
_COUNT_FLAG = "--xla_force_host_platform_device_count"


def run_sections(args: argparse.Namespace, argv: Sequence[str]) -> dict[str, Results]:
    """One section in this process, or several in one each, so that none slows another.

    Args:
        args: the parsed arguments.
        argv: the arguments.

    Returns:
        Section -> results.

    Raises:
        UserError: if a section does not exist or a setting will not do.
        CalledProcessError: if a process fails.
    """
    names = args.sections.split(",")
    for name in names:
        if name not in SECTIONS:
            raise errors.UserError(errors.unknown("section", name, SECTIONS))
    if len(names) == 1:
        return {names[0]: run_section(names[0], args)}
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            record = pathlib.Path(folder, "record.json")
            own = [f"--sections={name}", f"--out={record}"]
            subprocess.run([sys.executable, "-m", MODULE, *argv, *own], check=True)
            results |= json.loads(record.read_text())["results"]
    return results


def run_section(name: str, args: argparse.Namespace) -> Results:
    """Runs a section and prints its tables.

    Args:
        name: of the section.
        args: the parsed arguments.

    Returns:
        Its ``results``, and the ``machine`` that its process saw.

    Raises:
        UserError: if a setting will not do.
    """
    section = SECTIONS[name]
    if _COUNT_FLAG not in os.environ.get("XLA_FLAGS", ""):
        # Read when JAX first looks for devices.
        os.environ["XLA_FLAGS"] = xla_flags(section.devices)
    results, tables = section.measure(args)
    for title, table in tables.items():
        print(f"\n{title}\n\n{table}", flush=True)
    return {"machine": measure.machine(), "results": results}


def xla_flags(devices: int) -> str:
    """The user's XLA flags with so many fake devices."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    others = [flag for flag in flags if not flag.startswith(_COUNT_FLAG)]
    return " ".join([*others, f"{_COUNT_FLAG}={devices}"])


# ── Common ───────────────────────────────────────────────────────────────────────────


def make_config(model: str, method: str, **settings: Any) -> Any:
    """Settings of a run on the digits, on one device.

    Args:
        model: ``name`` or ``name:width``.
        method: its name.
        **settings: other values by key.

    Returns:
        The configuration.
    """
    config = config_lib.default_config()
    config.method = config_lib.load_method(method, CARD)
    config.data.name = "digits"
    config.mesh.data = 1
    config.model.name, _, width = model.partition(":")
    config.model.width = int(width) if width else None
    config.update_from_flattened_dict(settings)
    return config


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


def _mega(size: float) -> str:
    return f"{size / 1e6:.3f}"


# ── Devices ──────────────────────────────────────────────────────────────────────────


class Case(NamedTuple):
    """A step whose cost is counted and timed.

    Attributes:
        method: its name.
        group_size: m.
        batch: examples in a batch.
        devices: over which it is split.
    """

    method: str
    group_size: int
    batch: int
    devices: int


def devices_section(args: argparse.Namespace) -> tuple[Results, Tables]:
    """Strong and weak scaling over the devices of this process."""
    records = scaling(
        args.model,
        device_counts(),
        args.batch,
        args.per_device,
        args.rounds,
        args.steps,
    )
    note = (
        f"{jax.device_count()} x {jax.devices()[0].device_kind} on "
        f"{measure.machine()['cores']} cores; bytes are those of one device and step"
    )
    return records, {
        f"{kind.capitalize()} scaling, {args.model} ({note})": scaling_table(
            [record for record in records if record["scaling"] == kind]
        )
        for kind in ("strong", "weak")
    }


def device_counts() -> list[int]:
    """Numbers of devices to compare."""
    return [n for n in (1, 2, 4, 8) if n <= jax.device_count()]


def scaling(
    model: str,
    counts: Sequence[int],
    batch: int,
    per_device: int,
    rounds: int,
    steps: int,
) -> list[dict[str, Any]]:
    """Counts and times all ways to train on several numbers of devices.

    Args:
        model: ``name`` or ``name:width``.
        counts: numbers of devices, 1 among them.
        batch: examples in a batch of strong scaling.
        per_device: examples per device of weak scaling.
        rounds: times taken of each.
        steps: of which one time is taken.

    Returns:
        A record for each kind of scaling, way and number of devices: what `counted`
        says, ``seconds`` of a step (all rounds) and ``time_ratio`` to one device.

    Raises:
        UserError: if a setting will not do.
    """
    batches = {
        "strong": dict.fromkeys(counts, batch),
        "weak": {n: n * per_device for n in counts},
    }
    # Both kinds end in the same case, and on one device some ways are the same.
    cases = {
        (kind, label, n): Case(way.method, way.group(size, n), size, n)
        for kind, sizes in batches.items()
        for label, way in WAYS.items()
        for n, size in sizes.items()
    }
    programs = {
        case: Program(_of_case(model, case), steps)
        for case in dict.fromkeys(cases.values())
    }
    for program in programs.values():
        program()  # the first time warms up
    names = {str(case): program for case, program in programs.items()}
    times = measure.in_turns(names, rounds)
    return [
        {
            "scaling": kind,
            "step": label,
            **case._asdict(),
            **counted(programs[case].compiled),
            "seconds": [t / steps for t in times[str(case)]],
            "time_ratio": measure.ratio(
                times[str(case)], times[str(cases[kind, label, 1])]
            )._asdict(),
        }
        for (kind, label, _), case in cases.items()
    ]


def _of_case(model: str, case: Case) -> build_lib.Run:
    settings = {
        "batch_size": case.batch,
        "method_group_size": case.group_size,
        "mesh.data": case.devices,
    }
    return build_lib.build(make_config(model, case.method, **settings))


def counted(compiled: Any) -> dict[str, Any]:
    """What the compiler says about a step.

    Args:
        compiled: the step.

    Returns:
        ``collectives`` over several devices (name -> number), ``carried_bytes`` (the
        arrays that they result in), ``sent_bytes`` (what a device sends in rings),
        ``temp_bytes`` and ``argument_bytes``; all of one device.
    """
    found = [each for each in hlo.collectives(compiled) if each.devices > 1]
    memory = compiled.memory_analysis()
    return {
        "collectives": dict(collections.Counter(each.name for each in found)),
        "carried_bytes": sum(each.bytes for each in found),
        "sent_bytes": sum(each.sent for each in found),
        "temp_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
    }


def scaling_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Records of one kind of scaling as Markdown."""
    return measure.markdown(
        [
            *("step", "devices", "batch", "m", "ms / step", "time / 1 device"),
            *(
                "collectives",
                "carried (MB)",
                "sent (MB)",
                "temp (MB)",
                "arguments (MB)",
            ),
        ],
        [
            [
                r["step"],
                r["devices"],
                r["batch"],
                r["group_size"],
                f"{1e3 * median(r['seconds']):.1f}",
                measure.Ratio(**r["time_ratio"]),
                ", ".join(f"{n} {name}" for name, n in r["collectives"].items()) or "0",
                *(
                    _mega(r[f"{what}_bytes"])
                    for what in ("carried", "sent", "temp", "argument")
                ),
            ]
            for r in records
        ],
    )


# ── Memory ───────────────────────────────────────────────────────────────────────────

MEMORY_METHODS = ("sam", "vasso")


def memory_section(args: argparse.Namespace) -> tuple[Results, Tables]:
    """Memory of the state, cut over 1, 2, 4, ... devices."""
    records = [
        record
        for model in args.memory_models.split(",")
        for method in MEMORY_METHODS
        for record in kept(model, method)
    ]
    table = measure.markdown(
        ["model", "method", "fsdp", "MB on a device", "/ fsdp = 1", "not cut (MB)"],
        [
            [
                *(r["model"], r["method"], r["fsdp"], _mega(r["bytes"])),
                *(f"{r['ratio']:.4f}", _mega(r["whole_bytes"])),
            ]
            for r in records
        ],
    )
    return records, {"Parameters, optimizer and method, on one device": table}


def kept(model: str, method: str) -> list[dict[str, Any]]:
    """What one device keeps of parameters, optimizer and method.

    Args:
        model: ``name`` or ``name:width``.
        method: its name.

    Returns:
        A record for each number of devices: ``bytes``, the ``ratio`` to one device, and
        ``whole_bytes``, those of arrays too small to be cut.

    Raises:
        UserError: if a setting will not do.
    """
    records = []
    for fsdp in device_counts():
        settings = {"mesh.data": 1, "mesh.fsdp": fsdp}
        run = build_lib.build(make_config(model, method, **settings))
        abstract = run.abstract_state()
        arrays = jax.tree.leaves(zeros((abstract.params, abstract.opt_state)))
        local = [x.addressable_shards[0].data for x in arrays]
        whole = sum(
            part.nbytes
            for x, part in zip(arrays, local, strict=True)
            if part.shape == x.shape
        )
        size = sum(part.nbytes for part in local)
        records.append(
            {
                "model": model,
                "method": method,
                "fsdp": fsdp,
                "bytes": size,
                "ratio": size / (records[0]["bytes"] if records else size),
                "whole_bytes": whole,
            }
        )
    return records


# ── Processes ────────────────────────────────────────────────────────────────────────

PROCESS_WAYS = (BASELINE, "SAM, m = batch", DEVICE_GROUPS)
TRAINER_SECONDS = 600  # after which a run of the trainer has failed


def processes_section(args: argparse.Namespace) -> tuple[Results, Tables]:
    """The trainer in one process with several devices, and in as many processes."""
    results = processes(
        args.model, args.batch, args.processes, args.process_epochs, args.process_rounds
    )
    one, several = f"1 x {args.processes}", f"{args.processes} x 1"
    table = measure.markdown(
        ["step", f"examples/s, {one}", f"examples/s, {several}", "ratio"],
        [
            [
                label,
                *(
                    f"{median(result['examples_per_second'][n]):.0f}"
                    for n in ("1", "n")
                ),
                measure.Ratio(**result["ratio"]),
            ]
            for label, result in results.items()
        ],
    )
    title = f"Processes x devices of each, {args.model}, batch {args.batch}"
    return results, {title: table}


def processes(
    model: str, batch: int, number: int, epochs: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Times the trainer in one process and in several.

    Args:
        model: ``name`` or ``name:width``.
        batch: examples in a batch.
        number: of the processes, and of the devices in both.
        epochs: of a run.
        rounds: runs of each, in turns.

    Returns:
        Way -> ``examples_per_second`` of the trainer in ``1`` and in ``n`` processes,
        one for each round, from its first row of metrics to its last, and their
        ``ratio``, n over 1.

    Raises:
        RuntimeError: if the trainer fails.
    """
    name, _, width = model.partition(":")
    results = {}
    with tempfile.TemporaryDirectory() as cache:
        for label in PROCESS_WAYS:
            way = WAYS[label]
            flags = [
                f"--config={CARD}:{way.method}",
                f"--config.method_group_size={way.group(batch, number)}",
                f"--config.model.name={name}",
                *([f"--config.model.width={width}"] if width else []),
                f"--config.batch_size={batch}",
                f"--config.epochs={epochs}",
                f"--config.eval_every_epochs={epochs}",
                f"--config.checkpoint_every_epochs={epochs}",
                f"--config.log_every_steps={LOG_EVERY}",
                f"--compilation_cache={cache}",
            ]
            speeds: dict[str, list[float]] = {"1": [], "n": []}

            def once(name: str, count: int, flags=flags, speeds=speeds) -> None:
                speeds[name].append(batch * train(count, number // count, flags))

            measure.in_turns(
                {"1": lambda: once("1", 1), "n": lambda: once("n", number)}, rounds
            )
            results[label] = {
                "examples_per_second": speeds,
                "ratio": measure.ratio(speeds["n"], speeds["1"])._asdict(),
            }
    return results


LOG_EVERY = 5  # steps; the first ones are not timed


def train(number: int, devices: int, flags: Sequence[str]) -> float:
    """Runs the trainer on this machine.

    Args:
        number: of processes.
        devices: of each, fake ones.
        flags: of all processes.

    Returns:
        Steps per second.

    Raises:
        RuntimeError: with what a process said that failed.
    """
    environment = os.environ | {"XLA_FLAGS": xla_flags(devices), "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder, "run")
        address = f"--coordinator=127.0.0.1:{_free_port()}"
        started = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "sam_jax.main", f"--workdir={run}", *flags),
                    *((address, f"--num_processes={number}") if number > 1 else ()),
                    *((f"--process_id={process}",) if number > 1 else ()),
                ],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for process in range(number)
        ]
        try:
            for process in started:
                _, said = process.communicate(timeout=TRAINER_SECONDS)
                if process.returncode:
                    raise RuntimeError(f"the trainer failed: {said.strip()}")
        finally:
            for process in started:
                process.kill()
                process.wait()
        history = run / metrics.METRICS_FILE
        steps, seconds = trainer_overhead.timed_steps(history, LOG_EVERY)
    return steps / seconds


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


# ── Groups on one device ─────────────────────────────────────────────────────────────

ONE_PERTURBATION, ONE_BY_ONE = "m = batch", "one after another"
UNROLLED, TOGETHER = "one after another, unrolled", "all at once (vmap)"


def groups_section(args: argparse.Namespace) -> tuple[Results, Tables]:
    """Several groups on one device, in all forms of the loop over them."""
    model, batch, size = args.groups_model, args.groups_batch, args.groups_size
    results = several_groups(model, batch, size, args.rounds)
    table = measure.markdown(
        [
            "groups",
            "s / step",
            f"time / {ONE_PERTURBATION}",
            "compile (s)",
            "temp (MB)",
        ],
        [
            [
                form,
                f"{median(result['seconds']):.3f}",
                measure.Ratio(**result["time_ratio"]),
                f"{result['compile_seconds']:.1f}",
                f"{result['temp_bytes'] / 1e6:.1f}",
            ]
            for form, result in results.items()
        ],
    )
    return results, {f"SAM, {model}, m = {size}, batch {batch}": table}


def several_groups(
    model: str, batch: int, size: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Times SAM's step with several groups on one device.

    Args:
        model: ``name`` or ``name:width``; images are random, 32x32x3.
        batch: examples in a batch.
        size: m.
        rounds: times taken of each.

    Returns:
        Form of the loop over the groups -> ``seconds`` of a step (all rounds),
        ``time_ratio`` to the step with m = batch, ``compile_seconds`` (Python's part
        included), ``temp_bytes``.

    Raises:
        UserError: if a setting will not do.
    """
    config = make_config(model, "sam", batch_size=batch, method_group_size=size)
    programs = {
        form: Program(run) for form, run in forms(config, random_images(batch)).items()
    }
    for program in programs.values():
        program()  # the first time warms up
    times = measure.in_turns(programs, rounds)
    return {
        form: {
            "seconds": times[form],
            "time_ratio": measure.ratio(times[form], times[ONE_PERTURBATION])._asdict(),
            "compile_seconds": program.compile_seconds,
            "temp_bytes": program.compiled.memory_analysis().temp_size_in_bytes,
        }
        for form, program in programs.items()
    }


def forms(config: Any, dataset: data.Dataset) -> dict[str, build_lib.Run]:
    """Runs on one device that differ in the loop over groups alone.

    Args:
        config: of the run.
        dataset: to train on.

    Returns:
        Form of the loop -> run; the first one has a single group.
    """
    own = build_lib.build(config).groups
    of_forms = {
        ONE_PERTURBATION: groups.WHOLE,
        ONE_BY_ONE: own,
        UNROLLED: Unrolled(**dataclasses.asdict(own)),
        # Without an axis for BatchNorm in the network, each group has its statistics.
        TOGETHER: dataclasses.replace(own, lockstep=True),
    }
    return {form: on_one_device(config, dataset, of) for form, of in of_forms.items()}


class Unrolled(groups.Groups):
    """Groups one after another in a Python loop, instead of one in the program."""

    def gradient(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """As that of all groups."""
        return unrolled(groups.Groups(chunks=self.chunks).gradient(fn))


def unrolled(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Under ``jax.vmap`` a Python loop, as `sam_jax.train.groups.one_by_one` a scan.

    Args:
        fn: of arrays alone.

    Returns:
        The same function.

    Example:
        >>> print(jax.vmap(unrolled(lambda x: x**2))(np.arange(3)))
        [0 1 4]
    """
    mapped = jax.custom_batching.custom_vmap(fn)

    @mapped.def_vmap
    def in_turn(count: int, batched: Any, *args: Any) -> tuple[Any, Any]:
        leaves, structure = jax.tree.flatten(args)
        flags = jax.tree.leaves(batched)
        if not any(flags):
            result = fn(*args)
            return result, jax.tree.map(lambda _: False, result)
        results = []
        for group in range(count):
            own = [
                x[group] if flag else x for x, flag in zip(leaves, flags, strict=True)
            ]
            results.append(fn(*structure.unflatten(own)))
        stacked = jax.tree.map(lambda *xs: jax.numpy.stack(xs), *results)
        return stacked, jax.tree.map(lambda _: True, stacked)

    return mapped


def random_images(examples: int, side: int = 32) -> data.Dataset:
    """Noise in ten classes, of the shape of CIFAR-10."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (examples, side, side, 3), np.uint8)
    labels = generator.integers(0, 10, examples).astype(np.int32)
    source = data.ArraySource(data.Split(images, labels, labels))
    half = (0.5, 0.5, 0.5)
    return data.Dataset("noise", 10, (side, side, 3), half, half, source, None, source)


def on_one_device(
    config: Any, dataset: data.Dataset, of_groups: groups.Groups = groups.WHOLE
) -> build_lib.Run:
    """The parts of a run with other data and groups than `sam_jax.train.build` gives.

    Args:
        config: of the run; its data are not used.
        dataset: to train on, without augmentation.
        of_groups: who shares a perturbation.

    Returns:
        The parts.

    Raises:
        UserError: if a setting will not do.
    """
    run = build_lib.build(config)
    normalize = data.augment.make_normalize(mean=dataset.mean, std=dataset.std)
    model = models.build(
        config.model.name,
        num_classes=dataset.num_classes,
        width=config.model.width,
        dtype=config.model.dtype,
    )

    def init(seed: jax.Array) -> state.TrainState:
        images = jax.numpy.zeros((1, *dataset.image_shape))
        return state.init_state(seed, images, model, run.optimizer, config.ema_decay)

    train_step = step.make_train_step(
        config,
        model,
        run.optimizer,
        lambda key, images: normalize(images),
        dataset.train.num_examples,
        of_groups,
    )
    whole = sharding.replicated(run.mesh)
    return run._replace(
        dataset=dataset,
        groups=of_groups,
        init=jax.jit(init, out_shardings=whole),
        train_step=jax.jit(train_step, donate_argnums=0, out_shardings=whole),
    )


# ── GPU ──────────────────────────────────────────────────────────────────────────────

DISPATCHES = (1, 10)


def gpu_section(args: argparse.Namespace) -> tuple[Results, Tables]:
    """Speed on one GPU; nothing without one."""
    if jax.default_backend() != "gpu":
        print(f"\ngpu: left out, JAX runs on {jax.default_backend()} here")
        return None, {}
    peak = args.peak_tflops and 1e12 * args.peak_tflops
    records = [
        record
        for model in args.gpu_models.split(",")
        for record in throughput(
            model, args.gpu_batch, args.gpu_calls, args.rounds, peak
        )
    ]
    table = measure.markdown(
        ["model", "step", "steps per dispatch", "examples/s", "share of the peak"],
        [
            [
                *(r["model"], r["method"], r["steps_per_dispatch"]),
                f"{r['examples_per_second']:.0f}",
                "" if r["share"] is None else f"{100 * r['share']:.1f} %",
            ]
            for r in records
        ],
    )
    kind = jax.devices()[0].device_kind
    return records, {f"{kind}, bfloat16, batch {args.gpu_batch}": table}


def throughput(
    model: str, batch: int, steps: int, rounds: int, peak: float | None
) -> list[dict[str, Any]]:
    """Speed of SGD and SAM on one device, fed as the trainer feeds it.

    Args:
        model: ``name`` or ``name:width``; images are random, 32x32x3.
        batch: examples in a batch.
        steps: of which one time is taken.
        rounds: times taken of each.
        peak: operations per second of the device; None if it is not known.

    Returns:
        A record for each method and number of steps per dispatch: ``flops`` of a step,
        ``seconds`` of a step (all rounds), ``examples_per_second`` and ``share`` of the
        peak (medians).

    Raises:
        UserError: if a setting will not do.
    """
    dataset = random_images(16 * batch)
    flops, feeds = {}, {}
    for method in (config_lib.BASELINE, "sam"):
        for several in DISPATCHES:
            config = make_config(model, method, batch_size=batch)
            config.model.dtype = "bfloat16"
            config.steps_per_dispatch = several
            run = on_one_device(config, dataset)
            flops[method] = step_flops(run)
            feeds[f"{method}/{several}"] = Feed(run, steps)
    for feed in feeds.values():
        feed()  # compiles
    times = measure.in_turns(feeds, rounds)
    records = []
    for name, of_feed in times.items():
        method, _, several = name.partition("/")
        seconds = median(of_feed) / steps
        records.append(
            {
                "model": model,
                "method": method,
                "steps_per_dispatch": int(several),
                "flops": flops[method],
                "seconds": [t / steps for t in of_feed],
                "examples_per_second": batch / seconds,
                "share": peak and flops[method] / seconds / peak,
            }
        )
    return records


def step_flops(run: build_lib.Run) -> float:
    """Operations of a training step, as written.

    Not as compiled, which calls libraries on a GPU: XLA does not count what they do.
    """
    batch_size = run.config.batch_size
    batch = next(run.dataset.train.batches(batch_size=batch_size, seed=0))
    train_step: Any = run.train_step
    return train_step.lower(run.abstract_state(), batch).cost_analysis()["flops"]


class Feed:
    """Trains as the trainer does, without logs; a call does the next steps.

    Args:
        run: the parts of the run.
        steps: in a call.

    Attributes:
        state: after the steps so far.
    """

    def __init__(self, run: build_lib.Run, steps: int) -> None:
        self._advance = dispatch.from_step(run, 0)
        self.state = run.init(run.seed)
        self._steps = steps

    def __call__(self) -> None:
        """Does the steps and waits for them."""
        done = 0
        while done < self._steps:
            self.state, _, several = self._advance(self.state, self._steps - done)
            done += several
        jax.block_until_ready(self.state)


class Section(NamedTuple):
    """A part of the benchmark.

    Attributes:
        measure: from the parsed arguments to results and tables.
        devices: fake ones that it needs.
    """

    measure: Callable[[argparse.Namespace], tuple[Results, Tables]]
    devices: int


# More devices are more threads, also for a step on one of them.
SECTIONS = {
    "devices": Section(devices_section, 8),
    "memory": Section(memory_section, 8),
    "processes": Section(processes_section, 1),
    "groups": Section(groups_section, 1),
    "gpu": Section(gpu_section, 1),
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
