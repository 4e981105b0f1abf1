"""Tiny ImageNet in its published folder, ``tiny-imagenet-200``."""

import pathlib

from sam_jax import errors
from sam_jax.data import folder, labelled

_ANNOTATIONS = "val_annotations.txt"


def listing(path: str) -> labelled.Listing:
    """Lists ``train/<wnid>/images/*`` and ``val/images/*``, the test set.

    Labels are numbers of the sorted WordNet ids. The published ``test`` has no labels
    and is not read. Some of the folders in ``train`` will do; images of other classes
    are left out.
    """
    root = pathlib.Path(path).expanduser()
    advice = "give the folder that tiny-imagenet-200.zip makes, as it is published"
    if not (root / "train").is_dir():
        raise errors.UserError(f"path={path} has no folder train in it: {advice}")
    train = folder.of_classes(str(root / "train"), [], inside="images")
    known = set(train.classes)
    annotations = root / "val" / _ANNOTATIONS
    with errors.translated(f"{annotations} cannot be read", advice):
        rows = [line.split("\t") for line in annotations.read_text().splitlines()]
    files, classes = [], []
    for number, row in enumerate(rows, start=1):
        where = f"{annotations}, line {number}"
        if len(row) < 2:
            raise errors.UserError(
                f"{where}: {errors.one_line(row, 80)} names no image and class: "
                f"{advice}"
            )
        if row[1] not in known:
            continue
        file = root / "val" / "images" / row[0]
        if not file.is_file():
            raise errors.UserError(f"{where}: there is no file {file}: {advice}")
        files.append(str(file))
        classes.append(row[1])
    if not files:
        raise errors.UserError(f"{annotations} names no image of train's: {advice}")
    return labelled.Listing(train, labelled.Labelled(files, classes), str(root))
