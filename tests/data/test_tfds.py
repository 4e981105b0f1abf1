import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from concurrent import futures

import numpy as np
import pytest
import tensorflow_datasets as tfds

from sam_jax import data, errors
from sam_jax.data import tfds as reading
from tests.data import archives

SHAPES = {"cifar10": (32, 32, 3), "fashion_mnist": (28, 28, 1), "mnist": (28, 28, 1)}
WRITERS = {
    "cifar10": archives.write_cifar10,
    "fashion_mnist": archives.write_mnist,
    "mnist": archives.write_mnist,
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Whatever machine this is: an address that is asked for does not answer."""
    import requests

    def refuse(*args, **kwargs):
        raise requests.ConnectionError("no network in tests")

    monkeypatch.setattr(requests, "head", refuse)
    monkeypatch.setattr(requests.Session, "get", refuse)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Function that writes archives which TFDS takes for those of a data set."""

    def write(name, seed=0):
        train = archives.random_split(60, SHAPES[name], seed=seed)
        test = archives.random_split(30, SHAPES[name], seed=seed + 1)
        folder = tmp_path / f"archives_{name}"
        folder.mkdir()
        archives.accept(monkeypatch, name, WRITERS[name](folder, train, test))
        archives.accept_mnist_sizes(monkeypatch, train, test)
        return str(folder), train, test

    return write


def assert_same_examples(source, split):
    """Equal up to the order, which TFDS shuffles when it prepares."""

    def sorted_examples(images, labels):
        rows = np.concatenate(
            [images.reshape(len(images), -1), labels.reshape(-1, 1)], axis=1
        )
        return rows[np.lexsort(rows.T)]

    found = source.split
    assert found.images.dtype == np.uint8
    assert found.images.shape[1:] == split.images.shape[1:]
    assert found.labels.dtype == np.int32
    np.testing.assert_array_equal(
        sorted_examples(found.images, found.labels),
        sorted_examples(split.images, split.labels),
    )


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
def test_archives_of_the_published_format_are_read(name, published, tmp_path):
    manual_dir, train, test = published(name)
    data_dir = str(tmp_path / "data")
    found = data.load(name, manual_dir=manual_dir, data_dir=data_dir, validation=0)
    assert_same_examples(found.train, train)
    assert_same_examples(found.test, test)
    assert found.num_classes == 10
    first = {"cifar10": "airplane", "fashion_mnist": "T-shirt/top"}[name]
    assert found.class_names[0] == first
    assert found.image_shape == SHAPES[name]
    assert found.mean == data.CATALOG[name].mean
    assert found.std == data.CATALOG[name].std
    # Nothing but prepared data stays: no extracted archives.
    assert not list((tmp_path / "data").glob("extract_*"))

    again = data.load(f"tfds:{name}", data_dir=data_dir, validation=0, download=False)
    assert again.mean == found.mean and again.class_names == found.class_names
    np.testing.assert_array_equal(again.train.split.images, found.train.split.images)
    np.testing.assert_array_equal(again.train.split.labels, found.train.split.labels)


def test_archives_of_the_same_name_are_not_taken_for_each_other(published, tmp_path):
    data_dir = str(tmp_path / "data")
    for seed, name in enumerate(["fashion_mnist", "mnist"]):
        manual_dir, train, _ = published(name, seed=10 * seed)
        found = data.load(name, manual_dir=manual_dir, data_dir=data_dir, validation=0)
        assert_same_examples(found.train, train)


def test_reading_is_silent_and_needs_no_tensorflow(tmp_path):
    data_dir = archives.prepare(tmp_path, "cifar10")
    program = (
        "import sys; from sam_jax import data; "
        f"found = data.load('cifar10', data_dir={str(data_dir)!r}, download=False); "
        "print(found.train.num_examples, 'tensorflow' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "54 False"
    assert ran.stderr == ""


def test_preparing_is_silent_and_leaves_the_environment(
    published, tmp_path, capfd, monkeypatch
):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    manual_dir, _, _ = published("fashion_mnist")
    before = dict(os.environ)
    data.load("fashion_mnist", manual_dir=manual_dir, data_dir=str(tmp_path / "data"))
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == before


def test_of_two_processes_one_prepares_and_the_other_waits(published, tmp_path):
    manual_dir, _, _ = published("mnist")
    prepared = data.load("mnist", manual_dir=manual_dir, data_dir=str(tmp_path / "one"))
    data_dir = tmp_path / "two"
    data_dir.mkdir()
    with (
        (data_dir / ".mnist.lock").open("w") as lock,
        futures.ThreadPoolExecutor(1) as pool,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the process that prepares
        loading = pool.submit(
            data.load, "mnist", manual_dir=manual_dir, data_dir=str(data_dir)
        )
        with pytest.raises(TimeoutError):
            loading.result(timeout=2)
        shutil.move(tmp_path / "one" / "mnist", data_dir)
        made = (data_dir / "mnist").stat().st_mtime_ns
        fcntl.flock(lock, fcntl.LOCK_UN)
        found = loading.result()
    assert (data_dir / "mnist").stat().st_mtime_ns == made
    np.testing.assert_array_equal(found.train.split.images, prepared.train.split.images)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"download": False}, "downloading is off"),
        ({}, "cifar-10-binary.tar.gz cannot be reached"),
    ],
)
def test_missing_archives_are_named(settings, reason, tmp_path):
    with pytest.raises(errors.UserError) as caught:
        data.load("cifar10", data_dir=str(tmp_path / "data"), **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert reason in message
    assert "wanted are cifar-10-binary.tar.gz" in message
    assert "manual_dir=DIR" in message
    assert "data_dir=DIR" in message


def test_archives_missing_in_part_are_named(published, tmp_path):
    manual_dir, _, _ = published("fashion_mnist")
    os.remove(os.path.join(manual_dir, "t10k-labels-idx1-ubyte.gz"))
    with pytest.raises(
        errors.UserError, match=r"wanted are t10k-labels-idx1-ubyte.gz:"
    ):
        data.load(
            "fashion_mnist", manual_dir=manual_dir, data_dir=str(tmp_path / "data")
        )


def test_a_connection_that_breaks_is_reported(tmp_path, monkeypatch):
    import requests

    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: None)
    with pytest.raises(errors.UserError, match=r"cannot fetch .* no network in tests"):
        data.load("cifar10", data_dir=str(tmp_path / "data"))


def test_a_manual_dir_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match=r"manual_dir=.*nowhere is not a folder"):
        data.load(
            "cifar10",
            manual_dir=str(tmp_path / "nowhere"),
            data_dir=str(tmp_path / "data"),
        )


def test_a_damaged_archive_is_refused_and_the_next_try_works(published, tmp_path):
    manual_dir, train, _ = published("cifar10")
    archive = os.path.join(manual_dir, "cifar-10-binary.tar.gz")
    with open(archive, "rb") as file:
        content = file.read()
    with open(archive, "wb") as file:
        file.write(content[:-1])
    settings = dict(manual_dir=manual_dir, data_dir=str(tmp_path / "data"))
    with pytest.raises(errors.UserError) as caught:
        data.load("cifar10", **settings)
    assert "\n" not in str(caught.value)
    assert "damaged" in str(caught.value)
    assert archive in str(caught.value)
    with open(archive, "wb") as file:
        file.write(content)
    found = data.load("cifar10", validation=0, **settings)
    assert_same_examples(found.train, train)


def test_a_data_dir_that_cannot_be_written_is_refused(published, tmp_path):
    manual_dir, _, _ = published("cifar10")
    (tmp_path / "file").write_text("in the way")
    data_dir = str(tmp_path / "file" / "data")
    with pytest.raises(errors.UserError, match=r"data_dir=.*file/data: .* written"):
        data.load("cifar10", manual_dir=manual_dir, data_dir=data_dir)


def test_data_prepared_in_another_format_are_refused(published, tmp_path):
    manual_dir, _, _ = published("cifar10")
    data_dir = str(tmp_path / "data")
    with contextlib.redirect_stdout(None):
        tfds.builder("cifar10", data_dir=data_dir).download_and_prepare(
            file_format="tfrecord",
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
        )
    with pytest.raises(errors.UserError, match="was prepared as tfrecord"):
        data.load("cifar10", data_dir=data_dir)


@pytest.mark.parametrize("package", ["tensorflow_datasets", "tensorflow"])
def test_a_missing_package_is_named(package, published, tmp_path, monkeypatch):
    manual_dir, _, _ = published("cifar10")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(errors.UserError, match=rf"{package}.*sam_jax\[tfds\]"):
        data.load("cifar10", manual_dir=manual_dir, data_dir=str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("cifra10", "cifar10"), ("digit", "digits"), ("stanford_dog", "stanford_dogs")],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest, tmp_path):
    with pytest.raises(errors.UserError) as caught:
        data.load(name, data_dir=str(tmp_path))
    message = str(caught.value)
    assert f"did you mean '{nearest}'?" in message
    assert ", tiny_imagenet, and those of TFDS" in message
    assert "\n" not in message
    assert len(message) < 300


def test_an_unknown_variant_is_one_line(tmp_path):
    with pytest.raises(errors.UserError, match="'emnist/nope' cannot be opened"):
        data.load("emnist/nope", data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["imagenet2012", "ag_news_subset"])
def test_what_is_no_image_classification_of_one_shape_is_refused(name, tmp_path):
    with pytest.raises(errors.UserError, match=f"{name}' does not fit"):
        data.load(name, data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["imagenet2012", "imagenette"])
def test_images_of_any_shape_may_be_streamed(name, tmp_path):
    given = {"data_dir": str(tmp_path), "download": False, "image_size": 8}
    with pytest.raises(errors.UserError, match=f"{name}' is not prepared in"):
        data.load_streamed(name, manual_dir=str(tmp_path), **given)


class SamJaxTwoSquares(tfds.core.GeneratorBasedBuilder):
    """A set that no catalog knows: made here, without archives."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = ("train", "test")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(4, 5, 3)),
                    "label": tfds.features.ClassLabel(num_classes=2),
                }
            )
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples() for split in self.SPLITS}

    def _generate_examples(self):
        for number in range(20):
            image = np.full((4, 5, 3), number, np.uint8)
            image[..., 1] = 255 * (number % 2)
            image[..., 2] = 7
            yield number, {"image": image, "label": number % 2}


class SamJaxUnlabelledTest(SamJaxTwoSquares):
    """Likewise, with labels of -1 in the test set."""

    SPLITS = ("train", "test", "validation")

    def _split_generators(self, dl_manager):
        found = super()._split_generators(dl_manager)
        unlabelled = ((k, x | {"label": -1}) for k, x in found["test"])
        return found | {"test": unlabelled}


def test_an_unlabelled_test_set_is_not_tested_on(tmp_path):
    given = {"data_dir": str(tmp_path), "image_size": 4, "validation": 0}
    found = data.load_streamed("sam_jax_unlabelled_test", **given)
    (batch,) = found.test.eval_batches(20)
    assert sorted(batch["true_label"]) == [0] * 10 + [1] * 10
    builder = tfds.builder("sam_jax_unlabelled_test", data_dir=str(tmp_path))
    source = builder.as_data_source("test")
    with pytest.raises(errors.UserError, match="example 3 of test has no label"):
        reading.Records(source, "test")(3)
    with pytest.raises(errors.UserError, match="labels -1 to -1"):
        data.load("sam_jax_unlabelled_test", data_dir=str(tmp_path))


class SamJaxPhotographs(SamJaxTwoSquares):
    """Likewise, of JPEGs that have sizes of their own, as those of ImageNet."""

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        label = tfds.features.ClassLabel(num_classes=2)
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return self.dataset_info_from_configs(features=features)

    def _generate_examples(self):
        for number in range(20):
            color = np.uint8([12 * number, 255 * (number % 2), 7])
            image = np.tile(color, (10 + number, 40 - number, 1))
            yield number, {"image": image, "label": number % 2}


def test_jpegs_of_different_sizes_are_streamed(tmp_path):
    given = {"data_dir": str(tmp_path), "image_size": 8, "validation": 0}
    found = data.load_streamed("sam_jax_photographs", resized_crop=0.5, **given)
    assert found.image_shape == (8, 8, 3) and found.num_classes == 2
    for source in (found.train, found.test):
        (batch,) = source.eval_batches(20)
        means = batch["image"].astype(float).mean((1, 2))
        order = np.argsort(means[:, 0])
        np.testing.assert_allclose(means[order, 0], 12 * np.arange(20), atol=3)
        assert ((means[:, 1] > 128) == batch["label"].astype(bool)).all()
    batch = next(found.train.batches(batch_size=16, seed=0))  # of random crops
    assert ((batch["image"].mean((1, 2))[:, 1] > 128) == (batch["label"] == 1)).all()


class SamJaxOnlyTrain(SamJaxTwoSquares):
    """Likewise, without a test split."""

    SPLITS = ("train",)


def test_a_set_outside_the_catalog_has_computed_statistics(tmp_path):
    found = data.load("sam_jax_two_squares", data_dir=str(tmp_path), validation=5)
    assert found.class_names == ("0", "1")
    assert found.image_shape == (4, 5, 3)
    numbers = np.arange(20) / 255
    # Over all 20 examples of the original training set; a constant channel has the
    # floor as its deviation.
    assert found.mean == pytest.approx((numbers.mean(), 0.5, 7 / 255))
    assert found.std == pytest.approx((numbers.std(), 0.5, 1 / 255))


def test_a_set_without_test_split_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="has splits train: train and test"):
        data.load("sam_jax_only_train", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "name", sorted(data.CATALOG.keys() - {"digits", "tiny_imagenet"})
)
def test_the_catalog_agrees_with_tfds(name, tmp_path):
    info = tfds.builder(name, data_dir=str(tmp_path)).info
    entry = data.CATALOG[name]
    assert info.features["image"].shape == entry.image_shape
    assert info.features["label"].num_classes == entry.num_classes
    assert len(entry.mean) == len(entry.std) == entry.image_shape[-1]


@pytest.mark.slow("reads 70,000 images")
@pytest.mark.skipif(
    "FASHION_MNIST_ARCHIVES" not in os.environ,
    reason="set FASHION_MNIST_ARCHIVES to the folder of the four published archives",
)
def test_the_published_fashion_mnist(tmp_path):
    settings = dict(data_dir=str(tmp_path / "data"), validation=0)
    manual_dir = os.environ["FASHION_MNIST_ARCHIVES"]
    found = data.load("fashion_mnist", manual_dir=manual_dir, **settings)
    entry = data.CATALOG["fashion_mnist"]
    train, test = found.train.split, found.test.split
    assert train.images.shape == (entry.train_examples, *entry.image_shape)
    assert test.images.shape == (entry.test_examples, *entry.image_shape)
    np.testing.assert_array_equal(np.bincount(train.labels), np.full(10, 6000))
    np.testing.assert_array_equal(np.bincount(test.labels), np.full(10, 1000))
    assert entry.mean == pytest.approx([train.images.mean() / 255], abs=5e-5)
    assert entry.std == pytest.approx([train.images.std() / 255], abs=5e-5)
    again = data.load("fashion_mnist", download=False, **settings)
    np.testing.assert_array_equal(again.train.split.images, train.images)
