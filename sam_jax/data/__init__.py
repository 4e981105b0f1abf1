"""Data sets: images in memory, batches as a function of (seed, step), augmentation.

``load`` and ``load_streamed`` are the ways in; ``augment`` works on batches inside the
jitted step.
Importing this package imports neither TensorFlow nor scikit-learn.
"""

from sam_jax.data import augment
from sam_jax.data.arrays import of_arrays
from sam_jax.data.batches import (
    AlternatingSource,
    ArraySource,
    Batch,
    Draw,
    IndexedSource,
    SampledSource,
    Source,
)
from sam_jax.data.catalog import CATALOG, Entry, names
from sam_jax.data.fingerprint import class_counts, fingerprint
from sam_jax.data.importance import Importance
from sam_jax.data.loading import Dataset, load
from sam_jax.data.noise import symmetric_noise
from sam_jax.data.splits import Split
from sam_jax.data.stream import StreamedSource
from sam_jax.data.streaming import load_streamed

__all__ = [
    "CATALOG",
    "AlternatingSource",
    "ArraySource",
    "Batch",
    "Dataset",
    "Draw",
    "Entry",
    "Importance",
    "IndexedSource",
    "SampledSource",
    "Source",
    "Split",
    "StreamedSource",
    "augment",
    "class_counts",
    "fingerprint",
    "load",
    "load_streamed",
    "names",
    "of_arrays",
    "symmetric_noise",
]
