"""The predictions of a run for its test set, one by one, in ``scores.json``.

A report draws calibration, confusions and mistakes from it, without the data or JAX.
"""

import base64
import contextlib
import io
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sam_jax import errors
from sam_jax.train import files, scores

FILE = "scores.json"
FORMAT = 1  # of the file; a reader refuses later ones
_SIDE = 96  # pixels of the larger side of a picture, at most


def write(
    folder: pathlib.Path,
    found: scores.Scores,
    step: int,
    images: Any = None,
) -> None:
    """Writes ``scores.json``.

    Args:
        folder: of the run.
        found: the scores of its test set.
        step: updates that the weights have had.
        images: of the test set, for pictures of the mistakes: uint8 [N, H, W, 1 or 3];
            anything else has none.
    """
    record = found.plain()
    record["confusion"] = [
        [int(row), int(column), int(found.confusion[row, column])]
        for row, column in np.argwhere(found.confusion)
    ]
    del record["classes"]
    record["mistakes"] = [
        {**mistake, "image": _picture(images, mistake["index"])}
        for mistake in record["mistakes"]
    ]
    first = {"format": FORMAT, "step": step, "class_names": found.class_names}
    # Not `files.to_json`, which would read a class named NaN as a number.
    files.replace(folder / FILE, json.dumps(first | record) + "\n")


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """What `write` has written, the confusion as an array; None if it is not there."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found: Any = json.loads(files.read(path))
        if found["format"] > FORMAT:
            raise errors.UserError(f"{path} is of a later version of this package")
        names = found["class_names"]
        rows, columns, counts = np.array(found["confusion"], int).reshape(-1, 3).T
        confusion = np.zeros((len(names), len(names)), int)
        np.add.at(confusion, (rows, columns), counts)
        numbers = [found[key] for key in ("examples", "step", "accuracy", "ece", "nll")]
        for mistake in found["mistakes"]:
            numbers += [mistake[key] for key in ("index", "probability")]
            _ = names[mistake["label"]], names[mistake["predicted"]], mistake["image"]
        bins = np.array(found["bins"], float)
        if bins.shape[1:] == (3,) and np.isfinite(numbers).all():
            return found | {"confusion": confusion, "bins": bins}
    except errors.UserError:
        raise
    except (
        *(ArithmeticError, AttributeError, LookupError, RecursionError),
        *(TypeError, ValueError),
    ):
        pass
    raise errors.UserError(
        f"{path} is damaged: sam-jax report --evaluate makes another"
    )


def images(dataset: Any) -> Any:
    """The images of a test set in memory; None for one that gives them in turn."""
    return getattr(getattr(dataset.test, "split", None), "images", None)


def is_of(folder: pathlib.Path, last: Mapping[str, Any]) -> bool:
    """Whether the file is there, and of the last evaluation of the run."""
    with contextlib.suppress(errors.UserError):
        found = read(folder)
        return found is not None and found["step"] == last.get("step")
    return False


def _picture(images: Any, index: int) -> str | None:
    """One of some images as PNG in base64; None if they are none."""
    shape = getattr(images, "shape", ())
    if len(shape) != 4 or shape[3] not in (1, 3) or images.dtype != np.uint8:
        return None
    pixels = images[index]
    from PIL import Image

    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    if max(picture.size) > _SIDE:
        picture.thumbnail((_SIDE, _SIDE))
    written = io.BytesIO()
    picture.save(written, format="PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()
