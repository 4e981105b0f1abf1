"""Arrays of one's own."""

import zipfile

import numpy as np
import pytest

from sam_jax import data, errors

X = np.random.default_rng(0).integers(0, 256, (12, 5, 4, 3), np.uint8)
Y = np.arange(12) % 3
KERAS = {"x_train": X, "y_train": Y, "x_test": X[:4], "y_test": Y[:4]}


def load(folder, arrays, **changes):
    np.savez(folder / "own.npz", **arrays)
    return data.load("npz", path=str(folder / "own.npz"), validation=0, **changes)


def test_as_keras_has_it(tmp_path):
    found = load(tmp_path, KERAS)
    np.testing.assert_array_equal(found.train.split.images, X)
    np.testing.assert_array_equal(found.train.split.labels, Y)
    np.testing.assert_array_equal(found.test.split.images, X[:4])
    assert found.train.split.labels.dtype == np.int32
    assert found.class_names == ("0", "1", "2")


def test_grey_images_columns_of_labels_and_names(tmp_path):
    arrays = KERAS | {"x_train": X[..., 0], "x_test": X[:4, ..., 0]}
    arrays |= {"y_train": Y[:, None], "class_names": np.array(["a", "b", "c", "d"])}
    found = load(tmp_path, arrays)
    assert found.image_shape == (5, 4, 1)
    assert found.class_names == ("a", "b", "c", "d")


def test_one_set_is_divided_by_the_seed(tmp_path):
    found = load(tmp_path, {"x": X, "y": Y})
    assert (found.train.num_examples, found.test.num_examples) == (10, 2)


def test_what_is_not_read_is_reported(tmp_path, caplog):
    load(tmp_path, KERAS | {"x_val": X})
    assert caplog.records[0].getMessage().endswith("own.npz: x_val is not read")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"x_train": X / 255}, "x_train is float64, and images must be uint8"),
        ({"x_test": X[:4].astype(int)}, "x_test is int64, and images must be uint8"),
        ({"x_train": X[:, 0, :, 0]}, r"x_train has shape \(12, 4\)"),
        (
            {"x_train": np.moveaxis(X, -1, 1)},
            r"shape \(12, 3, 5, 4\), .* channels last",
        ),
        *(
            ({"x_test": empty, "y_test": Y[:0]}, "x_test has shape .*, which is empty")
            for empty in (X[:0], X[:0, 0, 0], X[:0, :3, :3])
        ),
        ({"x_test": X[:4, :3, :3]}, "both must be of one shape"),
        ({"y_train": Y[:11]}, "one integer for each of the 12 images"),
        ({"y_train": np.eye(3)[Y]}, r"y_train is float64 \(12, 3\)"),
        ({"y_train": np.eye(3, dtype=int)[Y]}, r"y_train is int64 \(12, 3\)"),
        ({"y_train": Y - 1}, "y_train has labels -1 to 1"),
        ({"y_train": Y + 1000}, "y_train has labels 1000 to 1002"),
        ({"y_train": Y + 2**32}, "y_train has labels 4294967296"),
        ({"y_test": Y[:4] + 99}, "y_test has labels 99 to 101"),
        ({"class_names": np.array(["a", "b"])}, "labels 0 to 2: .* below 2"),
        (
            {"class_names": np.array(["a", "a", "b"])},
            "'a' and 'a', one name except for",
        ),
        ({"class_names": np.array(["a", "A ", "b"])}, "'A ' and 'a', one name except"),
        ({"class_names": np.array(["a", "b", "\n"])}, "characters that are not text"),
        ({"class_names": np.arange(3)}, "class_names must be two texts"),
        ({"y_train": Y.astype(object)}, "cannot be read: Object arrays"),
        ({"y_test": None}, "has no y_test, but x_train"),
    ],
)
def test_arrays_that_are_refused(wrong, said, tmp_path):
    arrays = {k: v for k, v in (KERAS | wrong).items() if v is not None}
    with pytest.raises(errors.UserError, match=said) as caught:
        load(tmp_path, arrays)
    assert "\n" not in str(caught.value)


def test_files_that_are_refused(tmp_path):
    def refused(path, **settings):
        with pytest.raises(errors.UserError) as caught:
            data.load("npz", path=str(path), **settings)
        return str(caught.value)

    file = tmp_path / "own.npz"
    assert "does not exist" in refused(file)
    assert "is a folder" in refused(tmp_path)
    np.savez(file, **KERAS)
    assert "image_size is for your own images" in refused(file, image_size=3)
    whole = file.read_bytes()
    for content in (b"", b"text", whole[:100], whole[:-30]):
        file.write_bytes(content)
        said = refused(file)
        assert f"{file} cannot be read: " in said and "pickle" not in said
    np.savez(file, z=X)
    assert "has no x, y, but z: give x_train" in refused(file)
    np.savez(file, x=X[:1], y=Y[:1])
    assert "x has one image: give two or more" in refused(file)
    np.savez(file, x=np.uint8(3), y=Y[0])
    assert "x has shape ()" in refused(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", b"text")
        archive.writestr("y", b"text")
    assert "own.npz: x, y is not an array: give" in refused(file)
    np.save(tmp_path / "one.npy", X)
    assert "is a single array" in refused(tmp_path / "one.npy")
