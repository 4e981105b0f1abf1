"""Whatever happened to a checkpoint or the disk: one line, and no wrong state."""

import errno
import itertools
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sam_jax import errors
from sam_jax.train import checkpoint
from tests import tiers
from tests.train import runs
from tests.train.states import abstract, bits, make_state, save_steps, steps_on_disk

KILLED = """if True:
    import itertools, pathlib, sys
    import jax.numpy as jnp, numpy as np
    from sam_jax.train import checkpoint
    noise = jnp.asarray(np.random.default_rng(0).random((500, 1000), np.float32))
    with checkpoint.Checkpoints(pathlib.Path(sys.argv[1])) as checkpoints:
        first = (checkpoints.latest_step() or 0) + 1
        for step in itertools.count(first):
            state = {"step": jnp.int32(step), "w": [noise + step for _ in range(6)]}
            checkpoints.save(step, state, {"at": step}, is_best=step % 3 == 0)
"""


@pytest.mark.slow("starts processes and kills them")
def test_killed_while_saving_leaves_a_complete_checkpoint(tmp_path):
    # Of NumPy: the two processes compile differently.
    noise = jnp.asarray(np.random.default_rng(0).random((500, 1000), np.float32))
    # Written by a process with one device, read by this one with eight.
    replicated = NamedSharding(jax.make_mesh((8,), ("data",)), P())
    expected = abstract({"step": jnp.int32(0), "w": [noise] * 6}, lambda x: replicated)
    env = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    reached = 0
    # The delays let the signal hit the start and the middle of a save.
    for delay in [0.0, 0.03]:
        process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], env=env)
        folder = tmp_path / "checkpoints"
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            done = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
            halves = list(folder.glob("*-tmp"))
            if halves and max(done, default=0) >= reached + 3:
                break
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it died by itself"
        with checkpoint.Checkpoints(tmp_path) as checkpoints:
            step, best = checkpoints.latest_step(), checkpoints.best_step()
            for each in {step, best}:
                state, progress = checkpoints.restore(expected, each)
                assert progress == {"at": each} and state["step"] == each
                for leaf in state["w"]:
                    np.testing.assert_array_equal(leaf, noise + each)
        assert step >= reached + 3 and best >= step - 3
        reached = step


def damaged_files(folder: pathlib.Path) -> list[str]:
    """Every file of a checkpoint without which a state could be wrong or missing."""
    files = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    harmless = {"_CHECKPOINT_METADATA", "commit_success.txt"}
    return sorted(str(path) for path in files if str(path) not in harmless)


def flip_a_bit(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "deleted": pathlib.Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": flip_a_bit,
    "too deep": lambda path: path.write_bytes(b"[" * 100_000),
}


@pytest.mark.parametrize(
    ("damage", "every"),
    tiers.cases(
        [(damage, False) for damage in DAMAGES],
        itertools.product(DAMAGES, (False, True)),
        "all kinds of damage to all files",
    ),
)
def test_damaged_newest_checkpoint(tmp_path, damage, every, capfd):
    """Each file in one of the ways, or each in all: the one before, and one line."""
    whole = tmp_path / "whole"
    save_steps(whole, 5, 6, best=(5,))
    names = damaged_files(whole / "checkpoints" / "6")
    assert len(names) >= 10
    for i, name in enumerate(names):
        if not every and i % len(DAMAGES) != list(DAMAGES).index(damage):
            continue
        workdir = tmp_path / str(i)
        shutil.copytree(whole, workdir)
        folder = workdir / "checkpoints" / "6"
        DAMAGES[damage](folder / name)
        content = {p.relative_to(folder): p.stat().st_size for p in folder.rglob("*")}
        with checkpoint.Checkpoints(workdir) as checkpoints:
            state, progress = checkpoints.restore(make_state())
            (line,) = checkpoints.lost
            checkpoints.save(6, make_state(6), {"at": 6}, is_best=False)
        assert bits(state) == bits(make_state(5)) and progress == {"at": 5}
        assert str(folder) in line and "\n" not in line
        assert name in line or name == "SHA256SUMS"
        assert line.endswith("damaged-6; the run continues from step 5")
        aside = folder.with_name("damaged-6")
        assert content == {
            p.relative_to(aside): p.stat().st_size for p in aside.rglob("*")
        }
        assert steps_on_disk(workdir) == {"5", "6", "damaged-6"}
    assert capfd.readouterr().err == ""


def test_damaged_best_checkpoint_is_set_aside(tmp_path):
    save_steps(tmp_path, 5, 6, 7, best=(5,))
    runs.damage(tmp_path / "checkpoints" / "5")
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(make_state())[1] == {"at": 7}
        assert (checkpoints.steps(), checkpoints.best_step()) == ([6, 7], None)
        (line,) = checkpoints.lost
    assert "/5 is damaged (" in line and line.endswith("/damaged-5")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENAMETOOLONG])
def test_a_file_that_the_disk_has_lost_is_damaged(tmp_path, monkeypatch, code):
    save_steps(tmp_path, 5, 6)
    opened = pathlib.Path.open

    def lost(path, *args, **settings):
        if path.name == "metrics" and "6" in path.parts:
            raise OSError(code, os.strerror(code), str(path))
        return opened(path, *args, **settings)

    monkeypatch.setattr(pathlib.Path, "open", lost)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 5
        assert "6 is damaged (metrics/metrics is not as written" in checkpoints.lost[0]


def test_the_only_checkpoint_is_left_where_it_is(tmp_path):
    """To start anew is the user's to decide."""
    save_steps(tmp_path, 5)
    runs.damage(tmp_path / "checkpoints" / "5")
    with pytest.raises(
        errors.UserError, match=r"/5 is damaged .* there is no other one"
    ):
        checkpoint.Checkpoints(tmp_path)
    assert steps_on_disk(tmp_path) == {"5"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_notes_of_orbax_never_give_a_wrong_state(tmp_path, damage):
    save_steps(tmp_path, 6)
    DAMAGES[damage](tmp_path / "checkpoints" / "6" / "_CHECKPOINT_METADATA")
    try:
        with checkpoint.Checkpoints(tmp_path) as checkpoints:
            state, progress = checkpoints.restore(make_state())
    except errors.UserError as error:
        assert str(tmp_path / "checkpoints") in str(error)
    else:
        assert bits(state) == bits(make_state(6)) and progress == {"at": 6}
    assert steps_on_disk(tmp_path) == {"6"}


@pytest.fixture
def small_files_only():
    """No file can grow beyond 64 KiB, as if the disk were full."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, old[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_full_disk(tmp_path, small_files_only, capfd):
    state = {"w": jax.random.normal(jax.random.key(0), (300, 300))}
    more = {"w": state["w"] + 1}
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {"at": 1}, is_best=True)
        checkpoints.wait()
        small_files_only()
        checkpoints.save(2, more, {"at": 2}, is_best=True)
        with pytest.raises(errors.UserError) as caught:
            checkpoints.save(3, more, {"at": 3}, is_best=True)
        message = str(caught.value)
        assert "could not save step 2" in message and "File too large" in message
        assert str(tmp_path / "checkpoints") in message and "\n" not in message
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (1, 1)
        restored, progress = checkpoints.restore(state)
        assert bits(restored) == bits(state) and progress == {"at": 1}
        checkpoints.save(3, more, {"at": 3}, is_best=True)
        with pytest.raises(errors.UserError, match="could not save step 3"):
            checkpoints.wait()
        resource.setrlimit(
            resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE)[1:] * 2
        )
        checkpoints.save(4, more, {"at": 4}, is_best=True)
    assert steps_on_disk(tmp_path) == {"1", "4"}
    assert capfd.readouterr().err == ""


def test_failed_save_shows_when_closing(tmp_path, small_files_only):
    state = {"w": jax.random.normal(jax.random.key(0), (300, 300))}
    with (
        pytest.raises(errors.UserError, match="could not save step 1"),
        checkpoint.Checkpoints(tmp_path) as checkpoints,
    ):
        small_files_only()
        checkpoints.save(1, state, {}, is_best=True)
