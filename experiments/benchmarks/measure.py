"""What all benchmarks share: times in turns, ratios of them, the record of a run."""

import argparse
import os
import pathlib
import platform
import random
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import commands
from sam_jax.train import files

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")


class Ratio(NamedTuple):
    """Ratios of times that were measured in the same rounds.

    Attributes:
        median: over the rounds.
        low: smallest.
        high: largest.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The command line of a benchmark, with ``--out`` for its record.

    Args:
        doc: of the module; its first line says what is measured.

    Returns:
        The parser, to which the module adds its own flags.

    Example:
        >>> args = parser("Measures.").parse_args(["--out=a.json"])
        >>> print(args.out)
        a.json
    """
    found = commands.parser(doc)
    found.add_argument("--out", type=commands.file, help="JSON file")
    return found


def in_turns(
    contenders: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Times contenders in turns, so that what disturbs the machine disturbs all alike.

    The order within a round is drawn anew for each (always the same way), so that
    nobody always follows the same other one.

    Args:
        contenders: name -> what is timed; it returns when its work is done. Whatever
            is slow the first time (compilation) was done before.
        rounds: how often each is timed.

    Returns:
        Name -> seconds, one for every round.

    Example:
        >>> times = in_turns({"a": lambda: None, "b": lambda: None}, rounds=3)
        >>> len(times["a"]), len(times["b"])
        (3, 3)
    """
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name in order.sample(list(contenders), len(contenders)):
            start = time.perf_counter()
            contenders[name]()
            times[name].append(time.perf_counter() - start)
    return times


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Ratios of two lists of times, round by round.

    Args:
        numerator: seconds, one for every round.
        denominator: likewise, of the same rounds.

    Returns:
        Median and range of the ratios.

    Example:
        >>> print(ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]))
        2.000 [2.000, 3.000]
    """
    ratios = np.divide(numerator, denominator)
    return Ratio(float(np.median(ratios)), float(ratios.min()), float(ratios.max()))


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table.

    Example:
        >>> print(markdown(["step", "FLOPs"], [["sam", 2.0]]))
        | step | FLOPs |
        |---|---|
        | sam | 2.0 |
    """
    lines = [columns, *rows]
    cells = ["| " + " | ".join(map(str, line)) + " |" for line in lines]
    return "\n".join([cells[0], "|---" * len(columns) + "|", *cells[1:]])


def write(
    path: pathlib.Path | None, module: str, argv: Sequence[str], results: Any
) -> None:
    """Writes results with what is needed to repeat them, as JSON.

    Args:
        path: of the file; None writes nothing.
        module: that was run, such as ``experiments.benchmarks.step_cost``.
        argv: its arguments.
        results: what it measured.
    """
    if path is None:
        return
    record = {
        "command": shlex.join(["python", "-m", module, *argv]),
        "machine": machine(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "results": results,
    }
    files.replace(path, files.to_json(record, indent=2) + "\n")


def machine() -> dict[str, Any]:
    """What the numbers were measured on, and whether others used it meanwhile."""
    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()
