"""``configs/cifar10_sam.py`` for real: as many whole epochs as six minutes allow.

Parts: ``<method>-<seed>``. All 50,000 images are trained on, the test set is evaluated
(as for the published numbers: ResNet-18, 200 epochs, error 5.2 % with SGD, 4.3 % with
SAM; bayesian-sam). The schedule is scaled to the epochs that fit; a row says how many
of the 200 they are.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator
from typing import Any

import jax

from experiments.benchmarks import programs
from experiments.gpu import images
from experiments.gpu.tasks import BFLOAT16, TINY, Context, Row, Task
from sam_jax.train import build, dispatch, evaluation, settings

EPOCHS = 200  # of the card
SECONDS = 340.0  # for all
EVALUATIONS, EVALUATION = 20, 15.0  # how many, and seconds of all of them


def tasks(context: Context) -> Iterator[Task]:
    """One training."""
    method, _, seed = context.part.partition("-")
    yield Task(
        "train",
        0 if context.tiny else SECONDS - 30,
        functools.partial(training, context, method, int(seed)),
    )


def training(context: Context, method: str, seed: int) -> Row:
    """Trains from the first step to the last of a scaled schedule.

    Returns:
        Epochs, error, seconds and the test accuracy after some of the epochs.
    """
    begun = time.monotonic()
    dataset = images.load(context.data, tiny=context.tiny, needed=True)
    chosen = programs.settings(
        method,
        seed=seed,
        epochs=EPOCHS,
        batch_size=64 if context.tiny else 128,
        schedule={"name": "cosine"},
        data=programs.AUGMENTED,
        model=TINY if context.tiny else BFLOAT16,
    )
    steps = dataset.train.steps_per_epoch(chosen.batch_size)
    chosen = dataclasses.replace(chosen, steps_per_dispatch=steps)
    rehearsal, compiled = epoch_seconds(chosen, dataset)
    seconds = min(SECONDS - (time.monotonic() - begun), context.left())
    # The real run is another program, as its schedule has another length, and begins
    # with an epoch that does not count.
    fitting = int((seconds - compiled - EVALUATION) / (1.03 * rehearsal)) - 1
    epochs = 2 if context.tiny else max(1, min(EPOCHS, fitting))
    chosen = dataclasses.replace(chosen, epochs=epochs)
    found = {
        "method": method,
        "seed": seed,
        "epochs": epochs,
        "of_epochs": EPOCHS,
        "batch_size": chosen.batch_size,
        "images": dataset.name,
        "rehearsed_epoch_seconds": rehearsal,
    }
    row: Row = found
    for curve in curves(programs.run(chosen, dataset)):
        row = {**found, **curve}
        context.save(row)
    return row


def epoch_seconds(chosen: settings.Settings, dataset: Any) -> tuple[float, float]:
    """Seconds of an epoch, and of what comes before the first."""
    start = time.monotonic()
    feed = programs.Feed(programs.run(chosen, dataset), chosen.steps_per_dispatch)
    feed()
    first = time.monotonic()
    feed()
    seconds = time.monotonic() - first
    return seconds, first - start - seconds


def curves(run: build.Run, evaluations: int = EVALUATIONS) -> Iterator[dict[str, Any]]:
    """Trains; gives what is known after each evaluation, all of it.

    Yields:
        ``train_seconds`` (of the steps alone: all is compiled in an epoch before them),
        ``test_error_percent`` and the ``curve`` of epochs and accuracies.
    """
    advance = dispatch.from_step(run, 0)
    jax.block_until_ready(advance(run.init(run.seed), run.steps_per_epoch))
    state, curve, seconds = run.init(run.seed), [], 0.0
    epochs = run.config.epochs
    every = max(1, epochs // evaluations)
    for epoch in range(1, epochs + 1):
        start, done = time.monotonic(), 0
        while done < run.steps_per_epoch:
            updates = advance(state, run.steps_per_epoch - done)
            state, done = updates.state, done + updates.steps
        jax.block_until_ready(state)
        seconds += time.monotonic() - start
        if epoch % every and epoch != epochs:
            continue
        test = evaluation.evaluate(run, state)["test"]
        curve.append([epoch, test["accuracy"]])
        yield {
            "train_seconds": seconds,
            "test_error_percent": 100 * (1 - test["accuracy"]),
            "test_loss": test["loss"],
            "curve": curve,
        }
