"""The embedded data set: handwritten digits that come with scikit-learn."""

import numpy as np

from sam_jax import errors
from sam_jax.data import splits

_TEST_EXAMPLES = 500


def read(
    name: str, *, data_dir: str | None, manual_dir: str | None, download: bool
) -> splits.RawDataset:
    """Reads the 1797 images, 8 x 8, of the optical recognition of digits data set.

    The pixels, 0 to 16 in the source, are scaled to 0 to 255. The 500 test examples
    are a fixed stratified choice, the same for every seed.

    Args:
        name: of the data set, as all readers take.
        data_dir: unused, nothing is stored.
        manual_dir: unused, there is no archive.
        download: unused, the data are part of scikit-learn.

    Returns:
        1297 training and 500 test examples of 10 classes.

    Raises:
        UserError: scikit-learn is not installed.

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
    everything = splits.Split(images, labels, labels)
    in_test = np.zeros(len(labels), bool)
    # RandomState, because NumPy promises that its numbers never change.
    shuffled = np.random.RandomState(0).permutation(len(labels))
    in_test[splits.stratified(shuffled, labels)[:_TEST_EXAMPLES]] = True
    return splits.RawDataset(
        train=everything.take(np.flatnonzero(~in_test)),
        test=everything.take(np.flatnonzero(in_test)),
        class_names=tuple("0123456789"),
    )
