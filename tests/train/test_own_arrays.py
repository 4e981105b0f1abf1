"""Data in arrays of one's own, of images or of anything else."""

import dataclasses

import numpy as np
import pytest

from sam_jax import data, errors, train
from sam_jax.train import build, comparison, settings
from tests.train import my_parts, runs


def sequences(count, generator):
    """Tokens below 20; the label says how many are below 10."""
    tokens = generator.integers(0, 20, (count, 7))
    return tokens, (tokens < 10).sum(1) // 4


def rows(count, generator):
    """Five numbers; the label is the largest of the first three."""
    table = generator.normal(size=(count, 5))
    return table, table[:, :3].argmax(1)


@pytest.mark.parametrize(
    ("examples", "net"),
    [(sequences, my_parts.TokenNet), (rows, my_parts.TableNet)],
)
def test_a_network_need_not_be_for_images(tiny, tmp_path, examples, net, capsys):
    generator = np.random.default_rng(0)
    dataset = data.of_arrays(
        examples(256, generator), examples(100, generator), name="own"
    )
    config = tiny("sam", epochs=6, learning_rate=0.5)
    found = runs.Finished(config, tmp_path, dataset=dataset, model=net)
    assert f" {net.__name__}, " in capsys.readouterr().out, "not config.model.name"
    named = comparison.read_settings(tmp_path)
    assert (named["data.name"], named["model.name"]) == ("own", net.__name__)
    tests = [row for row in found.rows if row["split"] == "test"]
    assert tests[-1]["loss"] < 0.9 * tests[0]["loss"]
    assert tests[-1]["accuracy"] > tests[0]["accuracy"]
    run = train.load_run(tmp_path, step="last", model=net)
    inputs = examples(20, np.random.default_rng(1))[0]
    taken = inputs.astype(run.preprocessing.dtype)
    assert run.predict(taken).shape == (20, dataset.num_classes)
    assert run.evaluate(dataset).accuracy == pytest.approx(tests[-1]["accuracy"])
    with pytest.raises(errors.UserError, match="the run takes"):
        run.predict(inputs.astype(np.float16))


def test_arrays_of_images_are_as_the_data_set_they_come_from(tiny):
    config = tiny("sam")
    usual = build.build(config).dataset
    splits = (usual.train.split, usual.test.split)
    own = data.of_arrays(*((split.images, split.labels) for split in splits))
    assert (own.image_shape, own.num_classes) == ((8, 8, 1), 10)
    np.testing.assert_allclose(own.mean, usual.mean, rtol=0.05)
    of_both = (x.train.batches(batch_size=16, seed=1) for x in (own, usual))
    mine, theirs = (next(iter(each)) for each in of_both)
    np.testing.assert_array_equal(mine["image"], theirs["image"])


X, Y = np.zeros((4, 3)), np.array([0, 1, 0, 1])
EMPTY = data.Split(np.zeros((0, 8, 8, 1), np.uint8), Y[:0], Y[:0])


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        ((X, Y[:3]), (X, Y), "a whole number for each of 4"),
        ((X, Y * 0.5), (X, Y), "a whole number"),
        ((X, Y), (X[:, :2], Y), "in one form"),
        ((X, Y), (X.astype(int), Y), "in one form"),
        ((X, Y * 0), (X, Y * 0), "at least 2"),
        ((X.astype(str), Y), (X, Y), "must be numbers"),
        (X, (X, Y), "a pair of arrays"),
        ((X, Y - 1), (X, Y), "labels -1 to"),
        ((X, Y + 2**32), (X, Y), "train labels are .* must fit in 32 bits"),
        ((X.astype(int) + 2**31, Y), (X.astype(int), Y), "train inputs are .* 32 bits"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(train, test, words):
    with pytest.raises(errors.UserError, match=words) as raised:
        data.of_arrays(train, test)
    assert "\n" not in str(raised.value)


def test_networks_for_images_are_not_for_rows(tiny):
    dataset = data.of_arrays((X, Y), (X, Y))
    network = settings.Model("resnet_digits")
    config = dataclasses.replace(tiny("none", batch_size=4), model=network)
    with pytest.raises(errors.UserError, match=r"is for images, .* of shape \[3\]"):
        build.build(config, dataset=dataset)


def test_names_of_classes_of_arrays():
    names = np.array(["cat", "dog"])
    assert data.of_arrays((X, Y), (X, Y), class_names=names).class_names == (
        "cat",
        "dog",
    )
    with pytest.raises(errors.UserError, match=r"'Cat' and 'cat ', one name except"):
        data.of_arrays((X, Y), (X, Y), class_names=["cat ", "Cat"])


def test_what_is_done_to_images_is_not_for_others(tiny):
    dataset = data.of_arrays((X, Y), (X, Y))
    for setting in ("crop", "mixup", "resized_crop"):
        changes = {f"data.{setting}": 1}
        with pytest.raises(errors.UserError, match=rf"config.data.{setting} is for im"):
            build.build(tiny("sam", batch_size=2, **changes), dataset=dataset)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"class_names": ("a", "b")},
            r"labels of the train set are 0 to 9, .* 2 class",
        ),
        ({"image_shape": (9, 8, 1)}, r"image_shape is \(9, 8, 1\)"),
        ({"mean": (0.5,) * 3}, "mean must have a number for each of 1 channels"),
        ({"std": ()}, "std must have a number"),
        ({"train": "floats"}, "inputs of the train set are float32"),
        ({"test": "negative"}, "labels of the test set are -1 to"),
        (
            {"validation": data.ArraySource(EMPTY)},
            "the validation set is empty, .* give None",
        ),
    ],
)
def test_a_data_set_that_does_not_fit_itself(tiny, digits, changes, message):
    for name in {"train", "test"} & changes.keys():
        split = getattr(digits, name).split
        spoilt = {
            "floats": {"images": split.images.astype(np.float32)},
            "negative": {"true_labels": split.true_labels - 1},
        }[changes[name]]
        changes = {name: data.ArraySource(dataclasses.replace(split, **spoilt))}
    with pytest.raises(errors.UserError, match=message):
        build.build(tiny(), dataset=dataclasses.replace(digits, **changes))
    build.build(tiny(), dataset=digits)
