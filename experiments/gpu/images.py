"""CIFAR-10 from packed parts, or noise of its shape, as data sets of the trainer."""

import io
import pathlib
import tarfile

import numpy as np

from experiments.benchmarks import programs
from experiments.benchmarks.measure import Missing, need
from sam_jax import data

SIDE = 32
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def load(folder: pathlib.Path | None, *, tiny: bool, needed: bool) -> data.Dataset:
    """The real images where they are at hand, else noise.

    Args:
        folder: with the parts of `experiments.gpu.pack`, or None.
        tiny: few images are enough.
        needed: noise will not do.

    Returns:
        The data set ``cifar10``, or ``noise``; all training images, no validation set.

    Raises:
        Missing: if the real images are needed, and a part of them is not here.
    """
    if folder is None and needed and not tiny:
        raise Missing("give the packed images of CIFAR-10 with --data=FOLDER")
    try:
        if folder is not None:
            return cifar10(folder)
    except Missing as missing:
        if needed:
            raise
        print(f"noise instead of images: {missing}", flush=True)
    return programs.noise(64 if tiny else 50_000)


def cifar10(folder: pathlib.Path) -> data.Dataset:
    """The images of all parts in a folder."""
    need("PIL", "pillow")
    found = _mosaics(folder)
    splits = {}
    for split in ("train", "test"):
        images, labels = [], []
        for label, name in enumerate(CLASSES):
            keys = [key for key in found if key.startswith(f"{split}_{name}")]
            if not keys:
                raise Missing(f"no {split} images of {name} in {folder}")
            of_class = np.concatenate([tiles(found[key]) for key in sorted(keys)])
            images.append(of_class)
            labels.append(np.full(len(of_class), label, np.int32))
        order = np.random.default_rng(0).permutation(sum(map(len, labels)))
        splits[split] = np.concatenate(images)[order], np.concatenate(labels)[order]
    published = data.CATALOG["cifar10"]
    mean, std = published.mean, published.std
    return programs.dataset("cifar10", splits["train"], splits["test"], mean, std)


def _mosaics(folder: pathlib.Path) -> dict[str, bytes]:
    """The files of all parts by their names."""
    parts = {path.stem: path for path in folder.glob("part*of*.tar")}
    counts = {name.partition("of")[2] for name in parts}
    if len(counts) != 1:
        raise Missing(f"no packed images, or those of two packings, in {folder}")
    count = counts.pop()
    found = {}
    for number in range(1, int(count) + 1):
        name = f"part{number}of{count}"
        if name not in parts:
            raise Missing(f"{name}.tar is not in {folder}")
        with tarfile.open(parts[name]) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def tiles(mosaic: bytes) -> np.ndarray:
    """The images of a mosaic, row by row; uint8 [N, 32, 32, 3]."""
    from PIL import Image

    x = np.asarray(Image.open(io.BytesIO(mosaic)).convert("RGB"))
    rows, columns = x.shape[0] // SIDE, x.shape[1] // SIDE
    x = x.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2)
    return x.reshape(-1, SIDE, SIDE, 3)
