"""The one table of data sets whose facts are known before they are read."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType


@dataclasses.dataclass(frozen=True)
class Entry:
    """Published facts of a data set.

    Attributes:
        num_classes: labels are 0 to ``num_classes - 1``.
        image_shape: height, width, channels.
        train_examples: size of the original training set.
        test_examples: size of the test set.
        mean: per channel, over the original training set, in units of pixel / 255.
        std: per channel, likewise.
    """

    num_classes: int
    image_shape: tuple[int, int, int]
    train_examples: int
    test_examples: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


_FACTS = {
    "digits": (10, (8, 8, 1), 1297, 500),
    "mnist": (10, (28, 28, 1), 60_000, 10_000),
    "fashion_mnist": (10, (28, 28, 1), 60_000, 10_000),
    "cifar10": (10, (32, 32, 3), 50_000, 10_000),
    "cifar100": (100, (32, 32, 3), 50_000, 10_000),
    "svhn_cropped": (10, (32, 32, 3), 73_257, 26_032),
    "tiny_imagenet": (200, (64, 64, 3), 100_000, 10_000),
}
# Those in use everywhere, so that results compare. Those of CIFAR are over the training
# set; some codes use per-image averages of the standard deviation instead (CIFAR-10:
# 0.2023, 0.1994, 0.2010).
_STATISTICS = {
    "digits": ((0.3058,), (0.3764,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn_cropped": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "tiny_imagenet": ((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)),
}
CATALOG: Mapping[str, Entry] = MappingProxyType(
    {name: Entry(*facts, *_STATISTICS[name]) for name, facts in _FACTS.items()}
)

OF_TFDS = "tfds:"  # before names of TFDS in full

# Of streamed images, whose own are not known before they are read: those of ImageNet.
STREAMED = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# How a user's own images come, and what is published as such.
OWN = ("folder", "csv", "npz", "tiny_imagenet")


def short(name: str) -> str:
    """A name without ``tfds:`` and version.

    Example:
        >>> short("tfds:mnist:3.0.1")
        'mnist'
    """
    return name.removeprefix(OF_TFDS).partition(":")[0]


Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def published(name: str, channels: int) -> Statistics | None:
    """Mean and standard deviation per channel of a data set; None if not in the table.

    Example:
        >>> published("tfds:mnist", 3)
        ((0.1307, 0.1307, 0.1307), (0.3081, 0.3081, 0.3081))
    """
    entry = CATALOG.get(short(name))
    if entry is None or len(entry.mean) not in (1, channels):
        return None
    times = channels // len(entry.mean)  # of grey images that are read in colour
    return entry.mean * times, entry.std * times


def names() -> tuple[str, ...]:
    """Names that need no TFDS, or are in the catalog; others are looked up in TFDS.

    Example:
        >>> print(*names()[:5])
        folder csv npz tiny_imagenet digits
    """
    return tuple(dict.fromkeys((*OWN, *CATALOG)))
