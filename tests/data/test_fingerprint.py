"""Two hosts that have read the same are told from two that have not."""

import dataclasses

import numpy as np
import pytest

from sam_jax import data
from sam_jax.data import fingerprint


@pytest.fixture(scope="module")
def dataset():
    return data.load("digits", validation=0.1)


def test_the_same_data_have_the_same_fingerprint(dataset):
    assert fingerprint(dataset) == fingerprint(data.load("digits", validation=0.1))


@pytest.mark.parametrize(
    ("settings", "differing"),
    [
        ({"train_examples": 96}, {"examples", "images", "labels", "draws"}),
        ({"label_noise": 0.1}, {"labels"}),
        ({"sampling": data.Importance()}, {"draws"}),
    ],
)
def test_what_differs_is_named(dataset, settings, differing):
    own = fingerprint(dataset)
    other = fingerprint(data.load("digits", validation=0.1, **settings))
    assert own.keys() == other.keys()
    different = {key for key in own if own[key] != other[key]}
    assert different == {f"train {part}" for part in differing}


def test_one_pixel_counts(dataset):
    split = dataset.test.split
    images = split.images.copy()
    images[-1, 0, 0, 0] ^= 1
    changed = data.ArraySource(dataclasses.replace(split, images=images))
    own, other = map(fingerprint, (dataset, dataclasses.replace(dataset, test=changed)))
    assert {key for key in own if own[key] != other[key]} == {"test images"}


def test_of_a_streamed_source_only_the_size_is_known(dataset):
    class Streamed:
        num_examples = 7

    own = fingerprint(
        dataclasses.replace(dataset, train=Streamed(), validation=None, test=Streamed())
    )
    assert own == {"train examples": "7", "test examples": "7"}
    assert np.all([isinstance(value, str) for value in own.values()])
