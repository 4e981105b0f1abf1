"""The examples that sharpness is measured on."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_jax import data, errors
from sam_jax.train import data_settings, own_data, subject
from tests.data import images


@given(total=st.integers(1, 20), size=st.integers(1, 9), whole=st.booleans())
def test_the_mean_over_batches_is_that_over_the_examples(total, size, whole):
    values = np.arange(total, dtype=np.float32)
    split = data.Split(values, values.astype(np.int32), values.astype(np.int32))
    batches = subject.Batches(data.ArraySource(split), size, whole, None)
    seen = [(np.asarray(b.images), np.asarray(b.weights)) for b in batches]
    counted = total - total % min(size, total) if whole else total
    mean = np.mean([np.mean(images * weights) for images, weights in seen])
    np.testing.assert_allclose(mean, values[:counted].mean(), rtol=1e-5)
    assert len({len(images) for images, _ in seen}) == 1
    assert not whole or all(np.all(weights == 1) for _, weights in seen)


def test_examples_are_drawn_with_the_seed_also_from_a_stream(digits):
    source = digits.train
    first, again, other = (subject.drawn(source, 40, seed).split for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)
    assert len(np.unique(first.images, axis=0)) == 40

    class Stream:
        num_examples, eval_batches = source.num_examples, source.eval_batches

    streamed = subject.drawn(Stream, 40, 0).split
    np.testing.assert_array_equal(streamed.images, first.images)
    np.testing.assert_array_equal(streamed.labels, first.labels)
    assert subject.drawn(Stream, None, 0) is Stream


def test_all_examples_of_a_stream_are_read_in_the_order_of_the_draw(tmp_path):
    images.folder(tmp_path, {"train/a": 6, "train/b": 5, "val/a": 1, "val/b": 1})
    given = {"path": str(tmp_path), "image_size": 4, "validation": 0}
    source = data.load_streamed("folder", **given).train
    order = np.random.default_rng(3).permutation(11)
    every, mixed = (
        next(one.eval_batches(11)) for one in (source, subject.drawn(source, None, 3))
    )
    for name in ("image", "label", "true_label"):
        np.testing.assert_array_equal(mixed[name], every[name][order])


def test_broken_images_of_a_stream_are_not_mixed(tmp_path):
    images.folder(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1})
    given = {"path": str(tmp_path), "image_size": 4, "validation": 0}
    for skip_broken in (False, True):
        found = data.load_streamed("folder", skip_broken=skip_broken, **given)
        mixed = data_settings.Data(mixup=0.2)
        if not skip_broken:
            own_data.augmentation(mixed, found)
            continue
        with pytest.raises(errors.UserError, match="what is broken into its neighb"):
            own_data.augmentation(mixed, found)


def test_broken_images_of_a_stream_are_not_measured(tmp_path):
    sizes = {"train/a": 6, "train/b": 5, "val/a": 1, "val/b": 1}
    images.folder(tmp_path, sizes)
    for name in ("a/0", "a/3", "b/1"):
        (tmp_path / "train" / f"{name}.png").write_text("none")
    given = {"path": str(tmp_path), "image_size": 4, "validation": 0}
    source = data.load_streamed("folder", skip_broken=True, **given).train
    batches = list(subject.Batches(source, 4, False, None))
    seen = [(np.asarray(b.labels), np.asarray(b.weights)) for b in batches]
    assert sum(np.count_nonzero(weights) for _, weights in seen) == 8
    mean = np.mean([np.mean(labels * weights) for labels, weights in seen])
    assert mean == pytest.approx(0.5)  # four of eight
    every = [batch["image"][batch["mask"]] for batch in source.eval_batches(11)]
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(11)[:7]
        drawn = subject.drawn(source, 7, seed).split.images
        there = [k - sum(b < k for b in (0, 3, 7)) for k in order if k not in (0, 3, 7)]
        np.testing.assert_array_equal(drawn, every[0][there])
    for path in (tmp_path / "train").rglob("*.png"):
        path.write_text("none")
    gone = dataclasses.replace(source)
    for measured in (
        lambda: subject.drawn(gone, 2, 0),
        lambda: subject.Batches(gone, 2, False, None),
    ):
        with pytest.raises(errors.UserError, match=r"none of .* can be read"):
            measured()
