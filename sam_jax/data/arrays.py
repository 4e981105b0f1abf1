"""A data set from arrays that are in memory already."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sam_jax import errors
from sam_jax.data import batches, labelled, loading, splits

# Inputs [N, ...] and labels [N], whole numbers from 0.
Arrays = tuple[np.ndarray, np.ndarray]


def of_arrays(
    train: Arrays,
    test: Arrays,
    *,
    validation: Arrays | None = None,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
) -> loading.Dataset:
    """Makes a data set of arrays.

    Images, uint8 [N, H, W, C], are augmented and normalized as others are. Any other
    inputs reach the network as they are: numbers as float32 [N, ...], such as the rows
    of a table, whole numbers as int32, such as the tokens of sequences.

    Args:
        train: inputs and labels to train on.
        test: the test set, of the same shape and kind.
        validation: a set to select by; None for none.
        class_names: of the labels; None names them by their numbers.
        name: of the data set, for the log.

    Returns:
        The data set, for ``train_and_evaluate(config, workdir, dataset=...)``.

    Raises:
        UserError: if inputs and labels do not fit together or to the other splits, or
            two classes have one name.

    Example:
        >>> rows, labels = np.zeros((6, 4)), np.array([0, 1, 2, 0, 1, 2])
        >>> table = of_arrays((rows, labels), (rows[:3], labels[:3]))
        >>> table.image_shape, table.dtype, table.num_classes
        ((4,), dtype('float32'), 3)
    """
    given = {"train": train, "test": test, "validation": validation}
    found = {
        key: _split(key, value) for key, value in given.items() if value is not None
    }
    examples = found["train"].images
    for key, split in found.items():
        if _form(split.images) != _form(examples):
            raise errors.UserError(
                f"the {key} inputs are {_kind(split.images)}, those to train on "
                f"{_kind(examples)}: give both in one form"
            )
    classes = 1 + max(int(split.labels.max(initial=0)) for split in found.values())
    names = tuple(map(str, range(classes) if class_names is None else class_names))
    labelled.check_names(names, f"data set {name!r}")
    raw = splits.RawDataset(found["train"], found["test"], names)
    splits.check_labels(raw, name)
    splits.warn_of_missing(raw.train.true_labels, raw.num_classes, name)
    mean, std = loading.computed(examples) if is_images(examples) else ((), ())
    held_out = found.get("validation")
    return loading.Dataset(
        name=name,
        class_names=names,
        image_shape=examples.shape[1:],
        mean=mean,
        std=std,
        train=batches.ArraySource(raw.train),
        validation=None if held_out is None else batches.ArraySource(held_out),
        test=batches.ArraySource(raw.test),
        dtype=examples.dtype,
    )


def is_images(inputs: np.ndarray) -> bool:
    """Whether these are pixels: uint8 [N, H, W, C]."""
    return inputs.dtype == np.uint8 and inputs.ndim == 4


def _split(which: str, given: Arrays) -> splits.Split:
    try:
        inputs, labels = map(np.asarray, given)
    except (TypeError, ValueError) as error:
        raise errors.UserError(
            f"{which} must be a pair of arrays, inputs [N, ...] and labels [N]"
        ) from error
    if labels.ndim != 1 or len(inputs) != len(labels) or labels.dtype.kind not in "iu":
        raise errors.UserError(
            f"the {which} labels must be a whole number for each of {len(inputs)} "
            f"inputs, got {_kind(labels)}"
        )
    kinds = {"f": np.float32, "i": np.int32, "u": np.int32, "b": np.float32}
    if inputs.dtype.kind not in kinds:
        raise errors.UserError(
            f"the {which} inputs must be numbers, got {_kind(inputs)}"
        )
    for what, x in (("inputs", inputs), ("labels", labels)):
        whole = x.dtype.kind in "iu" and x.size
        if whole and not -(2**31) <= x.min() <= x.max() < 2**31:
            raise errors.UserError(
                f"the {which} {what} are {x.min()} to {x.max()}: whole numbers must "
                "fit in 32 bits"
            )
    if not is_images(inputs):
        inputs = inputs.astype(kinds[inputs.dtype.kind])
    labels = labels.astype(np.int32)
    return splits.Split(inputs, labels, labels)


def _form(inputs: np.ndarray) -> tuple[Any, ...]:
    return inputs.dtype, inputs.shape[1:]


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"
