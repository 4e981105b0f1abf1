"""How the trainer scales: devices, processes, groups on a device, and on a GPU.

    python -m experiments.benchmarks.scaling \
        --out=experiments/benchmarks/results/scaling.json

``--sections=devices,memory,processes,groups`` chooses among

- devices: a fixed batch (strong scaling) and a fixed number of examples per device
  (weak scaling) on 1, 2, 4, 8 devices: collectives and memory, as compiled, and times;
- memory: what a device keeps between steps with the state cut over fsdp devices;
- processes: the trainer in one process and in several, with as many devices;
- groups: several groups that share a perturbation on one device, one after another as
  the trainer does it, and otherwise.

Several sections run in a process each. Without accelerators the devices are fake ones,
eight or (groups) one unless ``XLA_FLAGS`` says how many. They share the cores: where
these are fewer, a time that grows with the number of devices is the overhead of
splitting a step, and says nothing of real devices. What is counted (collectives, bytes)
holds for them as well. Times are taken in turns, and ratios round by round. A model is
written ``name`` or ``name:width``.
"""

import os
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments import commands
from experiments.benchmarks import measure
from experiments.benchmarks.measure import Flag
from experiments.benchmarks.scaling import (
    common,
    device_groups,
    devices,
    memory,
    processes,
)
from sam_jax import errors
from sam_jax.train import files

MODULE = "experiments.benchmarks.scaling"


class Section(NamedTuple):
    """A part of the benchmark.

    Attributes:
        measure: from the parsed arguments to results and tables.
        devices: fake ones that it needs.
    """

    measure: Callable[[Any], tuple[measure.Results, measure.Tables]]
    devices: int


# More devices are more threads, also for a step on one of them.
SECTIONS = {
    "devices": Section(devices.section, 8),
    "memory": Section(memory.section, 8),
    "processes": Section(processes.section, 1),
    "groups": Section(device_groups.section, 1),
}


@measure.benchmark(
    sections=Flag(commands.several(str), [*SECTIONS], "name,..."),
    rounds=Flag(commands.count, 5, "times for each"),
    model=Flag(str, "resnet_digits", "devices, processes"),
    batch=Flag(commands.count, 64, "of strong scaling"),
    per_device=Flag(commands.count, 8, "of weak scaling"),
    steps=Flag(commands.count, 5, "devices: in one time"),
    memory_models=Flag(commands.several(str), ["resnet18:16", "wrn28_10"]),
    processes=Flag(commands.count, 2),
    process_epochs=Flag(commands.count, 4),
    process_rounds=Flag(commands.count, 3),
    groups_model=Flag(str, "resnet18:16"),
    groups_batch=Flag(commands.count, 128),
    groups_size=Flag(commands.count, 32, "m"),
)
def main(args: Any) -> tuple[measure.Results, measure.Tables]:
    """One section in this process, or several in one each: none slows another."""
    for name in args.sections:
        if name not in SECTIONS:
            raise errors.UserError(errors.unknown("section", name, SECTIONS))
    if len(args.sections) == 1:
        return _here(args.sections[0], args)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.sections:
            record = pathlib.Path(folder, f"{name}.json")
            own = [f"--sections={name}", f"--out={record}"]
            command = [sys.executable, "-m", MODULE, *args.argv, *own]
            code, said = commands.child(command, seen=lambda x: print(x, end=""))
            if code:
                why = (said.splitlines() or [f"exit code {code}"])[-1]
                raise errors.UserError(f"section {name}: {why.removeprefix('error: ')}")
            results |= files.from_json(record.read_bytes())["results"]
    return results, {}


def _here(name: str, args: Any) -> tuple[measure.Results, measure.Tables]:
    """Results of a section with the machine that its process saw, and its tables."""
    section = SECTIONS[name]
    if common.COUNT_FLAG not in os.environ.get("XLA_FLAGS", ""):
        # Read when JAX first looks for devices.
        os.environ["XLA_FLAGS"] = common.xla_flags(section.devices)
    results, tables = section.measure(args)
    return {name: {"machine": measure.machine(), "results": results}}, tables


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
