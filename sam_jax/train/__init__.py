"""The trainer: a run in `loop.py`, its step in `step.py`, one file per part."""

import importlib.util

_missing = [
    name
    for name in ("absl", "flax", "ml_collections", "orbax", "rich")
    if importlib.util.find_spec(name) is None
]
if _missing:
    raise ImportError(
        f"the trainer needs packages that are not installed ({', '.join(_missing)}): "
        'pip install "sam_jax[train]"'
    )
