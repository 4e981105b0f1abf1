"""What comes out of a run's folder, where its data are not."""

import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import pytest

from sam_jax import data, errors, train
from sam_jax.train import (
    build,
    checkpoint,
    data_record,
    data_settings,
    loaded,
    state,
    workdir,
)
from tests.train import runs
from tests.train.test_commands import one_line


@pytest.fixture
def copied(finished, tmp_path):
    """The folder of a run, to be spoilt."""
    return shutil.copytree(finished.folder, tmp_path / "run")


@pytest.fixture
def no_data(monkeypatch):
    def load(*args, **settings):
        raise AssertionError("the data set was read")

    monkeypatch.setattr(data, "load", load)


def refused(*args, **settings):
    with pytest.raises(errors.UserError) as raised:
        train.load_run(*args, **settings)
    message = str(raised.value)
    assert "\n" not in message
    return message


def snapshot(folder):
    """All that is there, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


# ── What is read ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("step", ["best", "last"])
def test_scores_are_those_that_training_reported(finished, step):
    run = train.load_run(finished.folder, step)
    reported = finished.results[step]
    assert run.step == reported["step"]
    for split in ("test", "validation"):
        found = run.evaluate(split=split)
        assert found.accuracy == reported[split]["accuracy"]
        assert found.loss == pytest.approx(reported[split]["loss"], rel=1e-6)


def test_every_kept_step_is_there_by_its_number(finished):
    for step in runs.checkpoints(finished.folder):
        assert train.load_run(finished.folder, step).step == step


def test_predicts_without_the_data(finished, no_data, digits):
    run = train.load_run(finished.folder)
    assert run.config == finished.config
    assert run.class_names == tuple("0123456789")
    images = digits.test.split.images[:70]
    found = run.predict(images)
    assert found.dtype == np.float32
    # By hand: normalize, apply, softmax.
    floats = (images / 255.0 - np.array(digits.mean)) / np.array(digits.std)
    logits, _ = run.model.apply(run.params, run.model_state, floats, train=False)
    exp = np.exp(np.asarray(logits, np.float64))
    np.testing.assert_allclose(found, exp / exp.sum(1, keepdims=True), rtol=1e-4)
    assert 0 < (found.argmax(1) == digits.test.split.labels[:70]).mean() < 1
    # However many at once.
    for batch_size in (1, 32, 64):
        some = run.predict(images[:33], batch_size)
        np.testing.assert_allclose(some, found[:33], rtol=1e-5)
    np.testing.assert_allclose(run.predict(list(images)), found, rtol=1e-6)
    assert run.predict(images[:0]).shape == run.predict([]).shape == (0, 10)


def test_labelled_images_are_evaluated(finished, no_data, digits):
    run = train.load_run(finished.folder, "last")
    split = digits.test.split
    whole = run.evaluate((split.images, split.labels))
    assert whole.accuracy == finished.results["last"]["test"]["accuracy"]
    for found in (run.evaluate(digits), run.evaluate(digits.test)):
        np.testing.assert_array_equal(found.confusion, whole.confusion)
        assert found.loss == pytest.approx(whole.loss, rel=1e-6)
    training = run.evaluate(digits, "train")
    assert training.examples == 128
    assert not np.isnan(training.ece)


def test_nothing_is_written(finished):
    before = snapshot(finished.folder)
    run = train.load_run(finished.folder)
    run.predict(np.zeros((1, 8, 8, 1), np.uint8))
    run.evaluate()
    assert snapshot(finished.folder) == before


def test_a_data_set_that_was_passed_is_not_replaced_by_that_of_the_settings(
    finished, capsys, tmp_path, digits
):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    record = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps(record | {"name": "mine"}))
    run = train.load_run(folder, "last")
    with pytest.raises(errors.UserError, match="trained on 'mine', passed from Python"):
        run.evaluate()
    for verb in (["evaluate"], ["sharpness", "--measures=loss"]):
        verb, *words = verb
        assert "passed from Python" in one_line(capsys, verb, folder, *words)
    assert run.evaluate(digits.test).examples == 500


def test_another_data_set_has_no_settings_of_image_files():
    files = {"path": "a", "image_size": 32, "resize": "crop", "skip_broken": True}
    given = data_settings.Data("folder", **files, validation=7, label_noise=0.2)
    assert given.elsewhere(name="cifar10") == data_settings.Data(validation=7)
    streamed = dataclasses.replace(given, stream=True, middle=0.9)
    expected = dataclasses.replace(streamed, name="imagenette", path=None)
    expected = dataclasses.replace(expected, label_noise=0.0)
    assert streamed.elsewhere(name="imagenette") == expected
    rare = data_settings.Data("digits", train_examples=50, imbalance=100.0)
    assert rare.elsewhere(name="cifar10") == data_settings.Data("cifar10")
    of_arrays = data_settings.Data("npz", path="b", validation=7)
    assert streamed.elsewhere("b", "npz") == of_arrays


def test_the_averages_are_what_is_evaluated(finished):
    run = train.load_run(finished.folder, "last")
    leaves, _ = runs.saved(finished.config, finished.folder)
    average = [x for path, x in leaves.items() if path.startswith(".average")]
    plain = [x for path, x in leaves.items() if path.startswith(".params")]
    for found, expected, other in zip(
        jax.tree.leaves((run.params, run.model_state)), average, plain, strict=True
    ):
        np.testing.assert_array_equal(found, expected)
        assert not np.array_equal(found, other)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("sam", {"mesh.data": 2, "mesh.fsdp": 4}),
        ("momentum_sam", {}),
        ("sam", {"optimizer.name": "schedule_free_sgd", "schedule.name": "constant"}),
    ],
)
def test_weights_of_other_devices_and_of_methods_that_train_others(
    tiny, tmp_path, method, changes, digits
):
    config = tiny(method, **changes)
    made = build.steps(config, build.DataSpec.of(digits, config.batch_size))

    # No two arrays alike.
    leaves, structure = jax.tree.flatten(made.init(made.seed))
    for number, leaf in enumerate(leaves):
        if leaf.dtype == np.float32:
            leaves[number] = jax.device_put(leaf + number / 8, leaf.sharding)
    trained = structure.unflatten(leaves)
    with workdir.claimed(tmp_path, config), checkpoint.Checkpoints(tmp_path) as kept:
        kept.save(4, trained, {}, is_best=False)
    record = data_record.DataRecord.of(digits, config.batch_size)
    data_record.write(tmp_path, record)

    run = train.load_run(tmp_path, "last")
    expected = state.evaluated(trained, made.optimizer)
    for found, leaf in zip(
        jax.tree.leaves((run.params, run.model_state)),
        jax.tree.leaves(expected),
        strict=True,
    ):
        np.testing.assert_allclose(found, leaf, rtol=1e-6)
        assert len(found.devices()) == 1
    differs = [
        not np.allclose(a, b)
        for a, b in zip(
            jax.tree.leaves(run.params), jax.tree.leaves(trained.params), strict=True
        )
    ]
    assert any(differs) == ("mesh.data" not in changes)


# ── What is refused ──────────────────────────────────────────────────────────────────


def test_a_wrong_path_creates_nothing(tmp_path):
    assert "is not there" in refused(tmp_path / "runs" / "typo")
    assert "not the folder of a run (no config.json in it)" in refused(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_is_not_kept(finished, copied):
    kept = sorted(runs.checkpoints(finished.folder))
    message = refused(finished.folder, 7)
    assert "step 7" in message
    assert f"one of {', '.join(map(str, kept))}" in message
    assert "'first'" in refused(finished.folder, "first")
    assert train.load_run(finished.folder, str(kept[0])).step == kept[0]
    for folder in (copied / "checkpoints").iterdir():
        shutil.rmtree(folder)
    assert "no checkpoint yet" in refused(copied)


def test_a_step_that_training_replaces_meanwhile(finished, monkeypatch):
    steps = iter([1, 12])  # what was the best one is deleted before it is read
    monkeypatch.setattr(loaded, "_step", lambda folder, step: next(steps))
    assert train.load_run(finished.folder).step == 12


def test_no_best_one_is_said_so(copied, monkeypatch):
    monkeypatch.setattr(loaded.digests, "record", lambda _: {"progress": {}})
    message = refused(copied)
    assert "no best step" in message
    assert "'last', or one of those kept: " in message


def test_damaged_weights(copied):
    runs.damage(copied / "checkpoints" / str(max(runs.checkpoints(copied))))
    assert "is damaged" in refused(copied, "last")
    assert "start the run's command once more" in refused(copied, "last")


def test_a_damaged_record_is_no_matter_of_another_step(copied):
    first, *_, last = sorted(runs.checkpoints(copied))
    (copied / "checkpoints" / str(first) / "metrics" / "metrics").write_text("{")
    assert train.load_run(copied, "last").step == last
    assert f"take another step of {first}, " in refused(copied, first)


@pytest.mark.parametrize("name", ["0{}", "00{}", "\u0661\u0662"])
def test_a_renamed_checkpoint_is_not_overlooked(copied, name):
    last = copied / "checkpoints" / str(max(runs.checkpoints(copied)))
    renamed = last.rename(last.with_name(name.format(last.name)))
    message = f"checkpoint {renamed}: rename it back to {last.name}"
    assert refused(copied, "last") == message
    with pytest.raises(errors.UserError, match="rename it back"):
        checkpoint.Checkpoints(copied)
    assert renamed.is_dir()


def test_a_folder_of_a_later_version(copied):
    path = copied / data_record.FILE
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"format": 2, "sam_jax": "9.0", "new": [1]}))
    message = refused(copied)
    assert "of a later version, sam_jax 9.0" in message
    assert "update sam_jax" in message

    path = copied / workdir.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"telepathy": True}))
    message = refused(copied)
    assert "telepathy" in message
    assert "by another version" in message


WRONG = {
    "image_shape": ["8x8", [8.0, 8.0, 1.0], [-8, 8, 1], [8, 8]],
    "mean": [None, [0.5, 0.5], ["x"]],
    "std": [[0.0], [[1.0]]],
    "class_names": [3, None, [], [0, 1], [["a"], ["b"]]],
    "name": [None],
    "steps_per_epoch": ["x", 0, True],
    "format": [-1, 1.5, None, math.nan],
}


@pytest.mark.parametrize(("key", "values"), WRONG.items())
def test_a_record_of_the_data_of_another_shape(key, values, tmp_path):
    record = data_record.DataRecord("d", (8, 8, 1), ("a", "b"), (0.5,), (1.0,), 4)
    data_record.write(tmp_path, record)
    assert data_record.read(tmp_path) == record
    for value in values:
        stored = json.dumps(record.plain() | {key: value})
        (tmp_path / data_record.FILE).write_text(stored)
        with pytest.raises(errors.UserError, match=r"damaged: delete it"):
            data_record.read(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": "x"}'])
def test_a_damaged_record_of_the_data(copied, content):
    (copied / data_record.FILE).write_text(content)
    assert "data.json is damaged" in refused(copied)


def test_a_folder_of_an_earlier_version(copied, finished, digits):
    (copied / data_record.FILE).unlink()
    assert "has no data.json" in refused(copied)
    image = np.full((1, 8, 8, 1), 99, np.uint8)
    expected = train.load_run(finished.folder).predict(image)
    found = train.load_run(copied, dataset=digits).predict(image)
    np.testing.assert_array_equal(found, expected)
    # The other advice: the run's command once more.
    train.train_and_evaluate(finished.config, copied)
    np.testing.assert_array_equal(train.load_run(copied).predict(image), expected)


def test_settings_that_are_no_text_are_given(copied, finished):
    path = copied / workdir.CONFIG_FILE
    stored = json.loads(path.read_text())
    stored["method"]["rho"] = "a function"
    path.write_text(json.dumps(stored))
    assert "config=" in refused(copied)
    assert train.load_run(copied, config=finished.config).config == finished.config


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 9, 8, 1), np.uint8), "uint8 of shape (2, 9, 8, 1)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "(8, 8, 1)"),
        (np.zeros((2, 8, 8, 1), np.float32), "float32 of shape (2, 8, 8, 1)"),
        (np.zeros((8, 8, 1), np.uint8), "images[None]"),
        ([np.zeros((8, 8, 1), np.uint8), np.zeros((4, 4, 1), np.uint8)], "image 1 is"),
        ([np.zeros((8, 8, 1))], "image 0 is float64"),
    ],
)
def test_images_that_do_not_fit(finished, images, message):
    with pytest.raises(errors.UserError) as raised:
        train.load_run(finished.folder).predict(images)
    assert message in str(raised.value)


def test_a_batch_of_no_size_is_refused(finished):
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got -5"):
        train.load_run(finished.folder).predict(np.zeros((2, 8, 8, 1), np.uint8), -5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 10], "labels are 0 to 10"),
        ([-1, 3], "labels are -1 to 3"),
        ([0.5, 1.0], "2 integers"),
        ([1], "2 integers"),
    ],
)
def test_labels_that_do_not_fit(finished, labels, message):
    images = np.zeros((2, 8, 8, 1), np.uint8)
    run = train.load_run(finished.folder)
    with pytest.raises(errors.UserError, match=message):
        run.evaluate((images, np.array(labels)))
    with pytest.raises(errors.UserError, match="no examples"):
        run.evaluate((images[:0], np.zeros(0, int)))


def test_a_batch_without_an_example_is_left_out(finished, digits):
    class Broken:
        eval_batch_size = 10

        def eval_batches(self, _):
            for number, batch in enumerate(digits.test.eval_batches(10)):
                yield batch | {"mask": np.full(10, number == self.whole)}

    run, source = train.load_run(finished.folder), Broken()
    source.whole = 1
    assert run.evaluate(source).examples == 10
    source.whole = None
    with pytest.raises(errors.UserError, match="no examples"):
        run.evaluate(source)


@pytest.mark.parametrize("names", ["9876543210", "012"])
def test_a_data_set_of_other_classes(finished, digits, names):
    run = train.load_run(finished.folder)
    other = dataclasses.replace(digits, class_names=tuple(names))
    with pytest.raises(errors.UserError, match=r"the classes .* in the same order"):
        run.evaluate(other)
    assert run.evaluate(digits).examples == run.evaluate(other.test).examples


def test_a_split_that_is_not_there(finished):
    run = train.load_run(finished.folder)
    with pytest.raises(errors.UserError, match="unknown split 'val': There are"):
        run.evaluate(split="val")
    with pytest.raises(errors.UserError, match="has no validation set"):
        run.evaluate(data.load("digits", validation=0), "validation")
