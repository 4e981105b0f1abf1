"""Runs in a bucket of Google Cloud Storage, which an emulator here has."""

import dataclasses
import io
import itertools
import os
import shutil
import signal
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sam_jax import commands, errors, storage
from sam_jax.train import build, cards, checkpoint, comparison, loop, metrics, sweep
from sam_jax.train import start as start_lib
from tests import bucket as emulator
from tests.train import runs
from tests.train.test_commands import one_line

STATE = {"w": jnp.arange(3000.0), "step": jnp.int32(7)}


@pytest.fixture
def bucket():
    with emulator.empty() as made:
        yield made


@pytest.fixture
def folder(bucket):
    return storage.path("gs://bucket/run")


# ── Checkpoints ──────────────────────────────────────────────────────────────────────


def test_saves_in_the_background_and_restores_the_same_bits(bucket, folder):
    """By one client, though TensorFlow, which etils would take, is installed."""
    others = "tensorflow" in sys.modules  # other tests import it
    held, let_go = threading.Event(), threading.Event()

    def hold(method, path):
        if (method == "POST" and "state/d/" in path) or "ocdbt.process_0/d/" in path:
            held.set()
            let_go.wait(30)

    with checkpoint.Checkpoints(folder) as kept:
        bucket.fault = hold
        kept.save(7, STATE, {"best": 0.9}, is_best=True)
        # The save is on its way, and this thread goes on.
        assert held.wait(30)
        assert checkpoint.kept(folder) == []
        assert {7} == {int(x.name) for x in (folder / "checkpoints").glob("[0-9]*")}
        let_go.set()
        restored, progress = kept.restore(STATE)
        assert (folder / "checkpoints" / ".open-0").exists()
    jax.tree.map(np.testing.assert_array_equal, restored, STATE)
    assert progress == {"best": 0.9}
    assert checkpoint.kept(folder) == [7]
    names = bucket.names("run/checkpoints/")
    assert not [name for name in names if name.startswith("run/checkpoints/.open")]
    assert "run/checkpoints/7/SHA256SUMS" in names
    assert others or "tensorflow" not in sys.modules

    # Damaged: the run would continue from the one before, and here there is none.
    largest = max(
        names, key=lambda name: int(bucket.storage.objects["bucket"][name]["size"])
    )
    path = storage.path(f"gs://bucket/{largest}")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(
        errors.UserError, match=r"gs://bucket/run/checkpoints/7 is damaged"
    ):
        checkpoint.Checkpoints(folder)
    # A store that does not answer is no damage.
    bucket.fault = lambda method, path: 403 if "SHA256SUMS?alt" in path else None
    with pytest.raises(errors.UserError, match=r"cannot read .*Forbidden"):
        checkpoint.Checkpoints(folder)
    assert checkpoint.kept(folder) == [7]


def test_half_a_checkpoint_is_none_and_another_process_ends_the_run(bucket, folder):
    with checkpoint.Checkpoints(folder) as kept:
        kept.save(1, STATE, {}, is_best=True)
        kept.wait()
        kept.save(2, STATE, {}, is_best=False)
    marks = ("commit_success.txt", "SHA256SUMS")
    for name in marks:  # as a kill in the middle of a save leaves it
        (folder / "checkpoints" / "2" / name).unlink()
    assert checkpoint.kept(folder) == [1]
    with checkpoint.Checkpoints(folder) as kept:
        assert (kept.steps(), kept.lost) == ([1], [])
        assert not (folder / "checkpoints" / "2").exists()
        # Such as one that took the lock over.
        (folder / "checkpoints" / ".open-0").write_bytes(b"another")
        with pytest.raises(errors.WriteError, match="another process has it now"):
            kept.save(2, STATE, {}, is_best=False)
    assert (folder / "checkpoints" / ".open-0").read_bytes() == b"another"
    assert checkpoint.kept(folder) == [1]


# ── Runs ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def start(tmp_path, trainer):
    """``start(folder)``: a trainer, which cannot import TensorFlow."""
    without = tmp_path / "without"
    (without / "tensorflow").mkdir(parents=True)
    (without / "tensorflow" / "__init__.py").write_text("raise ImportError")
    flags = f"--config={runs.DIGITS}", *SETTINGS
    path = os.pathsep.join([str(without), str(runs.ROOT)])
    return lambda folder: trainer(*flags, f"--workdir={folder}", path=path)


SETTINGS = (
    *("--config.model.name=mlp", "--config.model.width=8", "--config.mesh.data=1"),
    *("--config.data.train_examples=128", "--config.batch_size=32"),
    *("--config.epochs=14", "--config.eval_every_epochs=2", "--config.ema_decay=0.9"),
    *("--config.checkpoint.every_epochs=2", "--config.log_every_steps=2"),
)


def ended(process):
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in out + err
    lines = [line for line in err.splitlines() if "google_auth_provider" not in line]
    return process.returncode, out, lines


def wait_for_another(process, bucket):
    """Until one more checkpoint is complete; sends no requests."""

    def complete():
        found = bucket.names("run/checkpoints/")
        return {name for name in found if name.endswith("/SHA256SUMS")}

    before = complete()
    while complete() <= before:
        assert process.poll() is None, ended(process)
        time.sleep(0.05)


@pytest.mark.slow("starts five trainers")
def test_a_killed_run_ends_with_the_same_bits(bucket, folder, start, tmp_path):
    """Killed; with requests that fail, and rights that are lost; then to the end."""
    undisturbed = start(tmp_path / "undisturbed")
    killed = start(folder)
    wait_for_another(killed, bucket)
    slow = "/upload/storage/v1/b/bucket/o?name=run/checkpoints"
    bucket.fault = lambda method, path: time.sleep(0.5 * path.startswith(slow))
    code, _, err = ended(start(folder))
    assert (code, len(err)) == (2, 2)
    owner = f"held by process {killed.pid} on {os.uname()[1]}"
    assert err[0].endswith(f"/.lock is {owner}: waiting for a sign of life")
    said = f"error: another process is training in gs://bucket/run ({owner}): wait for"
    assert err[1].startswith(said)
    bucket.fault = lambda method, path: None
    wait_for_another(killed, bucket)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (folder / "results.json").exists()

    failing = start(folder)
    numbers = itertools.count()
    bucket.fault = lambda method, path: 503 if next(numbers) % 20 == 19 else None
    wait_for_another(failing, bucket)
    bucket.fault = lambda method, path: 403 if method != "GET" else None
    code, out, err = ended(failing)
    assert "resumed     after step " in out
    assert f".lock was held by process {killed.pid} on " in err[0]
    assert err[0].endswith("which is gone: taken over")
    assert (code, len(err)) == (1, 2)
    assert "Forbidden" in err[1] or "PERMISSION_DENIED" in err[1]
    assert err[1].endswith(("start the same command again", "then start again"))

    bucket.fault = lambda method, path: None
    code, out, err = ended(start(folder))
    assert (code, len(err)) == (0, 1), err  # the lock, which it could not delete
    assert ended(undisturbed)[0] == 0
    config = cards.load(runs.DIGITS, *SETTINGS)
    runs.assert_same_run(config, folder, tmp_path / "undisturbed")
    rows = [
        runs.comparable(metrics.read_history(each / metrics.METRICS_FILE))
        for each in (folder, tmp_path / "undisturbed")
    ]
    assert rows[0] == rows[1]
    assert any(folder.glob("events.out.tfevents.*"))
    left = {name.removeprefix("run/").split("/")[0] for name in bucket.names("run/")}
    assert left.isdisjoint({".lock", ".open-0"})


@pytest.mark.slow("whole commands")
def test_commands_take_addresses(bucket, folder, finished, tmp_path, capsys):
    """Of a run that was copied there; what they say and write is that of a disk."""

    def said(*words):
        assert commands.main([str(word) for word in words]) == 0
        return capsys.readouterr().out.replace("gs://bucket", str(tmp_path))

    shutil.copytree(finished.folder, tmp_path / "run")
    for file in finished.folder.rglob("*"):
        if file.is_file():
            path = folder / str(file.relative_to(finished.folder))
            path.write_bytes(file.read_bytes())
    places = (tmp_path, storage.path("gs://bucket"))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    for number, array in enumerate(pixels):
        for place in places:
            drawn = io.BytesIO()
            Image.fromarray(array).save(drawn, format="png")
            (place / "images").mkdir(exist_ok=True)
            (place / "images" / f"{number}.png").write_bytes(drawn.getvalue())
    for words in (
        ("evaluate", "{}/run", "--out={}/scores.json"),
        ("predict", "{}/run", "{}/images", "--out={}/table.csv"),
        ("export", "{}/run", "--to=safetensors", "--out={}/run.safetensors"),
        ("compare", "{}/run", "--out={}/comparison"),
    ):
        on_disk, in_store = (
            said(*(word.format(place) for word in words)) for place in places
        )
        assert on_disk == in_store
    assert cards.continued("gs://bucket/run")["epochs"] == 3
    for name in ("scores.json", "comparison/table.md"):
        assert (places[0] / name).read_bytes() == (places[1] / name).read_bytes()
    table = (places[1] / "table.csv").read_text().replace("gs://bucket", str(tmp_path))
    assert table == (tmp_path / "table.csv").read_text()

    # More epochs: from the checkpoints that were copied, none of which is deleted.
    config = dataclasses.replace(finished.config, epochs=4)
    for place in places:
        loop.train_and_evaluate(config, place / "run")
    runs.assert_same_run(config, folder, tmp_path / "run")
    # Weights of a run and of a file; a sweep.
    begun = [f"gs://bucket/{name}" for name in ("run@last", "run", "run.safetensors")]
    for text in begun:
        config = dataclasses.replace(finished.config, init_from=text)
        assert start_lib.of(build.build(config)).matched
    sweep.sweep({"one_seed0": finished.config}, "gs://bucket/sweep")
    assert len(comparison.read("gs://bucket/sweep")) == 1
    assert comparison.read("gs://bucket/sweep/one_seed0")[0].seed == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "gs://bucket/run"), "gs://bucket/run is not there"),
        (("compare", "gs://bucket/run"), "gs://bucket/run is not there"),
        (("sweep", "--config=digits_sam", "--out=s3:/x"), "as in s3://x"),
    ],
)
def test_mistakes_are_one_line(bucket, words, message, capsys):
    assert message in one_line(capsys, *words)


def test_a_bucket_whose_checkpoints_could_not_be_deleted_is_refused(bucket, folder):
    bucket.fault = lambda method, path: None if "/o" in path.split("?")[0] else 403
    with pytest.raises(errors.UserError, match=r"roles/storage.legacyBucketReader"):
        checkpoint.Checkpoints(folder)
    assert not bucket.names()


def test_a_run_is_refused_where_checkpoints_cannot_be(bucket, tiny):
    for place, why in (
        ("gs:/bucket/run", "two slashes follow a scheme, as in gs://bucket/run"),
        ("memory://bucket/run", "a run is in a folder or on gs://"),
        ("gs://other/run", "cannot write to gs://other/run.*there is no such bucket"),
    ):
        with pytest.raises(errors.UserError, match=why):
            loop.train_and_evaluate(tiny(), place)
