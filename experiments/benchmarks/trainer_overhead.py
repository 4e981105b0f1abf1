"""What the trainer adds to the bare compiled step: batches, metrics, logs, checkpoints.

    python -m experiments.benchmarks.trainer_overhead \
        --card=configs/fashion_mnist_sam.py --config.data.data_dir=FOLDER \
        --config.data.train_examples=12800 --config.epochs=3 \
        --out=experiments/benchmarks/results/trainer_overhead.json

In every round the trainer runs the card in a fresh folder, and a Python loop does the
same steps on the same batches, which lie on the device already. The trainer's time goes
from its first row in ``metrics.jsonl`` to its last, so that compilation is left out; it
evaluates at the end only, after that row. Without a card the data are the digits.
Settings of the run follow as ``--config.key=value``.
"""

import contextlib
import dataclasses
import io
import itertools
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax

from experiments import commands
from experiments.benchmarks import measure
from experiments.benchmarks.measure import Flag
from sam_jax import errors
from sam_jax.train import build, cards, loop, metrics, settings, sharding


@measure.benchmark(
    settings=True,
    card=Flag(str, "configs/digits_sam.py", "run card"),
    rounds=Flag(commands.count, 5, "runs of each"),
)
def main(args: Any) -> tuple[measure.Results, measure.Tables]:
    """Times the trainer and its bare step."""
    with tempfile.TemporaryDirectory() as folder:
        config = cards.load(args.card, *args.settings)
        config = dataclasses.replace(config, eval_every_epochs=config.epochs)
        try:
            results = compare(config, args.rounds, pathlib.Path(folder))
        except loop.Diverged as error:
            raise errors.UserError(str(error)) from error
    return results, {"": table(results)}


def compare(
    config: settings.Settings, rounds: int, folder: pathlib.Path
) -> dict[str, Any]:
    """Times trainer and bare step in turns.

    Returns:
        ``examples_per_second`` and ``seconds`` (one for every round) of both, the
        ``share`` of the bare step's speed that the trainer reaches, and the numbers of
        ``steps`` timed and of ``batch_size``.
    """
    bare, first = bare_loop(config)
    seconds: dict[str, list[float]] = {"trainer": [], "bare step": []}
    steps = 0
    for number in range(rounds):
        run = folder / f"run{number}"
        with contextlib.redirect_stdout(io.StringIO()):
            loop.train_and_evaluate(config, run)
        steps, took = timed_steps(run / metrics.METRICS_FILE, first)
        seconds["trainer"].append(took)
        seconds["bare step"].append(bare(steps))
    return {
        "batch_size": config.batch_size,
        "steps": steps,
        "seconds": seconds,
        "examples_per_second": {
            name: config.batch_size * steps / measure.median(times)
            for name, times in seconds.items()
        },
        "share": measure.ratio(seconds["bare step"], seconds["trainer"])._asdict(),
    }


def timed_steps(path: pathlib.Path, first: int) -> tuple[int, float]:
    """Number of steps and seconds from the first row of training to the last."""
    rows = [row for row in metrics.read_history(path) if row["split"] == "train"]
    assert rows[0]["step"] == first
    return rows[-1]["step"] - first, rows[-1]["wall_time"] - rows[0]["wall_time"]


def bare_loop(config: settings.Settings) -> tuple[Callable[[int], float], int]:
    """The compiled step alone, fed with the batches of the run.

    Returns:
        ``steps -> seconds``, and the step after which its batches begin: that of the
        trainer's first row. The training continues from call to call.
    """
    run = build.build(config)
    first = config.log_every_steps
    source = run.dataset.train.batches(
        batch_size=config.batch_size, seed=config.seed, start_step=first
    )
    count = run.total_steps - first
    if count < 1:
        raise errors.UserError(
            f"the run has {run.total_steps} steps and its log begins at step {first}, "
            "so that there is nothing to time: give more --config.epochs"
        )
    batches = [
        sharding.put_batch(batch, run.mesh) for batch in itertools.islice(source, count)
    ]
    state = run.init(run.seed)
    state, step_metrics = run.train_step(state, batches[0])
    jax.block_until_ready(step_metrics)

    def timed(steps: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for batch in batches[:steps]:
            state, _ = run.train_step(state, batch)
        jax.block_until_ready(state)
        return time.perf_counter() - start

    return timed, first


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    speeds = results["examples_per_second"]
    share = measure.Ratio(**results["share"])
    return measure.markdown(
        ["", "examples/s", "share of the bare step"],
        [
            ["bare step", f"{speeds['bare step']:.0f}", "1"],
            ["trainer", f"{speeds['trainer']:.0f}", str(share)],
        ],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
