"""Folders of images: what is read, how it is divided, what is refused."""

import os
import unicodedata

import numpy as np
import pytest

from sam_jax import data, errors
from tests.data import images

SPLITS = {"train/cat": 6, "train/dog": 5, "test/cat": 2, "test/dog": 2}


def load(path, name="folder", **changes):
    given = {"path": str(path), "cache_dir": "", "validation": 0} | changes
    return data.load(name, **given)


def refused(path, **changes):
    """The sentence with which a folder is refused."""
    with pytest.raises(errors.UserError) as caught:
        load(path, **changes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_train_and_test(tmp_path):
    found = load(images.folder(tmp_path, SPLITS))
    assert found.class_names == ("cat", "dog") and found.num_classes == 2
    assert found.image_shape == (4, 4, 3)
    for split, first, labels in (
        (found.train.split, 0, [0] * 6 + [1] * 5),
        (found.test.split, 11, [0, 0, 1, 1]),
    ):
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.labels, labels)
        for place, image in enumerate(split.images):
            np.testing.assert_array_equal(image, images.pixels(first + place))


def test_validation_is_held_out_of_train(tmp_path):
    found = load(images.folder(tmp_path, SPLITS), validation=3)
    sources = found.train, found.validation, found.test
    assert [source.num_examples for source in sources] == [8, 3, 4]


@pytest.mark.parametrize("name", ["val", "validation", "TEST"])
def test_the_test_set_has_several_names(name, tmp_path):
    sizes = {
        k.replace("test", name).replace("train", "Train"): SPLITS[k] for k in SPLITS
    }
    assert load(images.folder(tmp_path, sizes)).test.num_examples == 4


def test_a_second_test_set_is_reported(tmp_path, caplog):
    images.folder(tmp_path, SPLITS | {"val/cat": 1, "extra/cat": 1})
    assert load(tmp_path).test.num_examples == 4
    first, second = (record.getMessage() for record in caplog.records)
    assert "test set is test, and val is not read" in first
    assert "1 names in" in second and second.endswith("/extra")


def test_one_folder_is_divided_by_the_seed(tmp_path):
    images.folder(tmp_path, {"a": 20, "b": 10, "c": 1})
    first, again, other = (load(tmp_path, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(np.bincount(first.test.split.labels), [4, 2])
    np.testing.assert_array_equal(first.test.split.images, again.test.split.images)
    assert not np.array_equal(first.test.split.images, other.test.split.images)
    both = np.concatenate([first.train.split.images, first.test.split.images])
    assert len(both) == len(np.unique(both, axis=0)) == 31


def test_what_systems_leave_is_ignored(tmp_path, caplog):
    images.folder(tmp_path, {**SPLITS, "train/.thumbnails": 1, "__MACOSX/train": 1})
    for name in ("train/.DS_Store", "train/cat/Thumbs.db", "train/cat/._0.png", ".git"):
        (tmp_path / name).write_bytes(b"x")
    assert load(tmp_path).train.num_examples == 11
    assert not caplog.records
    (tmp_path / "train/cat/notes.txt").touch()
    os.mkfifo(tmp_path / "train/dog/pipe.png")  # would wait forever if it were opened
    assert load(tmp_path).train.num_examples == 11
    (record,) = caplog.records
    assert record.getMessage().startswith("2 names in")


def test_names_of_classes_are_unicode_in_one_form(tmp_path):
    form = unicodedata.normalize
    images.folder(
        tmp_path,
        {
            f"train/{form('NFD', 'café')}": 2,
            f"test/{form('NFC', 'café')}": 1,
            "train/bar": 2,
            "test/bar": 1,
        },
    )
    assert load(tmp_path).class_names == ("bar", form("NFC", "café"))


def test_statistics_are_computed_or_given(tmp_path):
    images.folder(tmp_path, SPLITS)
    found = load(tmp_path)
    pixels = found.train.split.images / 255
    np.testing.assert_allclose(found.mean, pixels.mean((0, 1, 2)))
    np.testing.assert_allclose(found.std, pixels.std((0, 1, 2)))
    given = load(tmp_path, mean=(0.5, 0.25, 0.0), std=(1, 0.5, 0.25))
    assert given.mean == (0.5, 0.25, 0.0) and given.std == (1, 0.5, 0.25)
    for wrong in ({"mean": (0.5,)}, {"mean": (120, 0, 0)}, {"std": (0.5, 0.5, 0.0)}):
        (setting,) = wrong
        assert refused(tmp_path, **wrong).startswith(f"{setting}=(")
    assert "nan" in refused(tmp_path, mean=(0.5, 0.5, float("nan")))


def test_sizes(tmp_path):
    images.folder(tmp_path, {"a": 4})
    images.folder(tmp_path, {"b": 4}, side=7)
    assert "have different sizes" in refused(tmp_path)
    for resize in ("squash", "crop", "pad"):
        assert load(tmp_path, image_size=6, resize=resize).image_shape == (6, 6, 3)


def test_broken_images_are_named_or_left_out(tmp_path):
    images.folder(tmp_path, SPLITS)
    (tmp_path / "train/cat/3.png").write_text("no image")
    message = refused(tmp_path)
    assert "train/cat/3.png cannot be read" in message and "skip_broken" in message
    found = load(tmp_path, skip_broken=True)
    np.testing.assert_array_equal(found.train.split.labels, [0] * 5 + [1] * 5)
    np.testing.assert_array_equal(found.test.split.labels, [0, 0, 1, 1])
    np.testing.assert_array_equal(found.train.split.images[3], images.pixels(4))
    for index in range(5):
        (tmp_path / f"train/dog/{index}.png").write_text("no image")
    assert "no image of class 'dog'" in refused(tmp_path, skip_broken=True)


@pytest.mark.parametrize(
    ("sizes", "files", "said"),
    [
        (SPLITS | {"train/emu": 0}, ["train/emu/.x"], "train/emu has no image"),
        (SPLITS | {"train/emu": 0}, ["train/emu/a.txt"], "train/emu has no image"),
        (SPLITS | {"test/emu": 1}, [], "1 of its classes in test and not in train"),
        (SPLITS | {"train/emu": 1}, [], "classes in train and not in test ('emu')"),
        (SPLITS | {"train/Cat": 1}, [], "classes 'Cat' and 'cat', one name"),
        (SPLITS | {"train/cat ": 1}, [], "classes 'cat' and 'cat ', one name"),
        (SPLITS | {"test/CAT": 1}, [], "classes 'CAT' and 'cat', one name"),
        (
            SPLITS | {"train/cafe\u0301": 1, "train/caf\u00e9": 1},
            [],
            "forms of Unicode",
        ),
        ({"train/a": 1, "train/b": 1}, [], "has train and none of test, val"),
        ({"test/a": 1, "test/b": 1}, [], "has test and no train"),
        ({"train/a": 2, "train/b": 2}, ["test/1.png"], "test/1.png has no class"),
        ({}, ["1.png", "2.png"], "1.png has no class: images belong in"),
        ({}, [], "has no images: they belong in a folder for each class"),
        ({}, ["readme.txt"], "has no images: they belong in a folder for each class"),
        ({"deep/train/a": 1}, [], "deep has no image"),
        ({"a": 1, "b": 1}, [], "has no image of class"),
        ({"a": 9}, [], "has 1 class: classification needs at least 2"),
    ],
)
def test_folders_that_are_refused(sizes, files, said, tmp_path):
    images.folder(tmp_path, sizes)
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert said in refused(tmp_path)


def test_names_that_are_no_text_are_refused(tmp_path):
    images.folder(tmp_path, SPLITS)
    for name in (b"train/new\nline", b"train/\xff"):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.makedirs(folder)
        assert "characters that are not text" in refused(tmp_path)
        os.rmdir(folder)


def test_names_of_files_and_folders_may_be_anything(tmp_path):
    root = tmp_path / os.fsdecode(b"a\xffb\n")
    images.folder(root, SPLITS)
    os.rename(root / "train/cat/0.png", root / os.fsdecode(b"train/cat/0\xff.png"))
    cache = str(tmp_path / "cache")
    assert load(root, cache_dir=cache).train.num_examples == 11
    assert len(os.listdir(cache)) == 1


def test_paths_that_are_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert "does not exist" in refused(tmp_path / "nothing")
    assert "is not a folder" in refused(tmp_path / "file")
    with pytest.raises(errors.UserError, match="name=folder needs a path"):
        data.load("folder")
    images.folder(tmp_path / "a", SPLITS)
    locked, scandir = tmp_path / "a/train/cat", os.scandir

    def scan(path):
        if str(path) == str(locked):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    assert "cat cannot be read (Permission denied)" in refused(tmp_path / "a")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": "x"}, "path is for your own images, and name=digits"),
        ({"image_size": 8}, "image_size is for your own images"),
        ({"skip_broken": True}, "skip_broken is for your own images"),
    ],
)
def test_settings_of_files_are_for_files(settings, said):
    with pytest.raises(errors.UserError, match=said):
        data.load("digits", **settings)


def test_class_names_of_digits():
    assert data.load("digits").class_names == tuple("0123456789")


def test_the_seed_of_a_folder_decides_nothing_in_the_cache(tmp_path):
    images.folder(tmp_path / "images", {"a": 5, "b": 5})
    cache = tmp_path / "cache"
    for seed in (0, 1):
        kept = load(tmp_path / "images", seed=seed, cache_dir=str(cache))
        fresh = load(tmp_path / "images", seed=seed)
        assert data.fingerprint(kept) == data.fingerprint(fresh)
    assert len(list(cache.iterdir())) == 1
