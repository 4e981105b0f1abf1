"""Shapes of data that are not read."""

import pytest

from sam_jax import errors
from sam_jax.rehearsal import programs
from sam_jax.train import settings
from tests.train import test_commands


@pytest.mark.parametrize(
    ("config", "given_", "expected"),
    [
        (settings.Data("cifar10"), {}, ((32, 32, 3), 10, 45_000)),
        (
            settings.Data("tfds:mnist:3.0.1", stream=True, image_size=32),
            {},
            ((32, 32, 3), 10, 54_000),
        ),
        (
            settings.Data("imagenet2012", image_size=160, validation=0),
            {},
            ((160, 160, 3), 1000, 1_281_167),
        ),
        (
            settings.Data("folder", image_size=64, train_examples=70),
            {"classes": 3, "examples": 100},
            ((64, 64, 3), 3, 70),
        ),
    ],
)
def test_shapes_without_data(config, given_, expected):
    assert programs.shapes(config, **given_) == expected


def test_shapes_that_a_run_would_refuse():
    for changes in ({"validation": 60_000}, {"train_examples": 60_000}):
        with pytest.raises(errors.UserError, match=r"of 50000 training examples"):
            programs.shapes(settings.Data("cifar10", **changes))


def test_unknown_data_ask_for_what_is_missing():
    with pytest.raises(errors.UserError, match=r"add.* --classes=1000 --examples="):
        programs.shapes(settings.Data("folder", image_size=64))


def test_an_image_has_three_sides(capsys):
    words = ("rehearse", "--config=digits_sam", "--topology=v5e:2x2", "--image=224")
    code, _, err = test_commands.said(capsys, *words)
    assert code == 2 and "must be three numbers, got '224'" in err
