"""The embedded data set: handwritten digits that come with scikit-learn."""

import re

import numpy as np

from sam_jax import errors
from sam_jax.data import splits

_TEST_EXAMPLES = 500


def read(
    name: str, *, data_dir: str | None, manual_dir: str | None, download: bool
) -> splits.RawDataset:
    """Reads the 1797 images, 8 x 8, of the optical recognition of digits data set.

    ``digits/5-9`` are those of the classes 5 to 9 alone.

    The pixels, 0 to 16 in the source, are scaled to 0 to 255. The 500 test examples
    are a fixed stratified choice, the same for every seed.

    Args:
        name: ``digits``, or ``digits/first-last``.
        data_dir: unused, nothing is stored.
        manual_dir: unused, there is no archive.
        download: unused, the data are part of scikit-learn.

    Returns:
        1297 training and 500 test examples of 10 classes, or their part.

    Raises:
        UserError: scikit-learn is not installed, or there are no such digits.

    References:
        Alpaydin, Kaynak, "Cascading Classifiers", Kybernetika 34, 1998.
    """
    del data_dir, manual_dir, download
    try:
        from sklearn import datasets
    except ImportError as error:
        raise errors.UserError(
            f"data set {name!r} needs scikit-learn: pip install scikit-learn"
        ) from error
    pixels, labels = datasets.load_digits(return_X_y=True)
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    in_test = np.zeros(len(labels), bool)
    # RandomState, because NumPy promises that its numbers never change.
    shuffled = np.random.RandomState(0).permutation(len(labels))
    in_test[splits.stratified(shuffled, labels)[:_TEST_EXAMPLES]] = True
    first, last = _range(name)
    chosen = (first <= labels) & (labels <= last)
    everything = splits.Split(images, labels - first, labels - first)
    return splits.RawDataset(
        train=everything.take(np.flatnonzero(chosen & ~in_test)),
        test=everything.take(np.flatnonzero(chosen & in_test)),
        class_names=tuple(map(str, range(first, last + 1))),
    )


def _range(name: str) -> tuple[int, int]:
    """First and last digit of ``digits/5-9``; of ``digits`` all."""
    part = name.partition("/")[2]
    found = re.fullmatch(r"(\d)-(\d)", part or "0-9")
    if found is None or found[1] >= found[2]:
        raise errors.UserError(
            f"data set {name!r}: give digits, or some of them, such as digits/5-9"
        )
    return int(found[1]), int(found[2])
