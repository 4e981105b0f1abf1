"""A run on images of one's own, which remembers what it began with."""

import dataclasses
import shutil

import numpy as np
import pytest

from sam_jax import data, errors
from sam_jax.data import stream
from sam_jax.train import agreement, build, checkpoint, loop
from tests.data import images
from tests.train.test_commands import one_line, said

SIZES = {f"{split}/{name}": 12 for split in ("train", "val") for name in ("cat", "dog")}


def test_a_run_continues_on_its_data_alone(tiny, tmp_path, capsys):
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
    line = one_line(capsys, "evaluate", tmp_path / "run", "--step=last")
    assert f"{first} does not exist" in line
    place = f"--data_dir={second}"
    code, shown, _ = said(capsys, "evaluate", tmp_path / "run", "--step=last", place)
    accuracy = 100 * before["last"]["test"]["accuracy"]
    assert code == 0 and f"{accuracy:.2f} %" in shown
    assert train(second) == before
    images.write(second / "val/dog/3.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(
        errors.UserError, match=r"changed .*\(test images: \w+ and \w+\)"
    ):
        train(second)


STREAM = {
    "data.name": "folder",
    "data.stream": True,
    "data.train_examples": None,
    "data.image_size": 4,
    "data.validation": 0.25,
}


@pytest.mark.slow("compiles three runs")
def test_a_streamed_run_that_could_not_read_goes_on_to_the_same_end(
    tiny, tmp_path, monkeypatch
):
    images.folder(tmp_path / "images", SIZES)
    changes = STREAM | {"data.path": str(tmp_path / "images"), "data.resized_crop": 0.5}
    # So many that readers are not done before a checkpoint is.
    changes |= {"batch_size": 6, "epochs": 12, "checkpoint.every_steps": 2}
    config, read = tiny(**changes), stream.Files.__call__

    def fails(store, index):
        if checkpoint.kept(tmp_path / "run"):
            raise errors.UserError("the disk is gone")
        return read(store, index)

    whole = loop.train_and_evaluate(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(errors.UserError, match="gone"):
        patch.setattr(stream.Files, "__call__", fails)
        loop.train_and_evaluate(config, tmp_path / "run")
    assert checkpoint.kept(tmp_path / "run")
    with pytest.raises(errors.UserError, match="memory, and that of 'folder' is str"):
        build.build(dataclasses.replace(config, steps_per_dispatch=2))
    again = loop.train_and_evaluate(config, tmp_path / "run")
    for which in ("last", "best"):
        assert again[which] == whole[which] is not None
    (tmp_path / "images" / "train" / "cat" / "3.png").rename(tmp_path / "3.png")
    with pytest.raises(errors.UserError, match=r"changed .*train files: \w+ and \w+"):
        loop.train_and_evaluate(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.stream": False, "data.workers": 2}, "data.workers=2 is for a stream"),
        ({"data.stream": False, "data.middle": 0.5}, "data.middle=0.5 is for a stream"),
        ({"data.sampling.name": "importance"}, "examples in memory: set "),
        ({"data.image_size": None}, "give config.data.image_size=224"),
        ({"data.alternate_flip": True}, "alternate_flip needs images in memory"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(tiny, tmp_path, changes, said):
    images.folder(tmp_path, SIZES)
    with pytest.raises(errors.UserError, match=said):
        build.build(tiny(**(STREAM | {"data.path": str(tmp_path)} | changes)))


def test_a_run_that_noted_no_data_continues():
    digits = data.load("digits", train_examples=100)
    found = agreement.check_unchanged(digits, None)
    assert found == data.fingerprint(digits)
    assert agreement.check_unchanged(digits, found) == found
    with pytest.raises(agreement.Refused, match="train images"):
        agreement.check_unchanged(data.load("digits", train_examples=99), found)
