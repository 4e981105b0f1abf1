"""The predictions of a run for image files, as a table."""

import csv
import dataclasses
import io
import logging
import os
import pathlib
from collections.abc import Iterable, Sequence
from concurrent import futures

import numpy as np

from sam_jax import errors, storage
from sam_jax.data import folder, pictures
from sam_jax.train import files, loaded

_Path = str | os.PathLike[str]

_log = logging.getLogger(__name__)


def predict_to_csv(
    run: loaded.LoadedRun,
    paths: Iterable[_Path],
    out: _Path,
    batch_size: int | None = None,
) -> list[pathlib.Path]:
    """Writes a table of predictions: path, class, probability of each class.

    Args:
        run: of `load_run`.
        paths: image files, and folders of such.
        out: the file to write, as CSV in UTF-8 with one row per image; the columns of
            probabilities are called ``p_`` and the name of the class.
        batch_size: images that pass through the network together.

    Raises:
        UserError: as `image_files` and `predict_files`, or if ``out`` exists or cannot
            be written, which is known before anything is computed.
    """
    out = storage.path(out)
    files.check_new(out)
    found = image_files(paths)
    probabilities = predict_files(run, found, batch_size)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "class", *(f"p_{name}" for name in run.class_names)])
    best = probabilities.argmax(1)
    for path, label, row in zip(found, best, probabilities, strict=True):
        shares = (f"{share:.7g}" for share in row)
        table.writerow([path, run.class_names[label], *shares])
    # A path need not be text.
    files.replace(out, text.getvalue().encode(errors="surrogateescape"))
    return found


def image_files(paths: Iterable[_Path]) -> list[pathlib.Path]:
    """The files among some paths, and those with the name of an image in the folders.

    What training ignores, such as hidden files and folders, is left out of folders.

    Raises:
        UserError: for a path that is not there, or a folder without images.
    """
    found: list[pathlib.Path] = []
    for path in map(storage.path, paths):
        if path.is_dir():
            inside = sorted(
                p
                for p in path.rglob("*")
                if p.suffix.lower() in pictures.SUFFIXES
                and p.is_file()
                and not any(map(folder.is_ignored, p.relative_to(path).parts))
            )
            if not inside:
                raise errors.UserError(
                    f"folder {path} has no images ({pictures.FORMATS})"
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise errors.UserError(
                f"{path} does not exist: give image files or folders"
            )
    return found


def predict_files(
    run: loaded.LoadedRun,
    paths: Sequence[_Path],
    batch_size: int | None = None,
) -> np.ndarray:
    """Probabilities of the classes of image files.

    Threads decode the next images while the network works on those before.

    Returns:
        float32 [N, classes].
    """
    size = batch_size or run.config.eval_batch_size
    shape = run.preprocessing.image_shape
    if run.preprocessing.dtype != "uint8":
        raise errors.UserError(
            f"the run was not trained on images, but on {run.preprocessing.dtype} "
            f"inputs of shape {shape}: predict from Python, by load_run(RUN).predict"
        )
    of = run.config.data
    if run.preprocessing.name != of.name:
        _log.warning(
            f"{run.folder} was trained on {run.preprocessing.name!r}, passed from "
            f"Python: how its images were scaled is not known, these are scaled to "
            f"{shape[1]}x{shape[0]} without regard to their proportions"
        )
        of = dataclasses.replace(of, image_size=None, resize="squash", middle=1.0)
    how = pictures.How(of.image_size, of.resize, middle=of.middle)
    with futures.ThreadPoolExecutor(os.cpu_count()) as threads:

        def decoding(start: int) -> list[futures.Future[np.ndarray]]:
            chunk = paths[start : start + size]
            return [threads.submit(decode, path, shape, how) for path in chunk]

        probabilities = [np.zeros((0, run.preprocessing.num_classes), np.float32)]
        ahead = decoding(0)
        for start in range(0, len(paths), size):
            images = [future.result() for future in ahead]
            ahead = decoding(start + size)
            probabilities.append(run.predict(images, size))
    return np.concatenate(probabilities)


def decode(path: _Path, image_shape: tuple[int, ...], how: pictures.How) -> np.ndarray:
    """Reads an image as the network takes it.

    Args:
        path: of the file.
        image_shape: height, width, channels; an image of another size is scaled to it,
            and made grey or coloured.
        how: the images of the run's data were read.

    Returns:
        uint8 [height, width, channels].
    """
    height, width, channels = image_shape
    modes = {1: "L", 3: "RGB"}
    if channels not in modes:
        raise errors.UserError(
            f"the run takes images of {channels} channels, and files have 1 or 3: "
            "read them yourself, and call run.predict"
        )
    try:
        pixels = pictures.decode(os.fspath(path), how)
    except errors.UserError as error:
        what = str(error).removesuffix(pictures.REMEDY)
        raise errors.UserError(f"{what}leave it out") from error
    if pixels.shape == image_shape:
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
    image = image.convert(modes[channels])
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image_shape)
