"""Tables of image files and their classes, as CSV."""

import csv
import io
import logging
import os
import pathlib
from collections.abc import Sequence

from sam_jax import errors
from sam_jax.data import labelled

_log = logging.getLogger(__name__)

_COLUMNS = ("path", "label")
_FORM = "a header with path and label, separated by commas, in UTF-8"


def listing(path: str) -> labelled.Listing:
    """Lists the images of a table, or ``train.csv`` and ``test.csv``.

    The columns ``path``, of a file relative to the folder of the table, and ``label``,
    the name of its class, are read, others are not. The test set may also be called
    ``val.csv`` or ``validation.csv``.
    """
    root = pathlib.Path(path).expanduser()
    if not root.exists():
        raise errors.UserError(f"path={path} does not exist: give a table, FILE.csv")
    if not root.is_dir():
        return labelled.Listing(_labelled(root), None, str(root))
    tables = {file.stem.casefold(): file for file in root.glob("*.csv")}
    if tables.keys().isdisjoint(("train", *labelled.TESTS)):
        raise errors.UserError(
            f"path={path} has no train.csv: give a folder with train.csv and test.csv, "
            "or one table, FILE.csv"
        )
    test = _labelled(tables[labelled.test_name(tables, str(root))])
    train = _labelled(tables["train"])
    if both := set(_normal(train.files)) & set(_normal(test.files)):
        _log.warning(
            f"{root}: {len(both)} files are to train on and to test on ({min(both)}): "
            "the test will look better than it is"
        )
    return labelled.Listing(train, test, str(root))


def _normal(files: Sequence[str]) -> list[str]:
    return list(map(os.path.normpath, files))


def _labelled(table: pathlib.Path) -> labelled.Labelled:
    with errors.translated(f"{table} cannot be read", f"give {_FORM}"):
        text = io.StringIO(table.read_text("utf-8-sig"), newline="")
        reader = csv.DictReader(text, skipinitialspace=True, strict=True)
        rows = [(reader.line_num, row) for row in reader]
    columns = list(reader.fieldnames or ())
    if not set(_COLUMNS) <= set(columns):
        raise errors.UserError(
            f"{table} has columns {errors.one_line(columns)}: give {_FORM}"
        )
    if twice := [name for name in _COLUMNS if columns.count(name) > 1]:
        raise errors.UserError(
            f"{table} has several columns {twice[0]}: rename all but the one to read"
        )
    if not rows:
        raise errors.UserError(f"{table} has no rows: give {_FORM}, and a row an image")
    files, classes, labels = [], [], {}
    for line, row in rows:
        where = f"{table}, line {line}"
        name, label = row["path"], row["label"]
        if not name or not (label or "").strip():
            raise errors.UserError(
                f"{where}: a {'label' if name else 'path'} is missing: every image "
                "needs a path and a label"
            )
        file = os.path.join(table.parent, name)
        if not os.path.isfile(file):
            raise errors.UserError(
                f"{where}: there is no file {file}: paths are relative to the table"
            )
        label = labelled.class_name(label.strip())
        if (first := labels.setdefault(os.path.normpath(file), label)) != label:
            raise errors.UserError(
                f"{where}: {name} has labels {first!r} and {label!r}: give it one"
            )
        files.append(file)
        classes.append(label)
    if twice := len(files) - len(labels):
        _log.warning(
            f"{table} names {twice} files more than once: copies may be in what is "
            "trained on and in what is held out"
        )
    return labelled.Labelled(files, classes)
