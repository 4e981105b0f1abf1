"""Whether two hosts have read the same data."""

import hashlib

import numpy as np

from sam_jax.data import batches
from sam_jax.data.loading import Dataset


def fingerprint(dataset: Dataset) -> dict[str, str]:
    """What differs if two data sets do.

    Args:
        dataset: with its sources.

    Returns:
        Split and part -> number of examples, or a digest: of images and labels in
        memory, and of a pass of draws from them.

    Example:
        >>> from sam_jax import data
        >>> found = fingerprint(data.load("digits", validation=0.1))
        >>> found["train examples"], found["train images"]
        ('1167', 'fa5bac718c5f')
    """
    found = {}
    for name in ("train", "validation", "test"):
        source = getattr(dataset, name)
        if source is None:
            continue
        found[f"{name} examples"] = str(source.num_examples)
        if isinstance(source, batches.IndexedSource):
            split = source.split
            found[f"{name} images"] = _digest(split.images)
            found[f"{name} labels"] = _digest(split.labels, split.true_labels)
            draw = next(source.draws(batch_size=source.num_examples, seed=0))
            found[f"{name} draws"] = _digest(draw.indices, draw.weights)
    return found


def _digest(*arrays: np.ndarray) -> str:
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).data)
    return whole.hexdigest()[:12]
