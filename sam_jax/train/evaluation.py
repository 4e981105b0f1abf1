"""Loss and accuracy on every example of a split, each exactly once."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from sam_jax import errors
from sam_jax.train import scores as scores_lib
from sam_jax.train import sharding, state
from sam_jax.train.build import Run

Scores = dict[str, dict[str, float]]  # split -> {"loss": ..., "accuracy": ...}


def evaluate(
    run: Run,
    train_state: state.TrainState,
    tell: Callable[[str, scores_lib.OfEach], None] | None = None,
) -> Scores:
    """Evaluates on the validation set, if there is one, and on the test set.

    Args:
        run: the parts of the run.
        train_state: its averaged weights are evaluated, if it has any.
        tell: called with each split and the predictions for its examples, which
            otherwise stay where they are; the same for all processes.

    Returns:
        Means of the loss, the accuracy (a fraction) and the user's metrics, on the
        true labels.

    Raises:
        UserError: if a split has no example that can be read.

    Example:
        >>> from sam_jax.train import build, settings
        >>> chosen = {"data": {"name": "digits"}, "model": {"name": "mlp"}}
        >>> run = build.build(settings.read(chosen))
        >>> sorted(evaluate(run, run.init(run.seed)))
        ['test', 'validation']
    """
    params, model_state = state.evaluated(train_state, run.optimizer)
    sources = {"validation": run.dataset.validation, "test": run.dataset.test}
    there = {split: source for split, source in sources.items() if source is not None}
    # Rounded up to a multiple of the devices; what pads the last batch is masked.
    devices = run.mesh.size
    most = max(source.num_examples for source in there.values())
    batch_size = -(-min(run.config.eval_batch_size, most) // devices) * devices
    rows = sharding.local_rows(batch_size, run.mesh)
    scores = {}
    for split, source in there.items():
        found = []
        for batch in source.eval_batches(batch_size, rows):
            placed = sharding.put_batch(batch, run.mesh)
            sums, seen = run.eval_step(params, model_state, placed)
            found.append((sums, (*seen, placed["mask"])))
        sums, seen = zip(*found, strict=True)
        sums = jax.device_get(sums)
        if not sum(batch["examples"] for batch in sums):
            raise errors.UserError(
                f"none of the {source.num_examples} {split} examples of data set "
                f"{run.dataset.name!r} can be read: fix or replace them"
            )
        if tell is not None:
            whole = multihost_utils.process_allgather(seen, tiled=True)
            *joined, mask = map(np.concatenate, zip(*whole, strict=True))
            tell(split, scores_lib.OfEach(*(x[mask] for x in joined)))
        totals = {
            name: np.sum([batch[name] for batch in sums], dtype=np.float64)
            for name in {"loss": 0, "accuracy": 0} | sums[0]  # those come first
        }
        examples = totals.pop("examples")
        scores[split] = {name: float(x / examples) for name, x in totals.items()}
    return scores
