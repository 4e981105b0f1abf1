"""Prepared data and archives that are damaged: the same examples, or one sentence."""

import gzip
import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sam_jax import data, errors
from sam_jax.data import tfds as reader
from tests.data import archives

TRAIN = "mnist-train.array_record-00000-of-00001"
TEST = "mnist-test.array_record-00000-of-00001"
INFO = "dataset_info.json"
FILES = (INFO, "features.json", TRAIN, TEST)


def load(data_dir, name="mnist"):
    return data.load(name, data_dir=str(data_dir), download=False, validation=0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return archives.prepare(tmp_path_factory.mktemp("prepared"), "mnist")


@pytest.fixture(scope="module")
def intact(prepared):
    return load(prepared)


@pytest.fixture
def folder(prepared, tmp_path):
    """A copy to damage: the folder of the files, in its data_dir."""
    shutil.copytree(prepared, tmp_path / "data")
    (info,) = (tmp_path / "data").rglob(INFO)
    return info.parent


def refusal(folder):
    """The one sentence about a folder that cannot be read."""
    with pytest.raises(errors.UserError) as caught:
        load(folder.parents[1])
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    assert str(folder.parent) in message
    assert f"delete {folder.parent} if" in message or "delete that folder" in message
    return message


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[0 if path.suffix == ".json" else 5000] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("name", [TRAIN, TEST, INFO])
@pytest.mark.parametrize(
    "damage",
    [lambda path: path.unlink(), lambda path: path.write_bytes(b""), cut, flip],
)
def test_damaged_files_are_refused(name, damage, folder):
    damage(folder / name)
    refusal(folder)


def test_an_info_that_is_missing_is_called_missing(folder):
    (folder / INFO).unlink()
    assert f"in {folder} is damaged: {INFO} is missing; delete" in refusal(folder)


@pytest.mark.parametrize("length", [70, 50, 0, -1, 10**11, 2**70, "x", None])
def test_numbers_of_examples_that_are_not_those_of_the_files(length, folder):
    info = json.loads((folder / INFO).read_text())
    info["splits"][0]["shardLengths"] = [length]
    (folder / INFO).write_text(json.dumps(info))
    message = refusal(folder)
    if length in (70, 50, 10**11):
        assert f"{TRAIN} has 60 examples, {INFO} says {length}" in message


def test_files_that_were_swapped_are_refused(folder):
    (folder / TRAIN).rename(folder / "x")
    (folder / TEST).rename(folder / TRAIN)
    (folder / "x").rename(folder / TEST)
    assert f"{TRAIN} has 30 examples, {INFO} says 60" in refusal(folder)


def test_images_of_another_shape_are_refused(folder, monkeypatch):
    feature = tfds.features.Image
    monkeypatch.setattr(
        feature, "decode_example_np", lambda *_: np.zeros((1, 1, 1), np.uint8)
    )
    assert "an image of train is (1, 1, 1)" in refusal(folder)


@given(
    name=st.sampled_from(FILES),
    place=st.floats(0, 1),
    removed=st.sampled_from([0, 1, 16, 4096, 2**20]),
    written=st.one_of(st.binary(max_size=20), st.sampled_from([b"0", b"9", b'"'])),
)
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_range_of_bytes_of_any_file(
    name, place, removed, written, folder, prepared, intact
):
    shutil.copytree(prepared, folder.parents[1], dirs_exist_ok=True)
    content = (folder / name).read_bytes()
    start = int(place * len(content))
    (folder / name).write_bytes(content[:start] + written + content[start + removed :])
    try:
        found = load(folder.parents[1])
    except errors.UserError as error:
        assert "\n" not in str(error)
        assert str(folder.parent) in str(error)
        return
    for split in ("train", "test"):
        ours, theirs = getattr(found, split).split, getattr(intact, split).split
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


@pytest.mark.parametrize("version", ["9.9.9", "1.0.0"])
def test_a_version_that_tfds_lacks_is_one_line(version, prepared, tmp_path):
    with pytest.raises(errors.UserError, match=rf"{version}.*only: 3\..*version, or d"):
        load(prepared, f"mnist:{version}")
    with pytest.raises(errors.UserError, match=r"variant and version$"):
        load(tmp_path, f"mnist:{version}")


def test_a_version_that_was_prepared_is_read(prepared, intact):
    found = load(prepared, "mnist:3.0.1")
    np.testing.assert_array_equal(found.train.split.images, intact.train.split.images)


@pytest.mark.parametrize(
    "name",
    ["huggingface:mnist", "namespace:mnist", "a:b:1.0.0", "mnist/x=1", "../mnist", ""],
)
def test_names_that_could_fetch_code_never_reach_tfds(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "builder", None)
    words = "unknown data set .* leading NAMESPACE:"
    with pytest.raises(errors.UserError, match=words):
        load(tmp_path, name)


@pytest.mark.parametrize("name", ["tfds:digits", "digits:1.0.0"])
def test_what_is_not_of_tfds_is_named(name, tmp_path):
    with pytest.raises(errors.UserError, match=r"not of TFDS .* give name=digits"):
        load(tmp_path, name)


def cut_inside(path):
    path.write_bytes(path.read_bytes()[:-200])


def short(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:40]))


def labels_out_of_range(path):
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:-1] + b"\xff"))


@pytest.mark.parametrize(
    ("number", "damage", "reason"),
    [
        (0, cut_inside, "end-of-stream"),
        (0, short, "reshape"),
        (1, labels_out_of_range, "label 255 greater than .* 10"),
    ],
)
def test_archives_of_the_right_checksum_that_are_damaged(
    number, damage, reason, tmp_path, monkeypatch
):
    train = archives.random_split(60, (28, 28, 1))
    test = archives.random_split(30, (28, 28, 1))
    paths = archives.write_mnist(tmp_path, train, test)
    damage(paths[number])
    archives.accept(monkeypatch, "mnist", paths)
    archives.accept_mnist_sizes(monkeypatch, train, test)
    folders = {"manual_dir": str(tmp_path), "data_dir": str(tmp_path / "data")}
    with pytest.raises(errors.UserError, match=reason) as caught:
        data.load("mnist", download=False, **folders)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    assert "its archives are damaged" in message and "fetch them again" in message
    assert not list((tmp_path / "data").glob("extract_*"))


class SamJaxBroken(tfds.core.GeneratorBasedBuilder):
    """A builder of the user's, with a mistake in it."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(4, 4, 1)),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        yield 1, {"image": np.zeros((4, 4, 1), np.uint8), "label": 1 // 0}


def test_mistakes_in_programs_keep_their_traceback(prepared, tmp_path, monkeypatch):
    with pytest.raises(ZeroDivisionError):
        data.load("sam_jax_broken", data_dir=str(tmp_path))
    monkeypatch.setattr(reader, "_READ_AT_ONCE", "many")
    with pytest.raises(TypeError, match="str"):
        load(prepared)
