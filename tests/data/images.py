"""Small image files of known pixels."""

import pathlib

import numpy as np
from PIL import Image


def pixels(number: int, side: int = 4) -> np.ndarray:
    """Random colours that the number decides, uint8 [side, side, 3]."""
    shape = (side, side, 3)
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


def write(path: pathlib.Path, array: np.ndarray) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def folder(root: pathlib.Path, sizes: dict[str, int], side: int = 4) -> pathlib.Path:
    """PNGs in folders such as ``"train/cat"``, so many in each; all differ."""
    number = 0
    for name, size in sizes.items():
        for index in range(size):
            write(root / name / f"{index}.png", pixels(number, side))
            number += 1
    return root
