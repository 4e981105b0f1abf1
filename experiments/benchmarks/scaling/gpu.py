"""Speed on one GPU, and its share of the peak."""

import argparse
from typing import Any

import jax

from experiments.benchmarks import measure
from experiments.benchmarks.scaling import common
from experiments.gpu import trainer
from sam_jax.train import build as build_lib
from sam_jax.train import config as config_lib

DISPATCHES = (1, 10)


def section(args: argparse.Namespace) -> tuple[common.Results, common.Tables]:
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
    dataset = common.random_images(16 * batch)
    flops, feeds = {}, {}
    for method in (config_lib.BASELINE, "sam"):
        for several in DISPATCHES:
            changes = {"model.dtype": "bfloat16", "steps_per_dispatch": several}
            config = common.make_config(model, method, batch_size=batch, **changes)
            run = common.on_one_device(config, dataset)
            flops[method] = step_flops(run)
            feeds[f"{method}/{several}"] = trainer.Feed(run, steps)
    for feed in feeds.values():
        feed()  # compiles
    times = measure.in_turns(feeds, rounds)
    records = []
    for name, of_feed in times.items():
        method, _, several = name.partition("/")
        seconds = common.median(of_feed) / steps
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
    return trainer.flops(train_step.lower(run.abstract_state(), batch))
