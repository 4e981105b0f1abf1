"""Image files and what a run says of them."""

import csv
import dataclasses
import os

import numpy as np
import pytest
from PIL import Image

from sam_jax import errors
from sam_jax.data import pictures as reading
from sam_jax.train import predictions
from tests.train import runs


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    names = ("cat, black", "dog", "NaN")
    return runs.untrained(tiny(), tmp_path_factory.mktemp("run"), names=names)


@pytest.fixture
def pictures(tmp_path):
    """Forty of them, some deeper in the folder, and what is none."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 8, 8, 1), np.uint8)
    for number, image in enumerate(images):
        name = f"deeper/{number:02}.png" if number < 5 else f"{number:02}.PNG"
        Image.fromarray(image[..., 0]).save(folder / name)
    (folder / "notes.txt").write_text("none")
    return folder, images


def test_of_data_that_were_passed_the_scaling_is_not_known(run, pictures, caplog):
    folder, _ = pictures
    record = dataclasses.replace(run.preprocessing, name="mine")
    other = dataclasses.replace(run, preprocessing=record)
    paths = predictions.image_files([folder])
    found = predictions.predict_files(other, paths)
    np.testing.assert_array_equal(found, predictions.predict_files(run, paths))
    (line,) = (text for text in caplog.messages if "trained on 'mine'" in text)
    assert "scaled to 8x8 without" in line


def refused(function, *args):
    with pytest.raises(errors.UserError) as raised:
        function(*args)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_table_has_every_file_and_class(run, pictures, tmp_path):
    folder, images = pictures
    out = tmp_path / "predictions.csv"
    single = tmp_path / os.fsdecode(b"caf\xe9 1.png")  # no UTF-8
    Image.fromarray(images[0, ..., 0]).save(single)
    found = predictions.predict_to_csv(run, [folder, single], out, batch_size=16)
    assert len(found) == 41
    with out.open(newline="", errors="surrogateescape") as file:
        head, *rows = csv.reader(file)
    assert head == ["path", "class", "p_cat, black", "p_dog", "p_NaN"]
    expected = run.predict(images)
    by_path = {path: row for path, *row in rows}
    assert set(by_path) == set(map(str, found))
    assert by_path[str(single)] == by_path[str(folder / "deeper" / "00.png")]
    for number, shares in enumerate(expected):
        place = f"deeper/{number:02}.png" if number < 5 else f"{number:02}.PNG"
        label, *written = by_path[str(folder / place)]
        np.testing.assert_allclose(np.array(written, float), shares, rtol=1e-5)
        assert label == run.class_names[shares.argmax()]
    assert len({row[0] for row in by_path.values()}) > 1


def test_what_is_no_image_ends_it_with_nothing_written(run, pictures, tmp_path):
    folder, _ = pictures
    out = tmp_path / "predictions.csv"
    for name, content in {"a.png": b"none", "b.png": b"", "c.txt": b"x"}.items():
        path = tmp_path / name
        path.write_bytes(content)
        message = refused(predictions.predict_to_csv, run, [folder, path], out)
        assert str(path) in message
        assert not out.exists()
    whole = (folder / "20.PNG").read_bytes()
    (folder / "20.PNG").write_bytes(whole[: len(whole) // 2])
    assert "20.PNG" in refused(predictions.predict_to_csv, run, [folder], out)
    assert not out.exists()


def test_paths_without_images(run, tmp_path):
    out = tmp_path / "out.csv"
    message = refused(predictions.predict_to_csv, run, [tmp_path / "typo"], out)
    assert "typo does not exist" in message
    # Also with what is not one, and what training ignores.
    folders = (tmp_path / "empty" / x for x in ("dir.png", ".hidden", "__MACOSX/deep"))
    for folder in folders:
        folder.mkdir(parents=True)
    for name in ("._a.jpg", ".hidden/a.png", "__MACOSX/deep/a.png"):
        (tmp_path / "empty" / name).write_text("none")
    message = refused(predictions.predict_to_csv, run, [tmp_path / "empty"], out)
    assert "has no images" in message
    hidden = tmp_path / "empty" / ".hidden"
    assert predictions.image_files([hidden]) == [hidden / "a.png"]


def test_the_table_is_refused_before_anything_is_computed(run, tmp_path, monkeypatch):
    def compute(*args):
        raise AssertionError("too late")

    monkeypatch.setattr(predictions, "image_files", compute)
    out = tmp_path / "there.csv"
    out.write_text("results of a week")
    assert "it exists" in refused(predictions.predict_to_csv, run, [tmp_path], out)
    assert out.read_text() == "results of a week"
    below = out / "x.csv"
    message = refused(predictions.predict_to_csv, run, [tmp_path], below)
    assert f"cannot write {below} (Not a directory)" in message
    missing = tmp_path / "no" / "x.csv"
    message = refused(predictions.predict_to_csv, run, [tmp_path], missing)
    assert "(No such file or directory)" in message
    assert not missing.parent.exists()


def test_files_become_images_of_the_run(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    colours = np.stack([grey, grey * 2, grey * 3], axis=-1)
    path = tmp_path / "x.png"

    def decoded(image, shape):
        image.save(path)
        return predictions.decode(path, shape, reading.How())

    np.testing.assert_array_equal(
        decoded(Image.fromarray(grey), (8, 8, 1))[..., 0], grey
    )
    np.testing.assert_array_equal(decoded(Image.fromarray(colours), (8, 8, 3)), colours)
    # Grey as colours, and colours as grey.
    found = decoded(Image.fromarray(grey), (8, 8, 3))
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))
    found = decoded(Image.fromarray(colours), (8, 8, 1))
    luma = colours @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(found[..., 0], luma, atol=1)
    # 16 bits, of which the upper ones say how bright it is.
    deep = Image.fromarray(grey.astype(np.uint16) * 256 + 5)
    np.testing.assert_array_equal(decoded(deep, (8, 8, 1))[..., 0], grey)
    # Other sizes.
    flat = Image.fromarray(np.full((5, 30), 77, np.uint8))
    np.testing.assert_array_equal(decoded(flat, (8, 8, 1)), np.full((8, 8, 1), 77))
    # As the images of the run's data were.
    tall = Image.fromarray(np.repeat(np.repeat(colours, 3, 0), 2, 1))
    tall.save(path)
    for resize in ("squash", "crop", "pad"):
        how = reading.How(8, resize)
        found = predictions.decode(path, (8, 8, 3), how)
        np.testing.assert_array_equal(found, reading.decode(str(path), how))
