"""Small archives of random images in the formats of CIFAR-10 and (Fashion-)MNIST.

For tests without a network: TFDS prepares them as it does the published ones. Its
builders know the size and checksum of the latter only, so ``accept`` has to be called
in the process that prepares. A test that runs the trainer in a subprocess calls
``prepare`` and hands the subprocess the prepared ``data_dir``.
"""

import gzip
import io
import pathlib
import struct
import tarfile

import numpy as np
import pytest

from sam_jax.data import splits


def random_split(
    num_examples: int, shape: tuple[int, int, int], seed: int = 0
) -> splits.Split:
    """Random images whose labels cycle through ten classes."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (num_examples, *shape), dtype=np.uint8)
    labels = np.arange(num_examples, dtype=np.int32) % 10
    return splits.Split(images, labels, labels)


def write_cifar10(
    folder: pathlib.Path, train: splits.Split, test: splits.Split
) -> list[pathlib.Path]:
    """Writes cifar-10-binary.tar.gz: records of one label byte and 3 x 32 x 32."""
    names = [
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ]
    members = {"batches.meta.txt": "\n".join([*names, ""]).encode()}
    for number, part in enumerate(np.array_split(np.arange(train.num_examples), 5)):
        members[f"data_batch_{number + 1}.bin"] = _records(train.take(part))
    members["test_batch.bin"] = _records(test)
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return [path]


def _records(split: splits.Split) -> bytes:
    pixels = split.images.transpose(0, 3, 1, 2).reshape(split.num_examples, -1)
    labels = split.labels.astype(np.uint8).reshape(-1, 1)
    return np.concatenate([labels, pixels], axis=1).tobytes()


def write_mnist(
    folder: pathlib.Path, train: splits.Split, test: splits.Split
) -> list[pathlib.Path]:
    """Writes the four idx archives that MNIST and Fashion-MNIST both consist of."""
    paths = []
    for prefix, split in (("train", train), ("t10k", test)):
        sizes = (split.num_examples, *split.images.shape[1:3])
        contents = {
            f"{prefix}-images-idx3-ubyte.gz": struct.pack(">4I", 0x0803, *sizes)
            + split.images.tobytes(),
            f"{prefix}-labels-idx1-ubyte.gz": struct.pack(">2I", 0x0801, sizes[0])
            + split.labels.astype(np.uint8).tobytes(),
        }
        for name, content in contents.items():
            paths.append(folder / name)
            paths[-1].write_bytes(gzip.compress(content))
    return paths


def accept(
    monkeypatch: pytest.MonkeyPatch, name: str, paths: list[pathlib.Path]
) -> None:
    """Makes the TFDS builder ``name`` take these archives for the published ones."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    builder = tfds.builder_cls(name)
    infos = {path.name: checksums.compute_url_info(path) for path in paths}
    accepted = {url: infos[i.filename] for url, i in builder.url_infos.items()}
    monkeypatch.setattr(builder, "url_infos", accepted)


def accept_mnist_sizes(
    monkeypatch: pytest.MonkeyPatch, train: splits.Split, test: splits.Split
) -> None:
    """Makes the TFDS builders of the MNIST family expect these numbers of examples."""
    from tensorflow_datasets.image_classification import mnist

    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", train.num_examples)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", test.num_examples)


def prepare(
    folder: pathlib.Path,
    name: str,
    *,
    train_examples: int = 60,
    test_examples: int = 30,
) -> pathlib.Path:
    """Prepares ``name`` (cifar10, mnist, fashion_mnist) from random images.

    Returns:
        The ``data_dir`` from which any process can load it, archives no longer needed.
    """
    from sam_jax import data

    write = {"cifar10": write_cifar10}.get(name, write_mnist)
    shape = data.CATALOG[name].image_shape
    train = random_split(train_examples, shape, seed=1)
    test = random_split(test_examples, shape, seed=2)
    manual_dir = folder / "archives"
    manual_dir.mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        accept(monkeypatch, name, write(manual_dir, train, test))
        accept_mnist_sizes(monkeypatch, train, test)
        data.load(
            name,
            data_dir=str(folder / "data"),
            manual_dir=str(manual_dir),
            download=False,
        )
    return folder / "data"
