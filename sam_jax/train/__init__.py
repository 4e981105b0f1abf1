"""The trainer: a run in `loop.py`, its step in `step.py`, one file per part.

`train_and_evaluate` trains, `load_run` reads what a run has trained::

    run = sam_jax.train.load_run("runs/digits")
    probabilities = run.predict(images)

A run from `settings` needs flax besides JAX and Optax; run cards and the command line
need what the extra ``train`` installs.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam_jax.train.loaded import LoadedRun, load_run
    from sam_jax.train.loop import train_and_evaluate

__all__ = ["LoadedRun", "load_run", "train_and_evaluate"]


# They import JAX, which takes a second: not before one is used.
def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "loop" if name == "train_and_evaluate" else "loaded"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
