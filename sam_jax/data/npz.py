"""Images and labels as arrays in a file of ``numpy.savez``."""

import logging
import pathlib
from collections.abc import Mapping

import numpy as np

from sam_jax import errors
from sam_jax.data import labelled, splits

_SPLIT = ("x_train", "y_train", "x_test", "y_test")
_WHOLE = ("x", "y")
_NAMES = "class_names"
_FORM = f"give {', '.join(_SPLIT)}, or {', '.join(_WHOLE)}, and {_NAMES} if you like"

_log = logging.getLogger(__name__)


def read(path: str, seed: int) -> splits.RawDataset:
    """Reads ``x_train, y_train, x_test, y_test``, or ``x, y``, and ``class_names``.

    Images are uint8, [N, H, W] or [N, H, W, C], labels integers from 0, [N] or [N, 1].
    Without ``class_names``, texts, a class is called by its label.

    Args:
        path: of the file, as Keras' ``mnist.npz``.
        seed: of the choice of test examples, if there are ``x, y``.

    Raises:
        UserError: if it is no such file, or an array has a wrong type, shape or range.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise errors.UserError(f"path={path} {what}: give a file, FILE.npz")
    with errors.translated(f"{file} cannot be read", _FORM), file.open("rb") as opened:
        check_start(opened.read(6), str(file), _FORM)
        opened.seek(0)
        stored = np.load(opened, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise errors.UserError(f"{file} is a single array: {_FORM}")
        with stored:
            keys = _SPLIT if set(_SPLIT) & set(stored) else _WHOLE
            if missing := [key for key in keys if key not in stored]:
                raise errors.UserError(
                    f"{file} has no {', '.join(missing)}, but "
                    f"{', '.join(stored) or 'nothing'}: {_FORM}"
                )
            if unused := set(stored) - {*keys, _NAMES}:
                _log.warning(f"{file}: {', '.join(sorted(unused))} is not read")
            arrays = {key: stored[key] for key in stored if key not in unused}
    if wrong := [key for key, x in arrays.items() if not isinstance(x, np.ndarray)]:
        raise errors.UserError(f"{file}: {', '.join(wrong)} is not an array: {_FORM}")
    return _dataset(arrays, str(file), seed)


def check_start(start: bytes, file: str, remedy: str) -> None:
    """Refuses what NumPy takes for a pickle, and advises to trust.

    Args:
        start: the first six bytes of the file; of an empty one NumPy says so.
        file: its name.
        remedy: what to do.
    """
    if start and not start.startswith((b"PK", b"\x93NUMPY")):
        raise errors.UserError(
            f"{file} cannot be read: it is not a file of numpy.save or numpy.savez; "
            f"{remedy}"
        )


def _dataset(
    arrays: Mapping[str, np.ndarray], file: str, seed: int
) -> splits.RawDataset:
    names = _class_names(arrays.get(_NAMES), file)
    first = "x" if "x" in arrays else "x_train"
    most = len(names) if names else np.atleast_1d(arrays[first]).shape[0]
    train = _split(arrays, first, first.replace("x", "y"), most, file)
    if first == "x":
        if len(train.images) < 2:
            raise errors.UserError(
                f"{file}: {first} has one image: give two or more, to train on and to "
                "test on"
            )
        parts = splits.divide(train.true_labels, seed)
        train, test = map(train.take, parts)
    else:
        test = _split(arrays, "x_test", "y_test", most, file)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise errors.UserError(
            f"{file}: images of x_train are {train.images.shape[1:]}, of x_test "
            f"{test.images.shape[1:]}: both must be of one shape"
        )
    if names is None:
        names = tuple(map(str, range(1 + max(train.labels.max(), test.labels.max()))))
    return splits.RawDataset(train, test, names)


def _split(
    arrays: Mapping[str, np.ndarray], x: str, y: str, most: int, file: str
) -> splits.Split:
    images, labels = arrays[x], arrays[y]
    if images.dtype != np.uint8:
        raise errors.UserError(
            f"{file}: {x} is {images.dtype}, and images must be uint8, from 0 to 255; "
            "floats in [0, 1] become so by (255 * x).round().astype('uint8')"
        )
    if images.ndim == 3:
        images = images[..., None]
    if not images.size:
        raise errors.UserError(
            f"{file}: {x} has shape {arrays[x].shape}, which is empty: give one image "
            "or more"
        )
    # With the channels first, such as [N, 3, 32, 32], it would train on nonsense.
    if images.ndim != 4 or min(images.shape[1:]) != images.shape[3]:
        raise errors.UserError(
            f"{file}: {x} has shape {arrays[x].shape}, and images must be [N, H, W] or "
            "[N, H, W, C], the channels last"
        )
    if labels.dtype.kind not in "iu" or labels.shape not in {
        (n := len(images),),
        (n, 1),
    }:
        raise errors.UserError(
            f"{file}: {y} is {labels.dtype} {labels.shape}, and labels must be one "
            f"integer for each of the {len(images)} images of {x}"
        )
    if labels.min() < 0 or labels.max() >= most:
        raise errors.UserError(
            f"{file}: {y} has labels {labels.min()} to {labels.max()}: they must be "
            f"from 0 to the number of classes - 1, which is below {most} here"
        )
    labels = labels.reshape(-1).astype(np.int32)
    return splits.Split(images, labels, labels)


def _class_names(names: np.ndarray | None, file: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    found = names.tolist() if names.ndim == 1 and names.dtype.kind == "U" else []
    found = tuple(map(labelled.class_name, found))
    if len(found) < 2:
        raise errors.UserError(
            f"{file}: {_NAMES} must be two texts or more, [classes], got "
            f"{names.dtype} {names.shape}"
        )
    labelled.check_names(found, f"{file}: {_NAMES}")
    return found
