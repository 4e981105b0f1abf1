"""Processes, kills and memory of streams."""

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import signal

import numpy as np
import psutil
import pytest
from PIL import Image

from sam_jax import errors
from sam_jax.data import pictures, stream
from tests.data.test_stream import assert_same

# How many files are written, 50,000 in nightly.sh; or a folder that has them.
GIVEN = os.environ.get("SAM_JAX_TEST_JPEGS", "600")
FOLDER = None if GIVEN.isdigit() else pathlib.Path(GIVEN)
JPEGS = len([*FOLDER.glob("*.jpg")]) if FOLDER else int(GIVEN)
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
    outs = {
        tmp_path / f"{rows[0]}.txt": rows for rows in np.split(np.arange(32), processes)
    }
    for _ in range(2):
        readers, targets = [], {}
        for out, rows in outs.items():
            start = len(out.read_text().splitlines()) if out.exists() else 0
            targets[out] = min(start + int(generator.integers(2, 8)), steps)
            args = (jpegs, out, workers, rows.tolist(), start)
            readers.append(spawn.Process(target=write_ids, args=args))
            readers[-1].start()
        for out, target in targets.items():
            while not out.exists() or len(out.read_text().splitlines()) < target:
                assert all(reader.is_alive() for reader in readers)
        for reader in readers:
            kill_tree(reader.pid)
            reader.join()
        for out in outs:
            text = out.read_text()
            out.write_text(text[: text.rfind("\n") + 1])  # the last line may be half
    for out, rows in outs.items():
        lines = out.read_text().splitlines()
        found = numbered(jpegs, 0).batches(batch_size=32, seed=5, rows=rows)
        assert lines == [
            f"{int(batch['image'].astype(np.int64).sum())} "
            f"{batch['true_label'].tolist()}"
            for batch in itertools.islice(found, len(lines))
        ]


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    if FOLDER:
        return FOLDER
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


def many_of(content, workers=2, size=5_000_000):
    """A stream of many examples with labels."""
    labels = (np.arange(size) % 1000).astype(np.int32)
    store, how = Many(content, size), pictures.How(224)
    args = store, np.arange(size), labels, labels, how
    return stream.StreamedSource(*args, workers=workers)


def read_on(content, out):
    """Reads until it is killed; says when a while is over."""
    for number, _ in enumerate(many_of(content).batches(batch_size=64, seed=0)):
        if number == 20:
            out.touch()


@pytest.mark.slow("starts processes")
def test_memory_is_bounded_for_each_of_several_processes(jpegs, tmp_path):
    content = min(jpegs.glob("*.jpg")).read_bytes()
    spawn, outs = multiprocessing.get_context("spawn"), [tmp_path / x for x in "ab"]
    readers = [spawn.Process(target=read_on, args=(content, out)) for out in outs]
    before = waiting()
    for reader in readers:
        reader.start()
    while not all(out.exists() for out in outs):
        assert all(reader.is_alive() for reader in readers)
    trees = []
    for reader in readers:
        main = psutil.Process(reader.pid)
        family = [main, *main.children(recursive=True)]
        trees.append(sum(process.memory_info().rss for process in family))
    shared = waiting() - before
    for reader in readers:
        kill_tree(reader.pid)
        reader.join()
    print(f"bytes of each reader with its workers: {trees}; shared memory: {shared}")
    assert max(trees) + shared < 1.5e9, (trees, shared)


@pytest.mark.slow("starts processes")
def test_a_dead_worker_is_one_line(jpegs):
    many = many_of(min(jpegs.glob("*.jpg")).read_bytes())
    reading = many.batches(batch_size=64, seed=0)
    first_batch = next(reading)
    own = psutil.Process()
    workers = [p for p in own.children(recursive=True) if "spawn" in str(p.cmdline())]
    assert len(workers) == 2
    threads = dataclasses.replace(many, workers=0).batches(batch_size=64, seed=0)
    assert_same([first_batch], [next(threads)])
    workers[0].kill()
    with pytest.raises(errors.UserError, match=r"worker process .* ended .*checkpoint"):
        for _ in itertools.repeat(None, 10_000):
            next(reading)
    assert not [p for p in own.children(recursive=True) if "spawn" in str(p.cmdline())]
