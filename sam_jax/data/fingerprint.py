"""Whether two hosts have read the same data."""

import hashlib

import numpy as np

from sam_jax.data import batches, stream
from sam_jax.data.loading import Dataset


def fingerprint(dataset: Dataset) -> dict[str, str]:
    """What differs if two data sets do.

    Returns:
        Split and part -> number of examples, or a digest: of images and labels in
        memory, and of a pass of draws from them; of a stream of files, of their names
        below the folder, and of labels.

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
        elif isinstance(source, stream.StreamedSource):
            found |= {f"{name} {k}": x for k, x in source.fingerprint().items()}
    return found


def class_counts(dataset: Dataset) -> dict[str, int]:
    """How many examples of each class there are, where labels are in memory."""
    found = {}
    for name in ("train", "validation", "test"):
        source = getattr(dataset, name)
        of = source.split if isinstance(source, batches.IndexedSource) else source
        labels = getattr(of, "true_labels", None)
        if labels is not None:
            counts = np.bincount(labels, minlength=dataset.num_classes).tolist()
            words = (f"{name} class {c!r}" for c in dataset.class_names)
            found |= dict(zip(words, counts, strict=True))
    return found


def _digest(*arrays: np.ndarray) -> str:
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).data)
    return whole.hexdigest()[:12]
