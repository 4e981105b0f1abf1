"""Paths of a user's, in the file system and in stores."""

import json
import logging
import os
import pathlib
import subprocess
import threading
import time

import numpy as np
import pytest

from sam_jax import data, errors, locks, storage
from sam_jax.data import streaming
from tests import bucket as emulator


@pytest.fixture
def bucket():
    with emulator.empty() as made:
        yield made


@pytest.fixture
def memory():
    import fsspec

    fsspec.filesystem("memory").store.clear()
    return storage.path("memory://bucket")


@pytest.fixture(params=["disk", "memory", "gs"])
def folder(request, tmp_path):
    if request.param == "disk":
        return tmp_path
    return request.getfixturevalue(
        "memory" if request.param == "memory" else "bucket"
    ) and (
        storage.path("memory://bucket" if request.param == "memory" else "gs://bucket")
    )


# ── What a user writes ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gs://bucket/run/", "gs://bucket/run"),
        ("GS://bucket//run/a:b", "gs://bucket/run/a:b"),
        ("file:///tmp/run", "/tmp/run"),
        ("runs/a", "runs/a"),
        ("run:1", "run:1"),
        ("runs/12:/a", "runs/12:/a"),
        ("C:/runs", "C:/runs"),
        ("~/runs", "/home/someone/runs"),
        (pathlib.Path("~/runs"), "~/runs"),
    ],
)
def test_paths_and_addresses(text, expected, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    found = storage.path(text)
    assert os.fspath(found) == str(found) == expected
    assert storage.path(found) == found
    assert isinstance(found, pathlib.Path) == ("://" not in expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gs:/bucket/run", "two slashes follow a scheme, as in gs://bucket/run"),
        (pathlib.Path("gs://bucket/run"), "as in gs://bucket/run"),
        ("gs:bucket/run", "as in gs://bucket/run"),
        ("gs:///bucket/run", "as in gs://bucket/run"),
        ("gs://", "as in gs://bucket/run"),
        ("gcs://bucket/run", "unknown scheme 'gcs://': did you mean 'gs://'?"),
        ("gz://bucket/run", "unknown scheme 'gz://': did you mean 'gs://'?"),
        ("s3://bucket/run", "s3://bucket/run needs a package: pip install s3fs"),
        ("abfs://bucket/run", "abfs://bucket/run needs a package: Install adlfs"),
    ],
)
def test_mistakes_in_addresses_are_one_line(text, said):
    with pytest.raises(errors.UserError) as raised:
        storage.path(text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_names_the_extra(monkeypatch):
    def missing(scheme):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    with pytest.raises(errors.UserError, match=r'pip install "sam_jax\[gcs\]"$'):
        storage.path("gs://bucket/run")


# ── The same everywhere ──────────────────────────────────────────────────────────────


def test_does_what_a_disk_does(folder):
    """Each of these on a disk is what `pathlib` does."""
    run = folder / "run"
    assert not run.exists()
    assert list(run.glob("*")) == []
    run.mkdir(parents=True, exist_ok=True)
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    for name in ("a.json", "checkpoints/7/state", "checkpoints/7/.hidden", "b [1].txt"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(name.encode())
    (run / "empty").touch()
    (run / "a.json").touch()  # stays what it is
    assert (run / "a.json").read_text() == "a.json"
    with (run / "a.json").open("rb") as file:
        assert file.read(3) == b"a.j"
    assert (run / "a.json").stat().st_size == 6
    kinds = {x.name: (x.is_file(), x.is_dir()) for x in run.iterdir()}
    file, inside = (True, False), (False, True)
    assert kinds == {
        **dict.fromkeys(("a.json", "empty", "b [1].txt"), file),
        "checkpoints": inside,
    }
    assert [x.name for x in run.glob("*.json")] == ["a.json"]
    assert [x.parent.name for x in folder.glob("*/a.json")] == ["run"]
    found = {str(x.relative_to(run)) for x in run.rglob("*") if x.is_file()}
    assert found == {
        *("a.json", "empty", "b [1].txt"),
        *("checkpoints/7/state", "checkpoints/7/.hidden"),
    }
    (run / "checkpoints" / "7").rename(run / "checkpoints" / "damaged-7")
    assert [x.name for x in (run / "checkpoints").iterdir()] == ["damaged-7"]
    moved = run / "checkpoints" / "damaged-7" / "state"
    assert moved.read_bytes() == b"checkpoints/7/state"
    moved.unlink()
    moved.unlink(missing_ok=True)
    assert not moved.exists()
    for missing in (moved.read_bytes, moved.unlink, moved.stat):
        with pytest.raises(FileNotFoundError):
            missing()
    assert run.absolute() == run.resolve() == run.expanduser() == run


def test_a_new_file_is_written_by_one_of_several(folder):
    if isinstance(folder, pathlib.Path):
        pytest.skip("a disk has locks")
    (folder / "a").write_bytes(b"1", new=True)
    with pytest.raises(FileExistsError):
        (folder / "a").write_bytes(b"2", new=True)
    assert (folder / "a").read_bytes() == b"1"


# ── Stores that refuse ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["read_bytes", "exists", "touch", "unlink", "iterdir"])
def test_a_bucket_without_rights_is_one_line(bucket, name):
    bucket.fault = lambda method, path: 403
    with pytest.raises(errors.UserError) as raised:
        list(getattr(storage.path("gs://bucket/run"), name)() or ())
    said = str(raised.value)
    assert "gs://bucket/run cannot be reached (Forbidden: " in said
    assert "your rights" in said
    assert "\n" not in said


def test_a_bucket_that_is_not_there(bucket):
    path = storage.path("gs://other/run")
    assert not path.exists()
    with pytest.raises(storage.StorageError, match="there is no such bucket"):
        path.write_bytes(b"1")


def test_requests_that_fail_are_sent_again(bucket):
    failing = iter([503, 429])
    bucket.fault = lambda method, path: (
        next(failing, None) if method == "POST" else None
    )
    path = storage.path("gs://bucket/a")
    path.write_bytes(b"kept")
    assert path.read_bytes() == b"kept"
    assert next(failing, None) is None


# ── Files that grow ──────────────────────────────────────────────────────────────────


def test_a_file_that_grows_is_published_whole(memory, monkeypatch):
    target = memory / "log"
    target.write_bytes(b"before\n")
    growing = storage.Growing(target, b"before\n")
    with growing.local.open("ab", buffering=0) as file:
        file.write(b"one\n")
        growing.grown()
        assert target.read_bytes() == b"before\n"
        monkeypatch.setattr(storage, "_GROWS_SECONDS", 0)
        growing.grown()
        assert target.read_bytes() == b"before\none\n"
        file.write(b"two\n")
        growing.close()
    assert target.read_bytes() == b"before\none\ntwo\n"
    assert not growing.local.exists()


@pytest.mark.parametrize("lost", ["write_bytes", "stat"])
def test_what_was_sent_is_known_although_the_answer_is_lost(memory, monkeypatch, lost):
    growing = storage.Growing(memory / "log")
    whole = getattr(storage.Remote, lost)

    def answered(self, *args):
        whole(self, *args)
        raise storage.StorageError(110, "timed out", str(self))

    def answered_by_nobody(self, *args):
        raise storage.StorageError(110, "timed out", str(self))

    growing.local.write_bytes(b"one\n")
    with monkeypatch.context() as patch:
        patch.setattr(storage.Remote, lost, answered)
        with pytest.raises(storage.StorageError, match="timed out"):
            growing.publish()
    growing.local.write_bytes(b"one\ntwo\n")
    with monkeypatch.context() as patch:  # and then one that does not arrive
        patch.setattr(storage.Remote, "write_bytes", answered_by_nobody)
        with pytest.raises(storage.StorageError, match="timed out"):
            growing.publish()
    growing.close()
    assert (memory / "log").read_bytes() == b"one\ntwo\n"


def test_what_somebody_else_has_written_is_not_overwritten(memory):
    growing = storage.Growing(memory / "log")
    growing.publish()
    (memory / "log").write_bytes(b"theirs")
    with pytest.raises(storage.StorageError, match="another program has written"):
        growing.close()
    assert (memory / "log").read_bytes() == b"theirs"


# ── Locks ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(locks, "STALE_SECONDS", 2.0)


@pytest.mark.usefixtures("quick")
def test_an_object_that_is_held_says_by_whom(bucket):
    lock = storage.path("gs://bucket/.lock")
    with locks.held(lock, wait=False):
        with pytest.raises(BlockingIOError) as raised, locks.held(lock, wait=False):
            pass
        assert (
            raised.value.strerror
            == f"held by process {os.getpid()} on " + os.uname()[1]
        )
        first = json.loads(lock.read_bytes())["beat"]
        end = time.monotonic() + 30
        while json.loads(lock.read_bytes())["beat"] == first:
            assert time.monotonic() < end
    assert not lock.exists()


STRANGER = {
    "host": "tpu-7",
    "process": 12,
    "place": "elsewhere",
    "token": "x",
    "beat": 3,
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("gone", [False, True])
def test_a_stale_object_is_taken_over_in_one_line(memory, caplog, gone, monkeypatch):
    """At once from a process that is known to be gone, else after a silence."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    ended = ended.pid
    own = {"process": ended, "place": locks._place()}
    lock = memory / ".lock"
    lock.write_bytes(json.dumps(STRANGER | (own if gone else {})).encode())
    if gone:
        monkeypatch.setattr(locks, "STALE_SECONDS", 3600)
    with caplog.at_level(logging.WARNING), locks.held(lock, wait=False):
        assert json.loads(lock.read_bytes())["process"] == os.getpid()
    why = "is gone" if gone else "was silent for 2 s"
    who = f"process {ended if gone else 12} on tpu-7"
    said = f"{lock} was held by {who}, which {why}: taken over"
    assert [record.message for record in caplog.records] == [said]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("stale", [False, True])
def test_one_of_many_takes_an_object(bucket, stale):
    lock, inside, most = storage.path("gs://bucket/.lock"), [], []
    if stale:
        lock.write_bytes(json.dumps(STRANGER).encode())

    def take():
        with locks.held(lock, wait=True):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1] * 4


def test_an_object_that_is_newer_is_not_deleted(bucket):
    lock = storage.path("gs://bucket/.lock")
    lock.write_bytes(b"stale")
    version = lock.stat().version
    lock.write_bytes(b"of another")
    lock.unlink(missing_ok=True, version=version)
    assert lock.read_bytes() == b"of another"


def test_the_lock_of_a_disk_that_was_copied_is_nobodys(bucket):
    lock = storage.path("gs://bucket/.lock")
    lock.write_bytes(b"")
    with locks.held(lock, wait=False):
        assert json.loads(lock.read_bytes())["process"] == os.getpid()


@pytest.mark.usefixtures("quick")
def test_an_object_that_was_taken_over_is_left_alone(memory):
    lock = memory / ".lock"
    theirs = json.dumps(STRANGER).encode()
    with locks.held(lock, wait=False):
        lock.write_bytes(theirs)
        time.sleep(0.2)
        assert lock.read_bytes() == theirs
    assert lock.read_bytes() == theirs


# ── Data ─────────────────────────────────────────────────────────────────────────────


def images(folder):
    """Two classes, six images each, as files."""
    from PIL import Image

    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        place = folder / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:02}.png")


def put(local, remote):
    for file in local.rglob("*"):
        if file.is_file():
            (remote / str(file.relative_to(local))).write_bytes(file.read_bytes())


def test_images_in_a_store_are_those_of_a_disk(bucket, tmp_path):
    images(tmp_path / "images")
    remote = storage.path("gs://bucket/images")
    put(tmp_path / "images", remote)
    kept = {"cache_dir": str(tmp_path / "kept"), "validation": 0}

    def load(path):
        return data.fingerprint(data.load("folder", path=str(path), **kept))

    assert load(remote) == load(tmp_path / "images")
    bucket.requests.clear()
    assert load(remote) == load(tmp_path / "images")
    assert not [path for _, path in bucket.requests if "alt=media" in path]
    (tmp_path / "images" / "class0" / "00.png").unlink()
    (remote / "class0" / "00.png").unlink()
    changed = (remote / "class1" / "01.png").read_bytes()
    for where in (tmp_path / "images", remote):
        (where / "class0" / "02.png").write_bytes(changed)
    assert load(remote) == load(tmp_path / "images")
    (remote / "class0" / "02.png").write_bytes(b"no image")
    with pytest.raises(
        errors.UserError, match=r"^gs://bucket/images/class0/02.png cannot"
    ):
        load(remote)


def test_arrays_in_a_store(memory, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.integers(0, 256, (20, 4, 4), np.uint8), "y": np.arange(20) % 2}
    np.savez(tmp_path / "own.npz", **arrays)
    (memory / "own.npz").write_bytes((tmp_path / "own.npz").read_bytes())
    found = [
        data.fingerprint(data.load("npz", path=str(where / "own.npz"), cache_dir=""))
        for where in (memory, tmp_path)
    ]
    assert found[0] == found[1]


def test_streamed_data_are_on_a_disk(memory):
    with pytest.raises(
        errors.UserError, match=r"gcloud storage cp --recursive memory:"
    ):
        streaming.load_streamed("folder", image_size=8, path=f"{memory}/images")


@pytest.mark.parametrize(
    ("name", "setting"),
    [("npz", "path"), ("folder", "path"), ("csv", "path"), ("cifar10", "data_dir")],
)
def test_data_that_are_not_there(memory, name, setting):
    with pytest.raises(errors.UserError) as raised:
        data.load(name, cache_dir="", **{setting: f"{memory}/nothing"})
    assert str(raised.value).startswith("memory://bucket/nothing")
    assert "does not exist: put it there, or fix its name" in str(raised.value)
