"""Folders of images, a folder for each class."""

import logging
import os
import pathlib
from collections.abc import Iterator

from sam_jax import errors
from sam_jax.data import labelled, pictures

# What systems put into folders.
_IGNORED = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")

_log = logging.getLogger(__name__)


def listing(path: str) -> labelled.Listing:
    """Lists ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*``.

    The test set may also be called ``val`` or ``validation``. Names that begin with a
    point are left out, and files of other formats with a warning.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise errors.UserError(f"path={path} {what}: give a folder of images")
    folders = {entry.name.casefold(): entry.path for entry in _classes(str(root))}
    left_out: list[str] = []
    if folders.keys().isdisjoint(("train", *labelled.TESTS)):
        train, test = of_classes(str(root), left_out), None
    else:
        second = labelled.test_name(folders, str(root))
        train, test = (of_classes(folders[n], left_out) for n in ("train", second))
        others = folders.keys() - {"train", *labelled.TESTS}
        left_out += [folders[name] for name in sorted(others)]
    if left_out:
        _log.warning(
            f"{len(left_out)} names in {root} are left out, as no {pictures.FORMATS} "
            f"files of a class: {left_out[0]}" + ", ..." * (len(left_out) > 1)
        )
    return labelled.Listing(train, test, str(root))


def of_classes(root: str, left_out: list[str], inside: str = "") -> labelled.Labelled:
    """The images of all classes of a split.

    Args:
        root: folder of the split.
        left_out: gets the paths of what is not an image.
        inside: folder in that of each class where its images are.
    """
    files, classes = [], []
    spelled: dict[str, str] = {}
    for folder in _classes(root):
        name = labelled.class_name(folder.name)
        if name in spelled:
            raise errors.UserError(
                f"{root} has folders {spelled[name]!a} and {folder.name!a}, "
                "one name in two forms of Unicode: give each class one folder"
            )
        spelled[name] = folder.name
        found = []
        for entry in _entries(
            os.path.join(folder.path, inside) if inside else folder.path
        ):
            is_image = entry.is_file() and entry.name.lower().endswith(
                pictures.SUFFIXES
            )
            (found if is_image else left_out).append(entry.path)
        if not found:
            raise errors.UserError(
                f"{folder.path} has no image ({pictures.FORMATS}) in it: a class needs "
                "some, in the folder itself"
            )
        files += found
        classes += [name] * len(found)
    return labelled.Labelled(files, classes)


def _classes(root: str) -> list[os.DirEntry[str]]:
    """The folders in a folder, which must be all there is."""
    folders = []
    for entry in _entries(root):
        if entry.is_dir():
            folders.append(entry)
        elif entry.name.lower().endswith(pictures.SUFFIXES):
            raise errors.UserError(
                f"{entry.path} has no class: images belong in a folder for each class, "
                f"{root}/CLASS/{entry.name}"
            )
    if not folders:
        raise errors.UserError(
            f"{root} has no images: they belong in a folder for each class, as in "
            f"{root}/CLASS/1.png"
        )
    return folders


def _entries(path: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, sorted by name."""
    try:
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise errors.UserError(
            f"{path} cannot be read ({error.strerror}): fix its permissions"
        ) from error
    return (entry for entry in found if not is_ignored(entry.name))


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or put there by a system."""
    return name.startswith(".") or name.lower() in _IGNORED
