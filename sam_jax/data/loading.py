"""From the name of a data set to its splits, ready for the trainer."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from sam_jax import checks, errors
from sam_jax.data import (
    batches,
    cache,
    catalog,
    copies,
    digits,
    folder,
    importance,
    labelled,
    noise,
    npz,
    pictures,
    splits,
    table,
    tfds,
    tiny_imagenet,
)

_COUNTED = 4096  # images whose pixels are counted together


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """What the trainer needs of a data set.

    Attributes:
        name: as given to ``load``.
        class_names: of the labels 0, 1, ....
        image_shape: height, width, channels; of other inputs, the shape of one.
        mean: per channel, in units of pixel / 255: as given, or else over the original
            training set.
        std: per channel, likewise.
        train: examples to train on; their ``label`` may be noisy.
        validation: examples held out of the original training set; None for none.
        test: the test set.
        dtype: of the inputs; other than uint8, they are not images.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: batches.Source
    validation: batches.Source | None
    test: batches.Source
    dtype: Any = np.uint8

    @property
    def num_classes(self) -> int:
        """Labels are 0 to ``num_classes - 1``."""
        return len(self.class_names)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Examples to train on of each class, by their labels; () if not known yet."""
        labels = getattr(getattr(self.train, "split", self.train), "labels", None)
        if labels is None:
            return ()
        return tuple(np.bincount(labels, minlength=self.num_classes).tolist())


def load(
    name: str,
    *,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    download: bool = True,
    path: str | None = None,
    image_size: int | None = None,
    resize: str = "squash",
    skip_broken: bool = False,
    cache_dir: str = cache.FOLDER,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    validation: float = 0.1,
    train_examples: int | None = None,
    imbalance: float = 1.0,
    label_noise: float = 0.0,
    seed: int = 0,
    sampling: importance.Importance | None = None,
) -> Dataset:
    """Reads a data set into memory and divides it.

    Your own images are at ``path``: for ``folder`` in a folder for each class, as
    `folder.listing` reads them, for ``csv`` in files that a table lists
    (`table.listing`), for ``npz`` in arrays (`npz.read`); ``tiny_imagenet`` in its
    published folder (`tiny_imagenet.listing`). `pictures.decode` says how files are
    read.

    ``digits`` needs no files; ``digits/5-9`` are some of them. Every other name is one
    of TensorFlow Datasets (TFDS), such as ``cifar10``, or ``tfds:cifar10`` in full,
    which prepares the published archives once, under ``data_dir``; later runs read what
    was prepared. Without a network, put the archives, under their own names, into a
    folder and pass it as ``manual_dir``:

    - mnist, fashion_mnist: train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz,
      t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz
    - cifar10: cifar-10-binary.tar.gz
    - cifar100: cifar-100-binary.tar.gz
    - svhn_cropped: train_32x32.mat, test_32x32.mat, extra_32x32.mat

    TFDS takes an archive there if name and checksum are those it knows. A data set
    outside the catalog must have splits ``train`` and ``test`` and features ``image``
    (uint8, of one shape) and ``label``. Outside the catalog, mean and standard
    deviation are computed from the original training set, the latter with a floor of
    1/255.

    A class without an example to train on is logged as a warning.

    Args:
        name: of the data set, as TFDS writes it: ``"emnist/letters"`` has a variant,
            ``"mnist:3.0.1"`` a version. Names with a namespace are refused: TFDS would
            fetch and run their code.
        data_dir: folder of prepared data; None is the default folder of TFDS. Here and
            in ``path``, what is at an address, ``gs://...``, is copied first.
        manual_dir: folder of archives that you have downloaded.
        download: whether archives may be fetched from the network.
        path: of the folder, table or file with your own images.
        image_size: side of the square that image files are scaled to; None takes them
            as they are, all of one size.
        resize: how they are scaled: ``"squash"``, ``"crop"`` or ``"pad"``, see
            `pictures.How`.
        skip_broken: whether files that cannot be read as images are left out, counted
            in a warning.
        cache_dir: where decoded image files, and copies of what is at an address, wait
            for the next run; empty is off.
        mean: per channel, in units of pixel / 255; None is that of the catalog, or
            computed.
        std: per channel, likewise.
        validation: share in [0, 1), or number, of the original training examples to
            hold out by a seeded permutation. They keep their true labels; 0 for none.
        train_examples: how many of the rest to train on; None for all.
        imbalance: how many times as many of the first class as of the last one to train
            on; 1 leaves them as they are, see ``splits.long_tail``.
        label_noise: share in [0, 1) of the training labels to replace by another
            class, exactly ``round(label_noise * N)`` of them; see ``symmetric_noise``
            for how papers differ.
        seed: of the held-out examples and of the noise, not negative.
        sampling: how training examples are drawn; None shuffles them.

    Returns:
        The data set.

    Raises:
        UserError: an unknown name, files, archives or prepared data that are missing,
            damaged or not as described, folders that cannot be used, settings that the
            data set does not have, or splits that leave no examples.
        BadValue: a number out of range.

    Example:
        >>> digits = load("digits", validation=97, label_noise=0.25)
        >>> digits.image_shape, digits.num_classes
        ((8, 8, 1), 10)
        >>> digits.train.num_examples, digits.test.num_examples
        (1200, 500)
    """
    # What needs no data is checked first: reading takes seconds, fetching minutes.
    splits.check_validation(validation)
    checks.below_one("label_noise", label_noise)
    checks.between("imbalance", imbalance, 1, 1e9)
    checks.integer("seed", seed, 0)

    how = pictures.How(image_size, resize, skip_broken, cache_dir)
    how.check()
    if name in catalog.OWN:
        with copies.local(path, cache_dir) as path:
            raw = _read_own(name, path, how, seed)
    else:
        refuse_own(name, path, how)
        raw = _read_named(name, data_dir, manual_dir, download, cache_dir)
    splits.check_labels(raw, name)
    kept, held_out = splits.hold_out(
        raw.train.num_examples,
        validation=validation,
        train_examples=train_examples,
        seed=seed,
    )
    if imbalance > 1:
        labels = raw.train.true_labels[kept]
        kept = kept[splits.long_tail(labels, imbalance, raw.num_classes, seed)]
    train = raw.train.take(kept)
    splits.warn_of_missing(train.true_labels, raw.num_classes, name)
    labels = noise.symmetric_noise(
        train.true_labels, label_noise, num_classes=raw.num_classes, seed=seed
    )
    train = dataclasses.replace(train, labels=labels)
    height, width, channels = train.images.shape[1:]
    known = catalog.published(name, channels) or computed(raw.train.images)
    mean, std = statistics(known, mean, std)
    chances = None
    if sampling is not None:
        scores = importance.scores(raw.train.images, mean, std, sampling.scores)
        chances = importance.probabilities(scores[kept], sampling.uniform)
    array = batches.ArraySource
    return Dataset(
        name=name,
        class_names=raw.class_names,
        image_shape=(height, width, channels),
        mean=mean,
        std=std,
        train=(
            array(train) if chances is None else batches.SampledSource(train, chances)
        ),
        validation=array(raw.train.take(held_out)) if held_out.size else None,
        test=array(raw.test),
    )


def _read_named(
    name: str,
    data_dir: str | None,
    manual_dir: str | None,
    download: bool,
    cache_dir: str,
) -> splits.RawDataset:
    """The digits, or what TFDS has."""
    read = digits.read if name.partition("/")[0] == "digits" else tfds.read
    with copies.local(data_dir, cache_dir, catalog.short(name)) as here:
        # What is missing in a store is not prepared in the copy.
        download = download and here == data_dir
        return read(
            name.removeprefix(catalog.OF_TFDS),
            data_dir=here,
            manual_dir=manual_dir,
            download=download,
        )


def _read_own(
    name: str, path: str | None, how: pictures.How, seed: int
) -> splits.RawDataset:
    path = needed(name, path)
    if name == "npz":
        refuse_own(name, None, how)
        return npz.read(path, seed)
    return labelled.read(LISTINGS[name](path), how, seed)


# Of what lies in image files.
LISTINGS: Mapping[str, Callable[[str], labelled.Listing]] = MappingProxyType(
    {
        "folder": folder.listing,
        "csv": table.listing,
        "tiny_imagenet": tiny_imagenet.listing,
    }
)


def needed(name: str, path: str | None) -> str:
    """The path, which the user's own data need."""
    if path is None:
        raise errors.UserError(
            f"name={name} needs a path: give that of your images, such as path=~/images"
        )
    return path


def refuse_own(name: str, path: str | None, how: pictures.How) -> None:
    """Refuses settings of image files for a data set that has none."""
    given = {
        "path": path is not None,
        "image_size": how.image_size is not None,
        "skip_broken": how.skip_broken,
    }
    for setting, is_given in given.items():
        if is_given:
            raise errors.UserError(
                f"{setting} is for your own images, and name={name} has none in "
                f"files: leave it out, or give name={', '.join(LISTINGS)}"
            )


def statistics(
    known: catalog.Statistics,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> catalog.Statistics:
    """Mean and standard deviation per channel: given, or else as known."""
    channels = len(known[0])
    # Smaller ones than a thousandth are mistakes, and make floats overflow.
    for what, given, low in (("mean", mean, 0), ("std", std, 0.001)):
        if given is None:
            continue
        if len(given) != channels or not all(low <= x <= 1 for x in given):
            raise errors.UserError(
                f"{what}={tuple(given)} does not fit: give {channels} numbers in "
                f"[{low}, 1], one for each channel, in units of pixel / 255"
            )
    chosen = known[0] if mean is None else mean, known[1] if std is None else std
    return tuple(map(float, chosen[0])), tuple(map(float, chosen[1]))


def computed(images: np.ndarray) -> catalog.Statistics:
    """Mean and standard deviation per channel of pixels, in units of pixel / 255."""
    # From the counts of the 256 values: exact, and no copy of the images as floats.
    values = np.arange(256) / 255
    parts = [images[k : k + _COUNTED] for k in range(0, len(images), _COUNTED)]
    shares = [
        sum(np.bincount(part[..., channel].ravel(), minlength=256) for part in parts)
        / images[..., channel].size
        for channel in range(images.shape[-1])
    ]
    means = [float(share @ values) for share in shares]
    stds = [
        max(float(share @ (values - mean) ** 2) ** 0.5, 1 / 255)
        for share, mean in zip(shares, means, strict=True)
    ]
    return tuple(means), tuple(stds)
