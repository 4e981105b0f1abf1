import dataclasses
import itertools
import shutil

import numpy as np
import pytest
from PIL import Image

from sam_jax import checks, data, errors
from sam_jax.data import (
    catalog,
    cropping,
    pictures,
    randomness,
    stream,
    streaming,
)
from tests.data import archives

SIZE, BATCH = 16, 8
IMAGES = {"train/cat": 14, "train/dog": 9, "test/cat": 3, "test/dog": 2}


def write_jpegs(root, sizes=IMAGES, seed=0):
    """Smooth random images of many sizes."""
    generator = np.random.default_rng(seed)
    for name, size in sizes.items():
        (root / name).mkdir(parents=True)
        for number in range(size):
            small = generator.integers(0, 256, (4, 5, 3), np.uint8)
            sides = generator.integers(20, 60, 2).tolist()
            Image.fromarray(small).resize(sides).save(root / name / f"{number}.jpg")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_jpegs(tmp_path_factory.mktemp("images"))


def streamed(path, **changes):
    given = {"image_size": SIZE, "validation": 3, "seed": 1, "path": str(path)}
    return data.load_streamed("folder", **(given | changes))


def in_memory(path, **changes):
    given = {"image_size": SIZE, "validation": 3, "seed": 1, "path": str(path)}
    given |= {"resize": "crop", "cache_dir": ""}
    return data.load("folder", **(given | changes))


def first(source, count=5, **changes):
    given = {"batch_size": BATCH, "seed": 3} | changes
    return list(itertools.islice(source.batches(**given), count))


def assert_same(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key])


# ── The same as in memory ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("settings", [{}, {"label_noise": 0.4, "train_examples": 17}])
def test_a_stream_is_the_data_in_memory(root, settings):
    one, other = streamed(root, **settings), in_memory(root, **settings)
    assert one.class_names == other.class_names == ("cat", "dog")
    assert one.image_shape == other.image_shape
    for changes in ({}, {"start_step": 2}, {"rows": np.array([1, 2, 6])}):
        assert_same(first(one.train, **changes), first(other.train, **changes))
    for name in ("validation", "test"):
        pair = getattr(one, name), getattr(other, name)
        for size, rows in ((4, None), (4, np.array([2, 3])), (100, None)):
            assert_same(*(list(source.eval_batches(size, rows)) for source in pair))


def test_one_folder_is_divided_alike(root):
    one, other = (make(root / "train") for make in (streamed, in_memory))
    assert_same(first(one.train, 2), first(other.train, 2))
    assert_same(*(list(x.test.eval_batches(4)) for x in (one, other)))


def test_the_middle_is_what_a_larger_size_cut_off_would_be(root):
    (batch,) = streamed(root, middle=0.5).test.eval_batches(5)
    path = root / "test" / "cat" / "0.jpg"
    with Image.open(path) as image:
        width, height = image.size
        side = min(width, height) / 2
        x, y = (width - side) / 2, (height - side) / 2
        edges = (x, y, x + side, y + side)
        cut = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=edges)
    assert np.abs(batch["image"][0].astype(int) - np.asarray(cut)).max() <= 8
    with pytest.raises(checks.BadValue, match="needs resize=crop"):
        streamed(root, middle=0.5, resize="pad")


def test_crops_are_boxes_of_the_file_and_functions_of_seed_and_place(root):
    source = streamed(root, resized_crop=0.1, validation=0).train
    assert_same(first(source, 3, start_step=2), first(source, 5)[2:])
    rows = np.array([5])
    assert_same(
        first(source, 2, rows=rows),
        [{k: x[rows] for k, x in batch.items()} for batch in first(source, 2)],
    )
    batch = first(source)[1]
    for row in range(BATCH):
        place = BATCH + row
        draws = randomness.generator(3, randomness.Stream.CROPS, place)
        chosen = source.draw(BATCH, 3, 1).indices[row]
        with Image.open(source.store.path(source.indices[chosen])) as image:
            box = cropping.boxes(
                draws.random((cropping.TRIES, 4)), *image.size[::-1], 0.1
            )
            top, left, tall, wide = box.tolist()
            edges = (left, top, left + wide, top + tall)
            size = (SIZE, SIZE)
            cut = image.resize(size, Image.Resampling.BILINEAR, box=edges)
        np.testing.assert_array_equal(batch["image"][row], cut)


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_box_of_a_turned_large_image_is_where_it_is_seen(tmp_path, turned):
    # Scaled by the decoder (400 to 100 pixels), cut, then turned.
    ramp = np.linspace(0, 255, 400).astype(np.uint8)
    pixels = np.stack([*np.meshgrid(ramp, ramp), np.zeros((400, 400), np.uint8)], -1)
    exif = Image.Exif()
    exif[0x0112] = turned
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path, exif=exif, quality=100, subsampling=0)
    whole = pictures.decode(str(path), pictures.How(40))
    cut = pictures.decode(str(path), pictures.How(20), box=lambda h, w: (0, 0, h, w))
    halves = whole.reshape(20, 2, 20, 2, 3).mean((1, 3))
    assert np.abs(cut - halves).max() < 6


# ── Bad input ────────────────────────────────────────────────────────────────────────


@pytest.fixture
def broken(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    path = copy / "train" / "dog" / "4.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    return copy, str(path)


def test_a_truncated_image_stops_by_name_or_counts_for_nothing(broken, caplog):
    folder, path = broken
    with pytest.raises(errors.UserError, match=r"dog/4.jpg cannot be read: .*[Tt]runc"):
        first(streamed(folder, validation=0).train)
    source = streamed(folder, validation=0, skip_broken=True).train
    whole = streamed(folder, validation=0, skip_broken=True).train
    batches = first(source, 2 * source.steps_per_epoch(BATCH))
    weights = np.concatenate([batch["weight"] for batch in batches])
    assert set(weights) == {0, 1} and 1 <= np.sum(weights == 0) <= 2
    images = np.concatenate([batch["image"] for batch in batches])
    assert not images[weights == 0].any() and images[weights == 1].any((1, 2, 3)).all()
    assert caplog.text.count(f"{path} cannot be read") == 1
    masks = [batch["mask"] for batch in whole.eval_batches(23)]
    assert np.sum(masks) == 22


def test_a_broken_image_is_named_once_without_an_address(root, tmp_path, caplog):
    folder = shutil.copytree(root, tmp_path / "copy")
    broken = [folder / name for name in ("train/cat/0.jpg", "test/dog/1.jpg")]
    broken[0].write_bytes(b"")
    broken[1].write_bytes(b"no image")
    found = streamed(folder, validation=0, skip_broken=True, resized_crop=0.1)
    for _ in range(2):
        first(found.train, 9)
        list(found.test.eval_batches(2))
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"{path} cannot be read: it is not a JPEG, PNG, WebP, BMP or GIF file, or a "
        "damaged one: left out of every batch"
        for path in broken
    ]


def test_a_split_of_nothing_but_broken_images_stops(root, tmp_path):
    folder = shutil.copytree(root, tmp_path / "copy")
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"")
    found = streamed(folder, validation=0, skip_broken=True)
    for read in (
        lambda: first(found.train, 9),
        lambda: list(found.test.eval_batches(2)),
    ):
        with pytest.raises(errors.UserError, match=r"none of \d+ images of a split"):
            read()


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"cat": 9}, "'folder' has 1 class: .* at least 2"),
        ({"cat": 1, "dog": 1}, "no image of class 'cat' to train on"),
    ],
)
def test_classes_that_cannot_be_learned_are_refused_as_in_memory(tmp_path, sizes, said):
    write_jpegs(tmp_path, sizes)
    for make in (streamed, in_memory):
        with pytest.raises(errors.UserError, match=said):
            make(tmp_path, validation=0, label_noise=0.3)


def test_a_class_that_is_held_out_is_reported_as_in_memory(tmp_path, caplog):
    write_jpegs(tmp_path, {f"{split}/cat": 10 for split in ("train", "test")})
    write_jpegs(tmp_path, {f"{split}/dog": 1 for split in ("train", "test")})
    for make in (streamed, in_memory):
        assert make(tmp_path, validation=10, seed=2).class_counts[1] == 0
    one, other = (record.getMessage() for record in caplog.records)
    assert one == other and "has no training example of 1 of its 2 classes" in one


def test_a_file_that_is_gone_stops_by_name_even_if_broken_ones_are_skipped(
    root, tmp_path
):
    folder = shutil.copytree(root, tmp_path / "copy")
    source = streamed(folder, skip_broken=True).test
    (folder / "test" / "dog" / "1.jpg").unlink()
    with pytest.raises(errors.UserError, match=r"dog/1.jpg cannot be read \(No such"):
        list(source.eval_batches(2))


def test_a_class_that_another_process_does_not_see_is_named(root, tmp_path):
    folder = shutil.copytree(root, tmp_path / "copy")
    (folder / "train" / "dog" / "1.jpg").unlink()
    for make in (streamed, in_memory):
        one, other = (data.class_counts(make(x, validation=0)) for x in (root, folder))
        differing = {k: (one[k], other[k]) for k in one if one[k] != other[k]}
        assert differing == {"train class 'dog'": (9, 8)}
    one, other = (data.fingerprint(streamed(x)) for x in (root, folder))
    assert {k for k in one if one[k] != other[k]} >= {"train files", "train examples"}
    moved = shutil.copytree(root, tmp_path / "moved")
    assert data.fingerprint(streamed(moved)) == one


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("folder", {"image_size": None}, "give image_size=224"),
        ("folder", {"path": None}, "needs a path"),
        ("npz", {}, "cannot be streamed"),
        ("digits", {}, "cannot be streamed"),
        ("folder", {"mean": (0.5,)}, "give 3 numbers"),
        ("folder", {"seed": -1}, "seed must be an integer >= 0"),
    ],
)
def test_what_cannot_be_streamed_is_refused(root, name, changes, said):
    given = {"image_size": SIZE, "path": str(root)} | changes
    with pytest.raises((errors.UserError, checks.BadValue), match=said):
        data.load_streamed(name, **given)


def test_paths_are_kept_as_they_are():
    paths = ["/a/cat/1.png", "/a/cat/10.png", "/a/dög/1.png", "/a/cat/1.png"]
    for some in (paths, paths[:1], ["./x/1.jpg", "x/2.jpg"]):
        files = stream.Files.of(some)
        assert [files.path(index) for index in range(len(files))] == some


# ── Tiny ImageNet ────────────────────────────────────────────────────────────────────


@pytest.fixture
def tiny(tmp_path):
    """The published layout."""
    train = {f"train/{wnid}/images": 3 for wnid in ("n02", "n01")}
    write_jpegs(tmp_path, train | {"val/images": 2})
    (tmp_path / "train" / "n01" / "n01_boxes.txt").write_text("0.jpg\t0\t0\t3\t3\n")
    (tmp_path / "val" / "val_annotations.txt").write_text(
        "0.jpg\tn02\t0\t0\t3\t3\n1.jpg\tn01\t0\t0\t3\t3\n"
    )
    return tmp_path


def test_tiny_imagenet_is_read_as_it_is_published(tiny):
    given = {"path": str(tiny), "image_size": SIZE, "validation": 0, "resize": "crop"}
    memory = data.load("tiny_imagenet", cache_dir="", **given)
    streams = data.load_streamed("tiny_imagenet", **given)
    for found in (memory, streams):
        assert found.class_names == ("n01", "n02") and found.train.num_examples == 6
        assert found.mean == data.CATALOG["tiny_imagenet"].mean
        (test,) = found.test.eval_batches(2)
        assert test["label"].tolist() == [1, 0]
    # Of a part of the classes in train those are tested on.
    shutil.copytree(tiny / "train/n01", tiny / "train/n00")
    shutil.move(tiny / "train/n02", tiny / "left")
    (tiny / "val/images/2.jpg").write_bytes((tiny / "val/images/1.jpg").read_bytes())
    with (tiny / "val/val_annotations.txt").open("a") as file:
        file.write("2.jpg\tn00\t0\t0\t3\t3\n")
    some = data.load("tiny_imagenet", cache_dir="", **given)
    assert some.class_names == ("n00", "n01") and some.test.num_examples == 2
    for path in tiny.rglob("*.jpg"):
        with Image.open(path) as image:
            image.convert("L").save(path)
    grey = data.load("tiny_imagenet", cache_dir="", **given)
    assert grey.image_shape[-1] == len(grey.mean) == len(grey.std) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: (x / "val/val_annotations.txt").unlink(), "val_annotations.txt can"),
        (
            lambda x: (x / "val/images/1.jpg").unlink(),
            "line 2: there is no file .*1.jpg",
        ),
        (
            lambda x: (x / "val/val_annotations.txt").write_text("0.jpg\tn09\n"),
            "names no image of train's",
        ),
        (
            lambda x: (x / "val/val_annotations.txt").write_text("0.jpg\n"),
            "line 1: .*0.jpg.* names no image and class",
        ),
        (lambda x: shutil.rmtree(x / "train/n01/images"), "n01/images cannot be read"),
        (lambda x: shutil.rmtree(x / "train"), "has no folder train"),
    ],
)
def test_what_is_missing_of_tiny_imagenet_is_named(tiny, change, said):
    change(tiny)
    with pytest.raises(errors.UserError, match=said):
        data.load_streamed("tiny_imagenet", path=str(tiny), image_size=SIZE)


# ── TFDS ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def of_tfds(monkeypatch):
    """A function that changes how many examples a data set of TFDS has."""

    def has(*sizes, classes=("a", "b")):
        parts = (stream.Part(None, np.arange(size)) for size in sizes)
        stores = stream.Stores(*parts, classes)
        monkeypatch.setattr(streaming.tfds, "read", lambda *_, **__: stores)

    return has


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("fashion_mnist", "fashion_mnist"),
        ("tfds:mnist", "mnist"),
        ("tfds:cifar10", "cifar10"),
        ("cifar10:3.0.2", "cifar10"),
        ("imagenette", None),
    ],
)
def test_published_statistics_are_of_the_channels_that_are_read(of_tfds, name, entry):
    of_tfds(10, 5)
    found = data.load_streamed(name, image_size=SIZE)
    mean, std = catalog.STREAMED
    if entry:
        known = data.CATALOG[entry]
        times = 3 // len(known.mean)
        mean, std = known.mean * times, known.std * times
    assert (found.mean, found.std) == (mean, std) and len(mean) == 3
    given = data.load_streamed(name, image_size=SIZE, mean=(0.5,) * 3)
    assert given.mean == (0.5,) * 3


@pytest.mark.parametrize(
    ("sizes", "classes", "said"),
    [
        ((10, 5), ("a",), "has 1 class"),
        ((0, 5), ("a", "b"), "the training split .* is empty"),
        ((10, 0), ("a", "b"), "the test split .* is empty"),
    ],
)
def test_a_stream_of_tfds_is_checked(of_tfds, sizes, classes, said):
    of_tfds(*sizes, classes=classes)
    with pytest.raises(errors.UserError, match=said):
        data.load_streamed("imagenette", image_size=SIZE)


@pytest.mark.slow("prepares a data set of TFDS")
def test_a_data_set_of_tfds_is_streamed_as_it_is_in_memory(tmp_path):
    data_dir = str(archives.prepare(tmp_path, "cifar10"))
    given = {"data_dir": data_dir, "download": False, "validation": 10}
    one = data.load_streamed("cifar10", image_size=32, **given)
    other = data.load("cifar10", **given)
    assert_same(first(one.train), first(other.train))
    assert_same(*(list(x.test.eval_batches(7)) for x in (one, other)))
    assert one.mean == other.mean
    with pytest.raises(errors.UserError, match="label_noise needs labels"):
        data.load_streamed("cifar10", image_size=32, label_noise=0.1, **given)
    with_process = dataclasses.replace(one.train, workers=1)
    assert_same(first(with_process, 2), first(one.train, 2))
