"""Image files with the names of their classes, from a folder or a table."""

import collections
import logging
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sam_jax import errors
from sam_jax.data import pictures, splits

TESTS = ("test", "val", "validation")  # names of what is tested on, best first

_log = logging.getLogger(__name__)


class Labelled(NamedTuple):
    """Files of a split.

    Attributes:
        files: their paths.
        classes: the name of the class of each, as `class_name` gives it.
    """

    files: list[str]
    classes: list[str]


class Listing(NamedTuple):
    """Files of a data set.

    Attributes:
        train: files to train on.
        test: files to test on; None takes a fifth of each class of ``train``.
        where: the folder or table, for messages and the cache.
    """

    train: Labelled
    test: Labelled | None
    where: str

    @property
    def files(self) -> list[str]:
        """Of both splits."""
        return self.train.files + (self.test.files if self.test else [])

    def labels(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Sorted names of the classes, and the number of that of each file, int32.

        Raises:
            UserError: if names of classes cannot be told apart, or a class is in one of
                the splits only.
        """
        train, test = self.train.classes, self.test.classes if self.test else []
        names = sorted(set(train))
        check_names({*names, *test}, self.where)
        if self.test is not None:
            _check_same(names, sorted(set(test)), self.where)
        number = {name: label for label, name in enumerate(names)}
        labels = np.fromiter(map(number.__getitem__, (*train, *test)), np.int32)
        return tuple(names), labels


def class_name(text: str) -> str:
    """The name of a class in Unicode's composed form, whichever a file system has."""
    if {"Cc", "Cs"} & set(map(unicodedata.category, text)):  # control, not Unicode
        raise errors.UserError(
            f"class {text!a} has characters that are not text: give it another name"
        )
    return unicodedata.normalize("NFC", text)


def test_name(there: Iterable[str], where: str) -> str:
    """Which of the names beside ``train`` is tested on; the others are reported."""
    found = [name for name in TESTS if name in there]
    if "train" not in there:
        raise errors.UserError(
            f"{where} has {' and '.join(found)} and no train: add what to train on"
        )
    if not found:
        raise errors.UserError(
            f"{where} has train and none of {', '.join(TESTS)}: add one, or give "
            "train alone as path, and it is split by the seed"
        )
    if found[1:]:
        _log.warning(
            f"{where}: the test set is {found[0]}, and {' and '.join(found[1:])} is "
            "not read; validation examples are held out of train"
        )
    return found[0]


def read(listing: Listing, how: pictures.How, seed: int) -> splits.RawDataset:
    """Reads the images."""
    names, labels = listing.labels()
    images, kept = pictures.read(listing.files, listing.where, how)
    labels = labels[kept]
    everything = splits.Split(images, labels, labels)
    if listing.test is None:
        first, second = map(everything.take, splits.divide(labels, seed))
    else:
        end = int(np.searchsorted(kept, len(listing.train.files)))
        first, second = everything.take(slice(end)), everything.take(slice(end, None))
    check_left(first.true_labels, names, listing.where)
    return splits.RawDataset(train=first, test=second, class_names=names)


def check_names(names: Iterable[str], where: str) -> None:
    """Refuses names that differ by case, spaces or the form of Unicode alone."""
    alike = collections.defaultdict(list)
    for name in sorted(names):
        alike[" ".join(unicodedata.normalize("NFKC", name).casefold().split())] += [
            name
        ]
    for same in alike.values():
        if len(same) > 1:
            raise errors.UserError(
                f"{where} has classes {' and '.join(map(repr, same))}, one name "
                "except for case or spaces: give each class one name"
            )


def _check_same(train: list[str], test: list[str], where: str) -> None:
    for one, other, without, within in (
        (test, train, "train", "test"),
        (train, test, "test", "train"),
    ):
        if missing := [name for name in one if name not in set(other)]:
            listed = ", ".join(map(repr, missing[:5])) + ", ..." * (len(missing) > 5)
            raise errors.UserError(
                f"{where} has {len(missing)} of its classes in {within} and not in "
                f"{without} ({listed}): both need images of every class; or give all "
                "without a test set, and a fifth of each class is taken for it"
            )


def check_left(labels: np.ndarray, names: Iterable[str], where: str) -> None:
    """Refuses labels to train on that lack a class."""
    there = set(labels.tolist())
    for label, name in enumerate(names):
        if label not in there:
            raise errors.UserError(
                f"{where} has no image of class {name!r} to train on that can be read: "
                "add some, or remove the class"
            )
