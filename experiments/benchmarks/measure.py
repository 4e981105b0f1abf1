"""What all benchmarks share: a command line, times in turns, a record of the run.

A benchmark is a function from its flags to results and tables::

    @measure.benchmark(rounds=measure.Flag(commands.count, 5, "times for each"))
    def main(args):
        times = measure.in_turns(contenders, args.rounds)
        return {"seconds": times}, {"": measure.markdown(...)}
"""

import argparse
import functools
import importlib.util
import os
import pathlib
import platform
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from experiments import commands
from sam_jax.train import files

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = (
    *("jax", "jaxlib", "jax-cuda13-plugin", "flax", "optax", "numpy"),
    *("orbax-checkpoint", "torch"),
)
CALM = 0.1  # more spread than this is of a machine with other work

Results = Any  # plain JSON
Tables = Mapping[str, str]  # title -> Markdown


class Missing(Exception):
    """Something that a measurement needs is not here; its message is one line."""


def need(package: str, install: str = "-r requirements-peers.txt") -> None:
    """Says that a package is missing, and what installs it.

    Example:
        >>> need("no_such_package", "no-such-package")
        Traceback (most recent call last):
        experiments.benchmarks.measure.Missing: no_such_package is not installed: \
pip install no-such-package
    """
    try:
        found = importlib.util.find_spec(package)
    except ValueError:  # blocked in sys.modules
        found = None
    if found is None:
        raise Missing(f"{package} is not installed: pip install {install}")


# ── Command ──────────────────────────────────────────────────────────────────────────


class Flag(NamedTuple):
    """A flag of a benchmark: type, default, and what it is."""

    type: Callable[[str], Any]
    default: Any
    help: str = ""


def benchmark(
    *, settings: bool = False, **flags: Flag
) -> Callable[
    [Callable[[argparse.Namespace], tuple[Results, Tables]]],
    Callable[[Sequence[str]], int],
]:
    """Decorates what measures: it becomes the main function of a command.

    The command prints the tables and writes the results where ``--out`` says, with the
    machine, the versions and how far the times spread. Of a busy machine they do not
    take the place of good ones.

    Args:
        settings: whether ``--config.key=value`` may follow, as ``args.settings``.
        **flags: of the command line; ``--out`` is always one.

    Returns:
        A decorator of ``args -> results, tables``.
    """

    def decorate(
        measured: Callable[[argparse.Namespace], tuple[Results, Tables]],
    ) -> Callable[[Sequence[str]], int]:
        module = sys.modules[measured.__module__]
        spec = module.__spec__
        name = spec.name.removesuffix(".__main__") if spec else module.__name__

        @commands.ends
        @functools.wraps(measured)
        def main(argv: Sequence[str]) -> int:
            parser = commands.parser(module.__doc__, prog=f"python -m {name}")
            parser.add_argument("--out", type=commands.file, help="JSON file")
            for flag, (kind, default, text) in flags.items():
                parser.add_argument(
                    f"--{flag}", type=kind, default=default, help=text or " "
                )
            if settings:
                args, args.settings = commands.with_settings(parser, argv)
            else:
                args = parser.parse_args(argv)
            args.argv = argv
            results, tables = measured(args)
            for title, table in tables.items():
                print(f"\n{title}\n\n{table}" if title else table, flush=True)
            return write(args.out, name, argv, results)

        return main

    return decorate


def write(
    path: pathlib.Path | None, module: str, argv: Sequence[str], results: Results
) -> int:
    """Writes results with what is needed to repeat them, as JSON.

    Args:
        path: of the file; None writes nothing.
        module: that was run, such as ``experiments.benchmarks.step_cost``.
        argv: its arguments.
        results: what it measured.

    Returns:
        The exit code: 1 where results of a busy machine would have taken the place of
        good ones; they are then beside these, in ``NAME.busy.json``.
    """
    spread, code = spread_of(results), 0
    if spread > CALM:
        busy = f"the times spread by {100 * spread:.0f} %: the machine is busy"
        if path is not None and path.exists() and _calm(path):
            path, kept, code = path.with_suffix(".busy.json"), path, 1
            busy += f"; {kept} stays as it is, see {path}"
        print(f"warning: {busy}", file=sys.stderr)
    if path is not None:
        record = {
            "command": shlex.join(["python", "-m", module, *argv]),
            "machine": machine(),
            "versions": versions(),
            "spread": spread,
            "results": results,
        }
        files.replace(path, files.to_lines(record) + "\n")
    return code


def _calm(path: pathlib.Path) -> bool:
    """Whether earlier results are of a machine without other work."""
    try:
        found = files.from_json(path.read_bytes())
    except ValueError:
        return False
    return isinstance(found, dict) and spread_of(found.get("results")) <= CALM


# ── Times ────────────────────────────────────────────────────────────────────────────


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


def in_turns(
    contenders: Mapping[str, Callable[[], object]], rounds: int, seed: object = 0
) -> dict[str, list[float]]:
    """Times contenders in turns, so that what disturbs the machine disturbs all alike.

    The order within a round is drawn anew for each (always the same way), so that
    nobody always follows the same other one.

    Args:
        contenders: name -> what is timed; it returns when its work is done. Whatever
            is slow the first time (compilation) was done before.
        rounds: how often each is timed.
        seed: of the order.

    Returns:
        Name -> seconds, one for every round.

    Example:
        >>> times = in_turns({"a": lambda: None, "b": lambda: None}, rounds=3)
        >>> len(times["a"]), len(times["b"])
        (3, 3)
    """
    order = random.Random(str(seed))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name in order.sample(list(contenders), len(contenders)):
            start = time.perf_counter()
            contenders[name]()
            times[name].append(time.perf_counter() - start)
    return times


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Ratios of two lists of times, round by round.

    Example:
        >>> print(ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]))
        2.000 [2.000, 3.000]
    """
    ratios = np.divide(numerator, denominator)
    return Ratio(float(np.median(ratios)), float(ratios.min()), float(ratios.max()))


def median(values: Iterable[float]) -> float:
    """The median as a plain number."""
    return float(np.median(list(values)))


def spread_of(results: Results) -> float:
    """How far repeated times (or speeds) lie apart, which tells of other work.

    Args:
        results: nested; every list of three numbers or more in it is of one thing.

    Returns:
        The middle half of such a list over its median: the median over all lists, 0
        without any.

    Example:
        >>> spread_of({"a": {"seconds": [1.0, 1.1, 1.2]}, "flops": 3.0})
        0.0909...
    """
    found = [
        float(np.subtract(*np.percentile(x, [75, 25])) / abs(np.median(x)))
        for x in _lists(results)
        if np.median(x)
    ]
    return median(found) if found else 0.0


def _lists(tree: Results) -> Iterator[list[float]]:
    if isinstance(tree, list) and len(tree) > 2 and isinstance(tree[0], float):
        yield tree
    elif isinstance(tree, list | Mapping):
        for branch in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _lists(branch)


# ── Words ────────────────────────────────────────────────────────────────────────────


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


def versions() -> dict[str, str | None]:
    """Those of the packages that matter, None of what is not installed."""
    found: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What the numbers were measured on, and whether others used it meanwhile."""
    import jax

    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "python": platform.python_version(),
        "system": platform.platform(),
        "commit": output("git", "-C", str(ROOT), "rev-parse", "HEAD"),
    }


def output(*command: str) -> str | None:
    """What a command prints; None if there is no such command or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()
