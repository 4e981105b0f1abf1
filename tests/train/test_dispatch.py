"""Several updates in one call are the updates of as many calls."""

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest

from sam_jax import data, errors
from sam_jax.train import build, dispatch, loop, sharding
from tests.train import runs
from tests.train.steps import assert_close  # the two programs sum in other orders

SEVERAL = 3  # divides neither the 4 steps of an epoch nor the 2 of a row


@pytest.fixture
def settings(tiny):
    """``settings(3)``: the run of `finished`, with 3 updates in a call."""

    def make(steps, **more):
        noisy = {"data.label_noise": 0.25, "data.crop": 1, "ema_decay": 0.9}
        return tiny("sam", **(noisy | {"steps_per_dispatch": steps} | more))

    return make


@pytest.fixture
def dispatched(monkeypatch):
    """``dispatched(2, action)`` acts in call 2; lists (most, steps) of all calls."""
    real = dispatch.Several.__call__

    def install(number=None, action=None):
        calls, found = [], []

        def call(self, state, most):
            found.append(self)
            if len(found) == number:
                action()
            updates = real(self, state, most)
            calls.append((most, updates.steps))
            assert self.train_steps._cache_size() == 1
            return updates

        monkeypatch.setattr(dispatch.Several, "__call__", call)
        return calls

    return install


def assert_close_rows(rows, expected):
    """The same rows, their numbers within rounding."""
    found, goal = (runs.comparable(each) for each in (rows, expected))
    assert [row.pop("split") for row in found] == [row.pop("split") for row in goal]
    assert_close(found, goal)


def assert_close_run(config, folder, reference):
    """Checks that two runs have saved the same within rounding."""
    (state, progress), (expected, goal) = (
        runs.saved(config, each) for each in (folder, reference)
    )
    assert_close(state, expected)
    assert progress["best"] == goal["best"]


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


# ── A whole run ──────────────────────────────────────────────────────────────────────


def test_run_is_that_of_one_update_per_call(settings, dispatched, finished, tmp_path):
    calls = dispatched()
    run = runs.Finished(settings(SEVERAL), tmp_path)
    # Up to the end of each epoch, where it is evaluated and saved, in one program.
    assert calls == [(4, 3), (1, 1)] * 3
    assert_close_run(settings(SEVERAL), tmp_path, finished.folder)
    assert_close_rows(run.rows, finished.rows)


def test_more_than_there_is_to_do_at_once(settings, dispatched, finished, tmp_path):
    calls = dispatched()
    rare = {"eval_every_epochs": 3, "checkpoint.every_epochs": 2}
    run = runs.Finished(settings(100, **rare), tmp_path)
    assert calls == [(8, 8), (4, 4)]
    trained = [row for row in finished.rows if row["split"] == "train"]
    found = [row for row in run.rows if row["split"] == "train"]
    assert_close_rows(found, trained)
    assert_close(run.results["last"]["test"], finished.results["last"]["test"])


@pytest.mark.parametrize(("first", "then"), [(SEVERAL, 1), (1, SEVERAL)])
def test_signal_acts_after_the_call_and_the_run_continues_with_another_number(
    settings, dispatched, disturb, finished, tmp_path, first, then
):
    if first == 1:
        disturb(7, terminate)
    else:
        dispatched(3, terminate)  # of updates 5 to 7
    with pytest.raises(loop.Stopped) as stopped:
        loop.train_and_evaluate(settings(first), tmp_path)
    assert stopped.value.step == 7
    assert int(runs.saved(settings(first), tmp_path)[0][".step"]) == 7
    disturb()
    calls = dispatched()
    run = runs.Finished(settings(then), tmp_path)
    assert calls == ([] if then == 1 else [(1, 1), (4, 3), (1, 1)])
    assert_close_run(settings(then), tmp_path, finished.folder)
    assert_close_rows(run.rows[-2:], finished.rows[-2:])


def test_importance_sampling_sends_its_weights(settings, tmp_path):
    sampled = {"data.sampling.name": "importance", "epochs": 1}
    one = runs.Finished(settings(1, **sampled), tmp_path / "one")
    several = runs.Finished(settings(SEVERAL, **sampled), tmp_path / "several")
    assert_close_rows(several.rows, one.rows)
    assert_close_run(settings(1, **sampled), several.folder, one.folder)


def test_an_update_that_is_not_finite_stops_the_run_by_its_number(tiny, tmp_path):
    config = tiny("sam", learning_rate=1e30, steps_per_dispatch=SEVERAL)
    with pytest.raises(loop.Diverged, match=r"of step [12] is not finite"):
        loop.train_and_evaluate(config, tmp_path)


# ── On the devices ───────────────────────────────────────────────────────────────────


def after(run, steps):
    """The state after so many updates, and the losses."""
    advance = dispatch.from_step(run, 0)
    current, done, losses = run.init(run.seed), 0, []
    while done < steps:
        before = current
        current, metrics, count = advance(current, steps - done)
        losses += [float(x) for x in np.atleast_1d(metrics["loss"])[:count]]
        done += count
        kept = [
            jax.tree_util.keystr(path)
            for path, leaf in jax.tree_util.tree_leaves_with_path(before)
            if not leaf.is_deleted()
        ]
        assert all("diagnostics" in path for path in kept), "the state is donated"
    return current, losses, advance


@pytest.mark.parametrize(
    "mesh",
    [
        pytest.param({"mesh.data": 8}, marks=pytest.mark.slow("another grid")),
        {"mesh.data": 4, "mesh.fsdp": 2, "model.width": 128},
    ],
)
def test_devices_gather_their_own_rows(settings, mesh):
    several = build.build(settings(SEVERAL, **mesh))
    state, losses, advance = after(several, 8)
    expected, goal, _ = after(build.build(settings(1, **mesh)), 8)
    assert_close((losses, state), (goal, expected))
    leaves = zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True)
    assert all(a.sharding.is_equivalent_to(b.sharding, a.ndim) for a, b in leaves)
    assert advance.train_steps._cache_size() == 1
    # The examples are whole on each device, and no batch of them is sent around.
    examples = advance._examples["image"]
    assert {s.data.shape for s in examples.addressable_shards} == {examples.shape}
    draws = {
        name: jax.ShapeDtypeStruct(
            (32, SEVERAL), dtype, sharding=sharding.split(several.mesh)
        )
        for name, dtype in (("index", np.int32), ("weight", np.float32))
    }
    program = advance.train_steps.lower(
        several.abstract_state(), advance._examples, draws, np.int32(1)
    )
    moved = [
        line
        for line in program.compile().as_text().splitlines()
        if " all-gather(" in line
        or " all-to-all(" in line
        or " collective-perm" in line
    ]
    assert not any("u8[" in line for line in moved), moved


@pytest.mark.slow("compiles residual networks")
def test_convolutions_are_those_of_one_update_per_call(tiny):
    network = {
        "model.name": "resnet_digits",
        "model.width": 4,
        "model.options": {},
        "data.crop": 1,
    }
    state, losses, _ = after(
        build.build(tiny("sam", **network, steps_per_dispatch=SEVERAL)), 4
    )
    expected, goal, _ = after(build.build(tiny("sam", **network)), 4)
    assert_close((losses, state), (goal, expected))


# ── What is refused ──────────────────────────────────────────────────────────────────


class Streamed:
    """A source that cannot be indexed."""

    def __init__(self, source):
        self.num_examples = source.num_examples
        self.steps_per_epoch = source.steps_per_epoch
        self.batches, self.eval_batches = source.batches, source.eval_batches


@pytest.mark.usefixtures("built_anew")
def test_a_streamed_training_set_is_refused_for_several(settings, monkeypatch):
    real = data.load

    def load(*args, **kwargs):
        loaded = real(*args, **kwargs)
        return dataclasses.replace(loaded, train=Streamed(loaded.train))

    monkeypatch.setattr(data, "load", load)
    with pytest.raises(errors.UserError, match=r"dispatch=3 .*'digits'") as e:
        build.build(settings(3))
    assert "\n" not in str(e.value)
    assert build.build(settings(1)).total_steps == 12
