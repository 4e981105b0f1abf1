"""Data sets: images in memory, batches as a function of (seed, step), augmentation.

``load`` is the way in; ``augment`` works on its batches inside the jitted step.
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
from sam_jax.data.fingerprint import fingerprint
from sam_jax.data.importance import Importance
from sam_jax.data.loading import Dataset, load
from sam_jax.data.noise import symmetric_noise
from sam_jax.data.splits import Split

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
    "augment",
    "fingerprint",
    "load",
    "names",
    "of_arrays",
    "symmetric_noise",
]
