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
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments import commands
from experiments.benchmarks import measure
from experiments.benchmarks.scaling import (
    common,
    device_groups,
    devices,
    gpu,
    memory,
    processes,
)
from sam_jax import errors

MODULE = "experiments.benchmarks.scaling"


class Section(NamedTuple):
    """A part of the benchmark.

    Attributes:
        measure: from the parsed arguments to results and tables.
        devices: fake ones that it needs.
    """

    measure: Callable[[argparse.Namespace], tuple[common.Results, common.Tables]]
    devices: int


# More devices are more threads, also for a step on one of them.
SECTIONS = {
    "devices": Section(devices.section, 8),
    "memory": Section(memory.section, 8),
    "processes": Section(processes.section, 1),
    "groups": Section(device_groups.section, 1),
    "gpu": Section(gpu.section, 1),
}


@commands.ends
def main(argv: Sequence[str]) -> int:
    """Measures as the command line says, prints the tables, writes the record.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code.
    """
    parser = measure.parser(__doc__)
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument(
        "--rounds", type=commands.count, default=5, help="times for each"
    )
    parser.add_argument("--model", default="resnet_digits", help="devices, processes")
    parser.add_argument(
        "--batch", type=commands.count, default=64, help="of strong scaling"
    )
    parser.add_argument(
        "--per_device", type=commands.count, default=8, help="of weak scaling"
    )
    parser.add_argument(
        "--steps", type=commands.count, default=5, help="devices: in one time"
    )
    parser.add_argument("--memory_models", default="resnet18:16,wrn28_10")
    parser.add_argument("--processes", type=commands.count, default=2)
    parser.add_argument("--process_epochs", type=commands.count, default=4)
    parser.add_argument("--process_rounds", type=commands.count, default=3)
    parser.add_argument("--groups_model", default="resnet18:16")
    parser.add_argument("--groups_batch", type=commands.count, default=128)
    parser.add_argument("--groups_size", type=commands.count, default=32, help="m")
    parser.add_argument("--gpu_models", default="resnet18,wrn28_10,resnet50")
    parser.add_argument("--gpu_batch", type=commands.count, default=256)
    parser.add_argument(
        "--gpu_calls", type=commands.count, default=50, help="steps in one time"
    )
    parser.add_argument(
        "--peak_tflops", type=commands.positive, help="of the GPU, in bfloat16"
    )
    args = parser.parse_args(argv)
    results = run_sections(args, argv)
    measure.write(args.out, MODULE, argv, results)
    return 0


def run_sections(
    args: argparse.Namespace, argv: Sequence[str]
) -> dict[str, common.Results]:
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


def run_section(name: str, args: argparse.Namespace) -> common.Results:
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
    if common.COUNT_FLAG not in os.environ.get("XLA_FLAGS", ""):
        # Read when JAX first looks for devices.
        os.environ["XLA_FLAGS"] = common.xla_flags(section.devices)
    results, tables = section.measure(args)
    for title, table in tables.items():
        print(f"\n{title}\n\n{table}", flush=True)
    return {"machine": measure.machine(), "results": results}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
