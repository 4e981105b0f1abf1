"""A run on images of one's own, which remembers what it began with."""

import shutil

import numpy as np
import pytest

from sam_jax import data, errors
from sam_jax.train import agreement, loop
from tests.data import images

SIZES = {f"{split}/{name}": 12 for split in ("train", "val") for name in ("cat", "dog")}


def test_a_run_continues_on_its_data_alone(tiny, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    images.folder(first, SIZES)

    def train(path):
        changes = {"path": str(path), "cache_dir": "", "validation": 0.25}
        changes |= {"name": "folder", "train_examples": None, "image_size": 3}
        settings = {f"data.{key}": value for key, value in changes.items()}
        config = tiny(epochs=1, batch_size=6, **settings)
        return loop.train_and_evaluate(config, tmp_path / "run")

    before = train(first)
    assert 0 <= before["best"]["test"]["accuracy"] <= 1
    shutil.move(first, second)
    assert train(second) == before
    images.write(second / "val/dog/3.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(
        errors.UserError, match=r"changed .*\(test images: \w+ and \w+\)"
    ):
        train(second)


def test_a_run_that_noted_no_data_continues():
    digits = data.load("digits", train_examples=100)
    found = agreement.check_unchanged(digits, None)
    assert found == data.fingerprint(digits)
    assert agreement.check_unchanged(digits, found) == found
    with pytest.raises(agreement.Refused, match="train images"):
        agreement.check_unchanged(data.load("digits", train_examples=99), found)
