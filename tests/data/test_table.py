"""Tables of images."""

import numpy as np
import pytest

from sam_jax import data, errors
from tests.data import images


@pytest.fixture
def folder(tmp_path):
    return images.folder(tmp_path, {"img": 12})


def write(path, rows, header="path,label"):
    path.write_text("\n".join([header, *rows]), "utf-8")
    return path


def load(path, **changes):
    return data.load("csv", path=str(path), cache_dir="", validation=0, **changes)


def rows(numbers):
    return [f"img/{k}.png,{'cat' if k % 2 else 'dog'}" for k in numbers]


def test_one_table_is_divided_by_the_seed(folder):
    found = load(write(folder / "all.csv", rows(range(12))))
    assert found.class_names == ("cat", "dog")
    assert (found.train.num_examples, found.test.num_examples) == (10, 2)
    known = {images.pixels(k).tobytes(): 1 - k % 2 for k in range(12)}
    for split in (found.train.split, found.test.split):
        assert [known[image.tobytes()] for image in split.images] == list(split.labels)


def test_files_that_are_there_twice_are_said(folder, caplog):
    write(folder / "train.csv", [*rows(range(8)), *rows(range(2))])
    write(folder / "test.csv", ["img/9.png,cat", "./img/0.png,dog"])
    assert load(folder).train.num_examples == 10
    first, second = caplog.messages
    assert "train.csv names 2 files more than once" in first
    assert "1 files are to train on and to test on" in second
    write(folder / "train.csv", ["img/0.png,cat", "./img/0.png,dog"])
    with pytest.raises(errors.UserError, match="has labels 'cat' and 'dog'"):
        load(folder)


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_two_tables(test, folder):
    # A BOM, spaces, a quoted comma and columns of others, as Excel and others write.
    write(
        folder / "train.csv", [r + ",7" for r in rows(range(8))], "\ufeffpath, label,n"
    )
    (folder / "a, b.png").write_bytes((folder / "img/9.png").read_bytes())
    write(folder / f"{test}.csv", ['"a, b.png",cat', "", f"{folder}/img/8.png, dog "])
    found = load(folder)
    np.testing.assert_array_equal(found.train.split.labels, [1, 0] * 4)
    np.testing.assert_array_equal(found.test.split.labels, [0, 1])
    np.testing.assert_array_equal(found.test.split.images[0], images.pixels(9))


@pytest.mark.parametrize(
    ("lines", "header", "said"),
    [
        (["a.png;cat"], "path;label", r"has columns \['path;label'\]: give a header"),
        (["a.png,cat"], "file,class", "has columns"),
        (["a.png,cat,dog"], "path,label,label", "several columns label: rename"),
        ([], "", "has columns"),
        ([], "path,label", "has no rows"),
        (
            ["img/0.png,cat", "no.png,dog"],
            "path,label",
            "line 3: there is no file .*no",
        ),
        (["img,cat"], "path,label", "line 2: there is no file"),
        (["img/0.png,"], "path,label", "line 2: a label is missing"),
        (["img/0.png"], "path,label", "line 2: a label is missing"),
        ([",cat"], "path,label", "line 2: a path is missing"),
        (
            ["img/0.png,a", "img/0.png,b"],
            "path,label",
            "labels 'a' and 'b': give it one",
        ),
        (["img/0.png,Cat", "img/1.png,cat"], "path,label", "classes 'Cat' and 'cat'"),
        (['img/0.png,"a'], "path,label", "cannot be read: unexpected end"),
    ],
)
def test_tables_that_are_refused(lines, header, said, folder):
    with pytest.raises(errors.UserError, match=said) as caught:
        load(write(folder / "all.csv", lines, header))
    assert "\n" not in str(caught.value)


def test_files_that_are_refused(folder):
    with pytest.raises(errors.UserError, match="does not exist"):
        load(folder / "nothing.csv")
    with pytest.raises(errors.UserError, match=r"has no train\.csv"):
        load(folder)
    write(folder / "train.csv", rows(range(4)))
    with pytest.raises(errors.UserError, match="has train and none of test"):
        load(folder)
    write(folder / "test.csv", ["img/9.png,emu"])
    with pytest.raises(errors.UserError, match=r"in test and not in train \('emu'\)"):
        load(folder)
    (folder / "latin.csv").write_bytes(
        "path,label\nimg/0.png,caf\xe9".encode("latin-1")
    )
    with pytest.raises(errors.UserError, match=r"latin\.csv cannot be read: .*UTF-8"):
        load(folder / "latin.csv")


def test_broken_images_are_left_out(folder):
    (folder / "img/1.png").write_text("no image")
    table = write(folder / "all.csv", rows(range(12)))
    with pytest.raises(errors.UserError, match=r"img/1\.png cannot be read"):
        load(table)
    found = load(table, skip_broken=True)
    assert found.train.num_examples + found.test.num_examples == 11
