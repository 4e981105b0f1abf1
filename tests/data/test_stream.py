import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import shutil
import signal

import numpy as np
import psutil
import pytest
from PIL import Image

from sam_jax import checks, data, errors
from sam_jax.data import cropping, pictures, randomness, stream
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
    ],
)
def test_what_cannot_be_streamed_is_refused(root, name, changes, said):
    given = {"image_size": SIZE, "path": str(root)} | changes
    with pytest.raises(errors.UserError, match=said):
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
            "line 1: .*n09.* names no image and class",
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


# ── Processes, kills, memory ─────────────────────────────────────────────────────────

JPEGS = int(os.environ.get("SAM_JAX_TEST_JPEGS", "600"))  # 50,000 in nightly.sh
KILLED = [(0, 2), (1, 1), (2, 2)]
if JPEGS > 600:
    KILLED = list(itertools.product((0, 1, 2), (1, 2)))


@dataclasses.dataclass(frozen=True)
class Many:
    """A store of any size, of one image."""

    content: bytes
    size: int

    def __len__(self):
        return self.size

    def __call__(self, index):
        return stream.Read(f"image {index}", self.content, index % 1000)


def numbered(folder, workers):
    """A stream of files whose label is the number of the example."""
    paths = sorted(map(str, pathlib.Path(folder).glob("*.jpg")))
    labels = np.arange(len(paths), dtype=np.int32)
    how = pictures.How(32)
    store = stream.Files.of(paths)
    args = (store, np.arange(len(paths)), labels, labels, how, 0.3, workers)
    return stream.StreamedSource(*args)


def write_ids(folder, out, workers, rows, start):
    """Writes what each batch has until it is killed."""
    found = numbered(folder, workers).batches(
        batch_size=32, seed=5, start_step=start, rows=np.array(rows)
    )
    with open(out, "a") as file:
        for batch in found:
            total = int(batch["image"].astype(np.int64).sum())
            file.write(f"{total} {batch['true_label'].tolist()}\n")
            file.flush()


def kill_tree(pid):
    for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
        process.send_signal(signal.SIGKILL)


@pytest.mark.slow("starts processes and kills them")
@pytest.mark.parametrize(("workers", "processes"), KILLED)
def test_killed_readers_go_on_with_the_same_examples(
    jpegs, tmp_path, workers, processes
):
    generator = np.random.default_rng(workers)
    spawn, steps = multiprocessing.get_context("spawn"), 3 * (JPEGS // 32) // 2
    for rows in np.split(np.arange(32), processes):
        out = tmp_path / f"{rows[0]}.txt"
        for _ in range(2):
            start = len(out.read_text().splitlines()) if out.exists() else 0
            target = min(start + int(generator.integers(2, 8)), steps)
            args = (jpegs, out, workers, rows.tolist(), start)
            reader = spawn.Process(target=write_ids, args=args)
            reader.start()
            while not out.exists() or len(out.read_text().splitlines()) < target:
                assert reader.is_alive()
            kill_tree(reader.pid)
            reader.join()
            text = out.read_text()
            out.write_text(text[: text.rfind("\n") + 1])  # the last line may be half
        lines = out.read_text().splitlines()
        found = numbered(jpegs, 0).batches(batch_size=32, seed=5, rows=rows)
        assert lines == [
            f"{int(batch['image'].astype(np.int64).sum())} "
            f"{batch['true_label'].tolist()}"
            for batch in itertools.islice(found, len(lines))
        ]


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jpegs")
    generator = np.random.default_rng(0)
    for number in range(JPEGS):
        pixels = generator.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((48, 40)).save(folder / f"{number:05}.jpg")
    return folder


def waiting():
    """Bytes in shared memory; others may remove theirs while we look."""
    sizes = 0
    for entry in os.scandir("/dev/shm"):
        with contextlib.suppress(FileNotFoundError):
            sizes += entry.stat().st_size
    return sizes


@pytest.mark.slow("starts processes")
def test_a_dead_worker_is_one_line_and_memory_is_bounded(jpegs):
    content = (jpegs / "00000.jpg").read_bytes()
    size = 5_000_000
    many = stream.StreamedSource(
        *(Many(content, size), np.arange(size), None, None, pictures.How(224)),
        workers=2,
    )
    reading = many.batches(batch_size=64, seed=0)
    first_batch = next(reading)
    own = psutil.Process()
    workers = [p for p in own.children(recursive=True) if "spawn" in str(p.cmdline())]
    assert len(workers) == 2
    for _ in range(20):
        next(reading)
    held = sum(process.memory_info().rss for process in workers)
    assert held + waiting() < 1.5e9, (held, waiting())
    threads = dataclasses.replace(many, workers=0).batches(batch_size=64, seed=0)
    assert_same([first_batch], [next(threads)])
    workers[0].kill()
    with pytest.raises(errors.UserError, match=r"worker process .* ended .*checkpoint"):
        for _ in itertools.repeat(None, 10_000):
            next(reading)
    assert not [p for p in own.children(recursive=True) if "spawn" in str(p.cmdline())]
