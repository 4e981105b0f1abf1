"""Checkpoints: nothing is lost, nothing is mixed up, every mistake is one line."""

import collections
import json
import logging
import pathlib
import shutil
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from sam_jax import errors
from sam_jax.methods import observations
from sam_jax.train import agreement, build, checkpoint, optimizer, settings, sharding
from tests.train.states import abstract, bits, make_state, save_steps, steps_on_disk


def test_round_trip_keeps_every_bit_and_the_structure(tmp_path):
    state = make_state(7)
    progress = {"best": 0.5, "history": [1, 2.5, None], "name": "µ", "ok": True}
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(abstract(state)) is None
        checkpoints.save(7, state, progress, is_best=True)
        same_process = checkpoints.restore(abstract(state))
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        next_process = checkpoints.restore(abstract(state))
    for restored, record in [same_process, next_process]:
        assert jax.tree.structure(restored) == jax.tree.structure(state)
        assert bits(restored) == bits(state)
        assert record == progress


def test_restores_what_an_earlier_version_has_stored(tmp_path):
    # Without names for method and base, and without fields that came later.
    seen = observations.no_diagnostics({"a": jnp.ones(2), "b": jnp.ones(3)})
    fields = {k: v for k, v in seen._asdict().items() if k != "layer_shares"}
    base, ema = make_state(1).opt_state, jnp.arange(3.0)
    method = {"ema": ema, "seen": seen, "z": ema}
    stored = method | {"seen": collections.namedtuple("Diagnostics", fields)(**fields)}
    earlier = make_state(1)._replace(opt_state=(stored, base))
    later = collections.namedtuple("TrainState", [*earlier._fields, "loss_scale"])
    pair = optimizer.OptState(method, base)
    named = later(**earlier._asdict() | {"opt_state": pair, "loss_scale": None})
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, earlier, {}, is_best=False)
        restored, _ = checkpoints.restore(abstract(named))
    assert jax.tree.structure(restored) == jax.tree.structure(named)
    assert bits(restored) == bits(named)


@pytest.fixture
def float64():
    # Not the context manager: it holds for one thread, and Orbax has its own.
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.mark.usefixtures("float64")
def test_round_trip_of_float64(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        state = {"w": jnp.asarray([1 / 3, 1e300]), "n": jnp.asarray(2**60)}
        checkpoints.save(1, state, {}, is_best=False)
        restored, _ = checkpoints.restore(abstract(state))
        assert bits(restored) == bits(state)
        assert restored["w"].dtype == jnp.float64


def test_progress_is_taken_when_save_is_called(tmp_path):
    progress = {"history": [1]}
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(), progress, is_best=False)
        progress["history"].append(2)
        assert checkpoints.restore(make_state())[1] == {"history": [1]}
        with pytest.raises(TypeError):
            checkpoints.save(2, make_state(), {"x": object()}, is_best=False)


def test_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    add_one = jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)
    state = [jnp.zeros([512, 512]) for _ in range(4)]
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 4):
            state = add_one(state)
            checkpoints.save(step, state, {}, is_best=True)
            state = jax.block_until_ready(add_one(state))
            state = jax.tree.map(lambda x: x - 1, state)
            restored, _ = checkpoints.restore(state)
            assert all((np.asarray(x) == step).all() for x in restored)


MESH_SPECS = {
    "one device": lambda mesh, x: SingleDeviceSharding(jax.devices()[3]),
    "replicated": lambda mesh, x: NamedSharding(mesh, P()),
    "sharded": lambda mesh, x: NamedSharding(
        mesh, P("data") if x.ndim and x.shape[0] % 8 == 0 and x.size else P()
    ),
}


@pytest.mark.parametrize("target", MESH_SPECS)
@pytest.mark.parametrize("source", MESH_SPECS)
def test_restores_onto_another_sharding(tmp_path, source, target):
    mesh = jax.make_mesh((8,), ("data",))
    plain = make_state(3)
    placed = jax.tree.map(
        lambda x: jax.device_put(x, MESH_SPECS[source](mesh, x)), plain
    )
    expected = abstract(plain, lambda x: MESH_SPECS[target](mesh, x))
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, placed, {}, is_best=False)
        restored, _ = checkpoints.restore(expected)
    assert bits(restored) == bits(plain)
    for leaf, want in zip(
        jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(want.sharding, leaf.ndim)


@pytest.mark.parametrize("rows", [8, 1], ids=["replicated", "fsdp 8"])
def test_eight_devices_restore_on_one_two_and_four_bitwise(tiny, tmp_path, rows):
    def on(data, fsdp):
        grid = {"mesh.data": data, "mesh.fsdp": fsdp, "model.width": 128}
        return build.build(tiny("vasso", **grid))

    run = on(rows, 8 // rows)
    batches = run.dataset.train.batches(batch_size=32, seed=0)
    batch = sharding.put_batch(next(batches), run.mesh)
    state, _ = run.train_step(run.init(run.seed), batch)
    assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state)) == (
        rows == 1
    )
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {}, is_best=False)
        for data, fsdp in ((1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4)):
            expected = on(data, fsdp).abstract_state()
            restored, _ = checkpoints.restore(expected)
            assert bits(restored) == bits(state)
            places = [x.sharding for x in jax.tree.leaves(restored)]
            assert places == [x.sharding for x in jax.tree.leaves(expected)]
            assert any(not x.is_fully_replicated for x in places) == (fsdp > 1)


def test_keeps_the_last_and_the_best(tmp_path):
    save_steps(tmp_path, 1, 2, 3, 4, 5, best=(1, 2))
    assert steps_on_disk(tmp_path) == {"2", "4", "5"}
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (5, 2)
        assert checkpoints.restore(make_state())[1] == {"at": 5}
        best, progress = checkpoints.restore(make_state(), 2)
        assert bits(best) == bits(make_state(2)) and progress == {"at": 2}
    save_steps(tmp_path, 6)
    assert steps_on_disk(tmp_path) == {"2", "5", "6"}
    save_steps(tmp_path, 7, best=(7,))
    assert steps_on_disk(tmp_path) == {"6", "7"}


def test_keeps_as_many_as_chosen(tmp_path):
    keep = settings.Checkpoint(keep_last=1, keep_every=3)
    with checkpoint.Checkpoints(tmp_path, keep) as checkpoints:
        for step in range(1, 9):
            checkpoints.save(step, {"w": jnp.float32(step)}, {}, is_best=step == 4)
    assert steps_on_disk(tmp_path) == {"3", "4", "6", "8"}


def test_saving_does_not_ask_whether_to_stop(tmp_path, monkeypatch):
    """That is the loop's to ask, in step with the other processes."""
    asked = []
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", asked.append)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state(step), {}, is_best=False)
    assert asked == []


@pytest.fixture
def other_sees(monkeypatch):
    """``other_sees([3], [3, 6])``: what process 1 sees, look after look."""

    def install(*lists):
        looks = list(lists)

        def exchange(own):
            other = json.dumps(looks[0] if len(looks) == 1 else looks.pop(0))
            return [own, other]

        monkeypatch.setattr(agreement, "exchange", exchange)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)

    return install


def test_waits_until_all_processes_see_the_same_checkpoints(tmp_path, other_sees):
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        for step in (3, 6):
            checkpoints.save(step, make_state(step), {}, is_best=step == 3)
    other_sees([], [3], [3, 6])
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 6
    other_sees([3])
    with pytest.raises(agreement.Refused, match=r"see different .*\[3, 6\] and \[3\]"):
        checkpoint.Checkpoints(tmp_path)


def test_nothing_saved(tmp_path):
    with checkpoint.Checkpoints(tmp_path / "new" / "folder") as checkpoints:
        assert checkpoints.latest_step() is checkpoints.best_step() is None
        assert checkpoints.restore(make_state()) is None
        with pytest.raises(errors.UserError, match=r"no checkpoint of step 3 in .*new"):
            checkpoints.restore(make_state(), 3)


def test_saving_the_last_step_again_changes_nothing(tmp_path):
    save_steps(tmp_path, 5)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, make_state(99), {"at": 99}, is_best=False)
        assert checkpoints.restore(make_state())[1] == {"at": 5}
        with pytest.raises(ValueError, match="step 4 is before the last saved one, 5"):
            checkpoints.save(4, make_state(4), {}, is_best=False)
    assert steps_on_disk(tmp_path) == {"5"}


def test_half_written_checkpoint_is_ignored_and_cleaned_up(tmp_path):
    save_steps(tmp_path, 5)
    half = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "checkpoints" / "5", half)
    shutil.rmtree(half / "metrics")
    save_steps(tmp_path, 6)
    assert steps_on_disk(tmp_path) == {"5", "6"}
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(make_state())[1] == {"at": 6}


def test_foreign_folder(tmp_path):
    save_steps(tmp_path, 5)
    foreign = tmp_path / "checkpoints" / "900"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    (tmp_path / "checkpoints" / "notes").mkdir()
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        (line,) = checkpoints.lost
        assert "/900 is not a complete checkpoint" in line and "from step 5" in line
        assert checkpoints.restore(make_state())[1] == {"at": 5}
        checkpoints.save(6, make_state(6), {"at": 6}, is_best=True)
    aside = tmp_path / "checkpoints" / "damaged-900"
    assert (aside / "thesis.txt").read_text() == "mine" and str(aside) in line
    assert steps_on_disk(tmp_path) == {"5", "6", "damaged-900", "notes"}


def test_a_renamed_checkpoint_is_noticed(tmp_path):
    save_steps(tmp_path, 5)
    folder = tmp_path / "checkpoints"
    (folder / "5").rename(folder / "30")
    with pytest.raises(errors.UserError, match="/30 is that of step 5: rename it back"):
        checkpoint.Checkpoints(tmp_path)


def test_what_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    """As root may read all, the system's answer is imitated."""
    save_steps(tmp_path, 5, 6)
    opened = pathlib.Path.open

    def denied(path, *args, **kwargs):
        if path.parent.name == "6":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, "open", denied)
    with pytest.raises(
        errors.UserError, match=r"cannot read .*SHA256SUMS \(Permission"
    ):
        checkpoint.Checkpoints(tmp_path)
    assert steps_on_disk(tmp_path) == {"5", "6"}


def test_a_folder_that_vanished_is_noticed_and_not_made_again(tmp_path):
    with checkpoint.Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(1, make_state(), {}, is_best=False)
        checkpoints.wait()
        (tmp_path / "run").rename(tmp_path / "moved")
        with pytest.raises(errors.WriteError, match="was deleted or renamed"):
            checkpoints.save(2, make_state(), {}, is_best=False)
        # As a save that was on its way would do.
        half = tmp_path / "run" / "checkpoints" / "2.orbax-checkpoint-tmp" / "state"
        half.mkdir(parents=True)
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


def other_key(state):
    return state._replace(key=jax.random.key(0, impl="rbg"))


def without_momentum(state):
    return state._replace(opt_state=optax.sgd(0.1).init(state.params))


def with_more(state):
    return state._replace(extra={**state.extra, "more": jnp.zeros(2)})


def as_bfloat16(state):
    return state._replace(
        params=jax.tree.map(lambda x: x.astype("bfloat16"), state.params)
    )


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (
            lambda state: make_state(width=6),
            "'params/dense/0/kernel': stored float32[16,5], expected float32[16,6]",
        ),
        (as_bfloat16, "'params/dense/0/bias': stored float32[8], expected bfloat16[8]"),
        (with_more, "'extra/more': stored nothing, expected float32[2]"),
        (without_momentum, "/kernel': stored float32[16,5], expected nothing"),
        (other_key, "'key': stored uint32[2], expected uint32[4]"),
    ],
)
def test_checkpoint_of_another_model_or_method(tmp_path, change, difference):
    save_steps(tmp_path, 5)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(errors.UserError) as caught:
            checkpoints.restore(abstract(change(make_state())))
        assert difference in str(caught.value)
        assert str(tmp_path / "checkpoints" / "5") in str(caught.value)
        assert "--workdir" in str(caught.value) and "\n" not in str(caught.value)
        assert bits(checkpoints.restore(make_state())[0]) == bits(make_state(5))


@pytest.mark.parametrize("folder", ["file/run", "/proc/nowhere"])
def test_unwritable_workdir(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.UserError, match=r"cannot write to .*checkpoints \("):
        checkpoint.Checkpoints(tmp_path / folder)


def test_only_orbax_is_silenced(tmp_path, caplog):
    from absl import logging as absl_logging

    with caplog.at_level(logging.INFO, logger="absl"):
        save_steps(tmp_path, 1, 2)
        assert caplog.records == []
        absl_logging.info("from the trainer")
    assert [record.message for record in caplog.records] == ["from the trainer"]


def test_record_on_disk_is_plain_json_and_digests_are_those_of_sha256sum(tmp_path):
    save_steps(tmp_path, 1, best=(1,))
    folder = tmp_path / "checkpoints" / "1"
    record = json.loads((folder / "metrics" / "metrics").read_text())
    assert record == {"step": 1, "is_best": True, "progress": {"at": 1}}
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = [line.split("  ")[1] for line in lines]
    assert "metrics/metrics" in listed and len(listed) >= 9
    if shutil.which("sha256sum"):
        command = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
        assert subprocess.run(command, cwd=folder, check=False).returncode == 0
