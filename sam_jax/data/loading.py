"""From the name of a data set to its splits, ready for the trainer."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from sam_jax import checks
from sam_jax.data import batches, catalog, digits, importance, noise, splits, tfds

# How the data sets that TFDS does not have are read.
_READERS: Mapping[str, Callable[..., splits.RawDataset]] = MappingProxyType(
    {"digits": digits.read}
)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """What the trainer needs of a data set.

    Attributes:
        name: as given to ``load``.
        num_classes: labels are 0 to ``num_classes - 1``.
        image_shape: height, width, channels.
        mean: per channel, over the original training set, in units of pixel / 255.
        std: per channel, likewise.
        train: examples to train on; their ``label`` may be noisy.
        validation: examples held out of the original training set; None for none.
        test: the test set.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: batches.Source
    validation: batches.Source | None
    test: batches.Source


def load(
    name: str,
    *,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    download: bool = True,
    validation: float = 0.1,
    train_examples: int | None = None,
    label_noise: float = 0.0,
    seed: int = 0,
    sampling: importance.Importance | None = None,
) -> Dataset:
    """Reads a data set into memory and divides it.

    ``digits`` needs no files. Every other name is one of TensorFlow Datasets (TFDS),
    such as ``cifar10``, which prepares the published archives once, under
    ``data_dir``; later runs read what was prepared. Without a network, put the
    archives, under their own names, into a folder and pass it as ``manual_dir``:

    - mnist, fashion_mnist: train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz,
      t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz
    - cifar10: cifar-10-binary.tar.gz
    - cifar100: cifar-100-binary.tar.gz
    - svhn_cropped: train_32x32.mat, test_32x32.mat, extra_32x32.mat

    TFDS takes an archive there if name and checksum are those it knows. A data set
    outside the catalog must have splits ``train`` and ``test`` and features ``image``
    (uint8, of one shape) and ``label``; its mean and standard deviation are computed
    from the original training set, the latter with a floor of 1/255.

    A class without an example to train on is logged as a warning.

    Args:
        name: of the data set, as TFDS writes it: ``"emnist/letters"`` has a variant,
            ``"mnist:3.0.1"`` a version. Names with a namespace are refused: TFDS would
            fetch and run their code.
        data_dir: where prepared data lie; None is the default folder of TFDS.
        manual_dir: where archives lie that were fetched by hand.
        download: whether archives may be fetched from the network.
        validation: share in [0, 1), or number, of the original training examples to
            hold out by a seeded permutation. They keep their true labels; 0 for none.
        train_examples: how many of the rest to train on; None for all.
        label_noise: share in [0, 1) of the training labels to replace by another
            class, exactly ``round(label_noise * N)`` of them; see ``symmetric_noise``
            for how papers differ.
        seed: of the held-out examples and of the noise, not negative.
        sampling: how training examples are drawn; None shuffles them.

    Returns:
        The data set.

    Raises:
        UserError: an unknown name, archives that are missing or damaged, prepared data
            that are damaged, folders that cannot be used, or splits that leave no
            examples.
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
    checks.integer("seed", seed, 0)

    read = _READERS.get(name, tfds.read)
    raw = read(name, data_dir=data_dir, manual_dir=manual_dir, download=download)
    splits.check_labels(raw, name)
    kept, held_out = splits.hold_out(
        raw.train.num_examples,
        validation=validation,
        train_examples=train_examples,
        seed=seed,
    )
    train = raw.train.take(kept)
    splits.warn_of_missing(train, raw.num_classes, name)
    labels = noise.symmetric_noise(
        train.true_labels, label_noise, num_classes=raw.num_classes, seed=seed
    )
    train = dataclasses.replace(train, labels=labels)
    mean, std = _statistics(name, raw.train.images)
    height, width, channels = train.images.shape[1:]
    chances = None
    if sampling is not None:
        scores = importance.scores(raw.train.images, mean, std, sampling.scores)
        chances = importance.probabilities(scores[kept], sampling.uniform)
    return Dataset(
        name=name,
        num_classes=raw.num_classes,
        image_shape=(height, width, channels),
        mean=mean,
        std=std,
        train=(
            batches.ArraySource(train)
            if chances is None
            else batches.SampledSource(train, chances)
        ),
        validation=(
            batches.ArraySource(raw.train.take(held_out)) if held_out.size else None
        ),
        test=batches.ArraySource(raw.test),
    )


def _statistics(
    name: str, images: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Published mean and standard deviation per channel, or else computed ones."""
    if name in catalog.CATALOG:
        entry = catalog.CATALOG[name]
        return entry.mean, entry.std
    # From the counts of the 256 values: exact, and no copy of the images as floats.
    values = np.arange(256) / 255
    shares = [
        np.bincount(images[..., channel].ravel(), minlength=256)
        / images[..., channel].size
        for channel in range(images.shape[-1])
    ]
    means = [float(share @ values) for share in shares]
    stds = [
        max(float(share @ (values - mean) ** 2) ** 0.5, 1 / 255)
        for share, mean in zip(shares, means, strict=True)
    ]
    return tuple(means), tuple(stds)
