"""The trainer in one process with several devices, and in as many processes."""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks import measure, trainer_overhead
from experiments.benchmarks.scaling import common
from sam_jax.train import metrics

WAYS_COMPARED = (common.BASELINE, "SAM, m = batch", common.DEVICE_GROUPS)
TRAINER_SECONDS = 600  # after which a run of the trainer has failed
CARD = measure.ROOT / "configs" / "digits_sam.py"
LOG_EVERY = 5  # steps; the first ones are not timed


def section(args: Any) -> tuple[measure.Results, measure.Tables]:
    """The trainer in one process with several devices, and in as many processes."""
    results = compare(
        args.model, args.batch, args.processes, args.process_epochs, args.process_rounds
    )
    one, several = f"1 x {args.processes}", f"{args.processes} x 1"
    rows = [
        [
            label,
            *(
                f"{measure.median(of['examples_per_second'][n]):.0f}"
                for n in ("1", "n")
            ),
            measure.Ratio(**of["ratio"]),
        ]
        for label, of in results.items()
    ]
    columns = "step", f"examples/s, {one}", f"examples/s, {several}", "ratio"
    title = f"Processes x devices of each, {args.model}, batch {args.batch}"
    return results, {title: measure.markdown(columns, rows)}


def compare(
    model: str, batch: int, number: int, epochs: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Times the trainer in one process and in several.

    Returns:
        Way -> ``examples_per_second`` of the trainer in ``1`` and in ``n`` processes,
        one for each round, from its first row of metrics to its last, and their
        ``ratio``, n over 1.
    """
    name, _, width = model.partition(":")
    results = {}
    with tempfile.TemporaryDirectory() as cache:
        for label in WAYS_COMPARED:
            way = common.WAYS[label]
            flags = [
                f"--config={CARD}:{way.method}",
                f"--config.method_group_size={way.group(batch, number)}",
                f"--config.model.name={name}",
                *([f"--config.model.width={width}"] if width else []),
                f"--config.batch_size={batch}",
                f"--config.epochs={epochs}",
                f"--config.eval_every_epochs={epochs}",
                f"--config.checkpoint.every_epochs={epochs}",
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


def train(number: int, devices: int, flags: Sequence[str]) -> float:
    """Runs the trainer on this machine."""
    environment = os.environ | {
        "XLA_FLAGS": common.xla_flags(devices),
        "JAX_PLATFORMS": "cpu",
    }
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
