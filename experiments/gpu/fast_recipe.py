"""The fast recipe for CIFAR-10, with SGD and with SAM: which reaches 96 % first?

Parts: a seed each; a row for each variant of ``configs/cifar10_fast.py``: SGD, SGD with
twice the epochs, SAM, and SAM with half the epochs, which takes about the time of SGD.
Time is that of the training steps; compilation and evaluation are not counted.
"""

import functools
import runpy
from collections.abc import Iterator
from typing import Any

from experiments.benchmarks import programs
from experiments.gpu import cifar10, images
from experiments.gpu.tasks import BFLOAT16, Context, Row, Task
from sam_jax.train import config, settings

TARGET = 0.96
CARD = config.CARDS / "cifar10_fast.py"
# Name -> method, and its share of the card's epochs.
VARIANTS = {
    "sgd": (programs.SGD, 1.0),
    "sgd, twice the epochs": (programs.SGD, 2.0),
    "sam": ("sam", 1.0),
    "sam, half the epochs": ("sam", 0.5),
}


def tasks(context: Context) -> Iterator[Task]:
    """A task for each variant."""
    for name, (method, share) in VARIANTS.items():
        cost = 0 if context.tiny else 40 + 37 * share * (1 if method == "sgd" else 2)
        yield Task(name, cost, functools.partial(result, context, method, share))


def result(context: Context, method: str, share: float) -> Row:
    """Trains once.

    Returns:
        Accuracy, seconds, whether 96 % were reached.
    """
    dataset = images.load(context.data, tiny=context.tiny, needed=True)
    chosen = variant(method, share, int(context.part.removeprefix("seed")), context)
    run = programs.run(chosen, dataset)
    *_, row = cifar10.curves(run, evaluations=1)
    accuracy = row["curve"][-1][1]
    return {
        "seed": chosen.seed,
        "images": dataset.name,
        "settings": settings.to_json(chosen),
        **row,
        "accuracy": accuracy,
        "reached": accuracy >= TARGET,
    }


def variant(
    method: str, share: float, seed: int, context: Context
) -> settings.Settings:
    """The card's settings in bfloat16, an epoch in a dispatch."""
    card = runpy.run_path(str(CARD))
    values: dict[str, Any] = card["SETTINGS"]
    model: dict[str, Any] = {**values["model"], **BFLOAT16}
    epochs, batch = round(share * values["epochs"]), values["batch_size"]
    if context.tiny:
        epochs, batch = round(2 * share), 16
        model["options"] = {"widths": (4, 6, 8)}
    return programs.settings(
        method,
        **{
            **values,
            "model": model,
            "seed": seed,
            "epochs": epochs,
            "batch_size": batch,
            "schedule": values["schedule"] | {"warmup_epochs": card["WARMUP"] * epochs},
            "steps_per_dispatch": max(50_000 // batch, 2) if not context.tiny else 4,
        },
    )
