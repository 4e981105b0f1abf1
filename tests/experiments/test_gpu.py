"""The queue of jobs for a GPU: its order, its rows, and all of it at tiny sizes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from experiments.benchmarks import measure, programs
from experiments.gpu import __main__ as command
from experiments.gpu import (
    contest,
    fast_recipe,
    images,
    networks,
    pack,
    queue,
    record,
    tasks,
    worker,
)
from sam_jax import errors

A, B, C = (queue.Job(f"family/{part}", 100, least=40) for part in "abc")


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def fake(clock, out, costs, failing=()):
    """Jobs that take their seconds and write one row; some fail."""

    def spawn(job, own, seconds):
        assert f"--out={out}" in own
        started.append(job.name)
        clock.now += costs[job.part]
        if job.name in failing:
            return 1, "last words"
        name = f"{job.family}.json"
        found = record.Record(out / name, record.RESULTS / name)
        found.begin({})
        found.add(f"{job.part}/row", {"value": 1})
        found.mark(job.part, queue.COMPLETE)
        return 0, ""

    started = []
    return spawn, started


@pytest.fixture
def jobs(monkeypatch):
    monkeypatch.setattr(queue, "QUEUE", (A, B, C))


# ── Queue ────────────────────────────────────────────────────────────────────────────


def test_every_job_has_a_module_and_at_most_six_minutes():
    names = [job.name for job in queue.QUEUE]
    assert len(set(names)) == len(names)
    for job in queue.QUEUE:
        assert 0 < job.least <= job.seconds <= 360
        assert (record.ROOT / "experiments" / "gpu" / f"{job.family}.py").exists()
    # Eight files and no more come back from a machine.
    assert len({job.family for job in queue.QUEUE}) <= 8
    assert names[0].startswith("correctness") and names[2].startswith("step_time")


def test_what_failed_comes_last_and_what_does_not_fit_is_passed_over():
    status = {A.name: queue.FAILED, B.name: queue.COMPLETE}
    assert queue.following([A, B, C], status, [], left=60) == C
    assert queue.following([A, B, C], status, [C.name], left=60) == A
    assert queue.following([A, B, C], status, [], left=39) is None
    long = queue.Job("family/long", 300, least=200)
    assert queue.following([long, C], {}, [], left=60) == C
    assert queue.following([long, C], {}, [], left=250) == long


def test_jobs_run_within_the_seconds_and_the_next_call_goes_on(tmp_path, jobs, capsys):
    clock = Clock()
    costs = {"a": 100, "b": 100, "c": 100}
    spawn, started = fake(clock, tmp_path, costs)
    argv = ["--tiny", "--seconds=220", f"--out={tmp_path}"]
    assert command.main(argv, clock, spawn) == 0
    assert started == [A.name, B.name]  # 20 s are too few for a third one
    assert "2 of 3 jobs are complete" in capsys.readouterr().out
    assert command.main(argv, clock, spawn) == 0
    assert started == [A.name, B.name, C.name]
    assert command.main(argv, clock, spawn) == 0
    assert len(started) == 3


def test_a_job_that_dies_leaves_its_last_words_and_keeps_nothing_back(tmp_path, jobs):
    clock = Clock()
    costs = {"a": 10, "b": 10, "c": 10}
    spawn, started = fake(clock, tmp_path, costs, failing=[A.name])
    argv = ["--tiny", "--seconds=200", f"--out={tmp_path}"]
    assert command.main(argv, clock, spawn) == 0
    assert started == [A.name, B.name, C.name]  # once each
    found = json.loads((tmp_path / "family.json").read_text())
    assert "ended with code 1\nlast words" in found["rows"]["a/process"]["error"]
    assert found["parts"] == {"a": "failed", "b": "complete", "c": "complete"}
    spawn, started = fake(clock, tmp_path, costs)
    assert command.main(argv, clock, spawn) == 0
    assert started == [A.name]


def test_committed_results_are_where_a_real_run_begins(
    tmp_path, jobs, monkeypatch, capsys
):
    committed, out = tmp_path / "results", tmp_path / "out"
    monkeypatch.setattr(record, "RESULTS", committed)
    record.Record(committed / "family.json").mark("a", queue.COMPLETE)
    clock = Clock()
    spawn, started = fake(clock, out, {"b": 1, "c": 1})
    chosen = ["--jobs=family/a,family/b", f"--out={out}"]
    assert command.main(chosen, clock, spawn) == 0
    assert started == [B.name]
    assert command.main(["--list", f"--out={out}"]) == 0
    assert "to do      100 s  family/c" in capsys.readouterr().out
    # At tiny sizes nothing was done yet.
    assert command.statuses([A], out / "none", None) == {}


def test_a_job_that_does_not_exist_is_one_line(capsys):
    assert command.main(["--jobs=step_tme"]) == 2
    assert capsys.readouterr().err == "error: no job is called 'step_tme': see --list\n"


def test_a_process_is_killed_at_the_end_of_its_time(monkeypatch, tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho started $XLA_FLAGS\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setenv("XLA_FLAGS", "--one")
    job = queue.Job("family/a", 1, env={"XLA_FLAGS": "--two"})
    assert command.process(job, [], 1.0) == (-9, "started --one --two\n")


# ── Rows ─────────────────────────────────────────────────────────────────────────────


def measured(name, calls, seconds=1.0):
    def row():
        calls.append(name)
        if name == "bad":
            raise ZeroDivisionError("by zero")
        if name == "lacking":
            measure.need("no_such_package", "it")
        return {"name": name}

    return tasks.Task(name, seconds, row)


def test_rows_are_kept_and_a_task_that_fails_is_one_of_them(tmp_path, capsys):
    path, calls = tmp_path / "family.json", []
    found = record.Record(path)
    found.begin({"card": "none"})
    found.add("part/done", {"name": "done"})
    names = ["done", "bad", "lacking", "good"]
    row = [measured(name, calls) for name in names]
    worker.work("part", found, row, lambda: 10.0)
    assert calls == ["bad", "lacking", "good"]
    written = json.loads(path.read_text())
    assert written["parts"] == {"part": "failed"}
    assert "ZeroDivisionError: by zero" in written["rows"]["part/bad"]["error"]
    assert written["rows"]["part/good"]["run"] == 0
    assert "part/lacking" not in written["rows"]
    line = "part/lacking: left out, no_such_package is not installed: pip install it\n"
    assert line in capsys.readouterr().out
    # The next time what failed is tried again, and nothing else.
    worker.work("part", record.Record(path), row, lambda: 10.0)
    assert calls[3:] == ["bad", "lacking"]


def test_a_task_that_does_not_fit_is_not_begun(tmp_path):
    calls, left = [], iter([10.0, 4.0])
    found = record.Record(tmp_path / "family.json")
    row = [measured("a", calls, 5.0), measured("b", calls, 5.0)]
    worker.work("part", found, row, lambda: next(left))
    assert calls == ["a"]
    assert found.parts == {"part": queue.BEGUN}
    assert found.has("part/a")


def test_a_family_that_cannot_be_imported_is_a_row(tmp_path):
    def broken():
        raise ImportError("no such module")
        yield

    found = record.Record(tmp_path / "family.json")
    worker.work("part", found, broken(), lambda: 10.0)
    assert "no such module" in found.rows["part/preparation"]["error"]
    assert found.parts == {"part": queue.FAILED}


def test_a_cut_between_two_writes_loses_nothing(tmp_path, monkeypatch):
    found = record.Record(tmp_path / "family.json")
    found.add("part/a", {"value": 1})

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        found.add("part/b", {"value": 2})
    assert list(record.Record(tmp_path / "family.json").rows) == ["part/a"]


def test_a_row_that_is_not_finished_is_measured_again(tmp_path):
    found = record.Record(tmp_path / "family.json")
    found.add("part/a", {"partial": True})
    found.add("part/b", {"error": "..."})
    assert not found.has("part/a") and not found.has("part/b")


def test_a_contest_times_whoever_could_be_made(tmp_path):
    found = record.Record(tmp_path / "family.json")
    found.add("peak/matmul", {"flops_per_second": 1e9})
    calls = []

    lacking = ["bad"]

    def contender(name):
        if name in lacking:
            raise MemoryError(name)
        call = lambda: calls.append(name)  # noqa: E731
        return contest.Contender(call, 2, 8, {"flops": 1e3})

    def run():
        context = tasks.Context("part", True, None, None, lambda: found.rows, None)
        stages = [
            {name: lambda name=name: contender(name) for name in names}
            for names in (("a", "bad"), ("c",))
        ]
        made = contest.Contest(context, stages, rounds=2)
        worker.work("part", found, made.tasks(), lambda: 1e3)

    run()
    assert calls.count("a") == 2 + 4 and calls.count("c") == 2 + 2
    assert set(found.rows["part/round/0-1"]["seconds_per_step"]) == {"a"}
    assert set(found.rows["part/round/1-1"]["seconds_per_step"]) == {"a", "c"}
    assert found.rows["part/summary"]["of"]["c"]["time_over_a"]["median"] > 0
    assert found.rows["part/summary"]["of"]["a"]["share_of_peak"] > 0
    assert not found.has("part/round/0-1") and not found.has("part/summary")
    # Who could not be made at first is timed with the others as soon as it can be.
    lacking.clear()
    found.add("part/process", {"error": "of an earlier try"})
    run()
    assert found.parts["part"] == queue.COMPLETE and found.has("part/summary")
    assert set(found.rows["part/round/0-0"]["seconds_per_step"]) == {"a", "bad", "c"}
    assert set(found.rows["part/summary"]["of"]) == {"a", "bad", "c"}
    assert "part/process" not in found.rows
    # Another process makes them again for the round that is missing.
    calls.clear()
    del found.rows["part/round/1-1"]
    run()
    assert sorted(calls) == ["a"] * 3 + ["bad"] * 3 + ["c"] * 3


def test_a_cpu_is_not_measured_as_a_gpu():
    with pytest.raises(errors.UserError, match="JAX finds no GPU here"):
        worker.need_gpu()


# ── Images and networks ──────────────────────────────────────────────────────────────


def mosaics(folder, per_class=6, side=32):
    """A folder of random images in the layout of those that are packed."""
    from PIL import Image

    generator = np.random.default_rng(3)
    folder.mkdir()
    for split in ("train_{}_0", "train_{}_1", "test_{}"):
        for name in images.CLASSES:
            pixels = generator.integers(0, 256, (2 * side, 3 * side, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{split.format(name)}.png")
    return folder


def test_packed_images_are_read_with_their_labels(tmp_path, capsys):
    source = mosaics(tmp_path / "source")
    out = tmp_path / "parts"
    assert pack.main([str(source), str(out), "--megabytes=0.4"]) == 0
    archives = sorted(out.iterdir())
    assert len(archives) >= 2
    assert all(path.stat().st_size <= 0.4 * 2**20 for path in archives)
    assert len(capsys.readouterr().out.splitlines()) == len(archives)
    found = images.load(out, tiny=False, needed=True)
    train, test = found.train.split, found.test.split
    assert (len(train.images), len(test.images)) == (120, 60)
    assert np.bincount(train.labels).tolist() == [12] * 10
    frogs = images.tiles((source / "test_frog.png").read_bytes())
    assert len(frogs) == 6 and frogs.shape[1:] == (32, 32, 3)
    read = test.images[test.labels == images.CLASSES.index("frog")]
    key = lambda x: x.tobytes()  # noqa: E731
    assert sorted(map(key, read)) == sorted(map(key, frogs))
    archives[0].unlink()
    with pytest.raises(measure.Missing, match=r"part1of\d.tar is not in"):
        images.load(out, tiny=False, needed=True)
    assert images.load(out, tiny=True, needed=False).name == "noise"


def test_without_images_a_training_is_left_out_and_times_are_of_noise():
    with pytest.raises(measure.Missing, match="--data=FOLDER"):
        images.load(None, tiny=False, needed=True)
    assert images.load(None, tiny=True, needed=True).name == "noise"


def test_pack_says_where_there_is_nothing(tmp_path, capsys):
    assert pack.main([str(tmp_path), str(tmp_path)]) == 2
    assert "has no train_* and test_* images" in capsys.readouterr().err


def test_the_variants_of_the_fast_recipe_are_its_card():
    context = tasks.Context("seed3", False, None, None, None, None)
    found = {
        name: fast_recipe.variant(*way, 3, context)
        for name, way in fast_recipe.VARIANTS.items()
    }
    assert [x.epochs for x in found.values()] == [37, 74, 37, 18]
    assert {x.seed for x in found.values()} == {3}
    names = [x.method.name for x in found.values()]
    assert names == ["none", "none", "sam", "sam"]
    for x in found.values():
        assert x.schedule.warmup_epochs == pytest.approx(0.23 * x.epochs)
        assert x.data.alternate_flip and x.model.dtype == "bfloat16"
        assert x.model.name.endswith("configs/cifar10_fast.py:FastNet")
        assert x.steps_per_dispatch == 48


@pytest.mark.peers
@pytest.mark.slow("torch traces the network for seconds")
@pytest.mark.parametrize("method", ["sam", "pytorch_optimizer"])
def test_sam_of_torch_climbs_and_comes_back(method, monkeypatch):
    """Without a learning rate the weights stay, and statistics are the clean pass's."""
    torch = pytest.importorskip("torch")
    from experiments.benchmarks import torch_peer

    monkeypatch.setattr(torch_peer, "RATE", 0.0)
    compiler = None if method == "sam" else {"backend": "eager"}
    start, sgd, sam = (
        torch_peer.Trainer(programs.noise(16), 8, 2, name, steps, compiler=compiler)
        for name, steps in (("sgd", 0), ("sgd", 1), (method, 1))
    )
    for peer in (start, sgd, sam):
        torch.manual_seed(1)
        peer()
    states = (start.model, sgd.model, sam.model)
    for name, before, of_sgd, of_sam in zip(
        start.model.state_dict(),
        *(x.state_dict().values() for x in states),
        strict=True,
    ):
        if "running" in name:
            assert not torch.equal(of_sgd, before)
            torch.testing.assert_close(of_sam, of_sgd)
        elif "num_batches" not in name:
            torch.testing.assert_close(of_sam, before, rtol=0, atol=1e-6)
    of_sgd, of_sam = (
        torch.cat([w.grad.flatten() for w in x.model.parameters()]) for x in (sgd, sam)
    )
    assert (of_sam - of_sgd).norm() > 1e-3 * of_sgd.norm()


def test_every_network_has_a_tiny_one():
    parts = {job.part for job in queue.QUEUE if job.family == "networks"}
    assert parts == set(networks.SIZES) == set(networks.TINY)


# ── All of it ────────────────────────────────────────────────────────────────────────


BLOCKED = ("ml_collections", "tensorboardX", "tensorflow", "tensorflow_datasets")
BLOCKED += ("grain", "torch", "matplotlib", "sklearn", "wandb")


def test_everything_imports_without_what_a_gpu_machine_may_lack():
    program = """
import sys
for name in sys.argv[1:]:
    sys.modules[name] = None
from experiments.gpu import ahead_of_time, cifar10, correctness, fast_recipe, networks
from experiments.benchmarks import measure, programs
from experiments.gpu import step_time
print(programs.settings("looksam").method)
try:
    measure.need("torch")
except measure.Missing as missing:
    print(missing)
"""
    run = subprocess.run(
        [sys.executable, "-c", program, *BLOCKED],
        cwd=record.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    method, missing = run.stdout.splitlines()
    assert "name='looksam'" in method and "'k': 5, 'alpha': 0.7" in method
    assert missing.startswith("torch is not installed: pip install ")


# Of jobs that differ in a flag or a seed alone, one.
# The quicker half of the kinds; tests/nightly.sh runs every job.
KINDS = (
    *("correctness/core", "step_time/peak", "cifar10/sgd-0", "cifar10/sam-0"),
    *("networks/vit_s16", "ahead_of_time/device"),
)


@pytest.mark.slow("a process for each job, which compiles")
def test_jobs_run_at_tiny_sizes(tmp_path):
    source = mosaics(tmp_path / "source")
    assert pack.main([str(source), str(tmp_path / "parts")]) == 0
    argv = ["--tiny", "--seconds=3000", f"--out={tmp_path / 'out'}"]
    argv += [f"--jobs={','.join(KINDS)}", f"--data={tmp_path / 'parts'}"]
    assert command.main(argv) == 0
    for job in queue.chosen(KINDS):
        found = record.Record(tmp_path / "out" / f"{job.family}.json")
        rows = {k: v for k, v in found.rows.items() if k.startswith(f"{job.part}/")}
        for key, row in rows.items():
            assert "error" not in row, f"{job.family}: {key}\n{row['error']}"
        assert rows and found.parts[job.part] == queue.COMPLETE, job.name
        if job.family == "correctness":
            passed = [row[dtype]["passed"] for row in rows.values() for dtype in ROWS]
            assert all(passed), rows
    families = {job.family for job in queue.chosen(KINDS)}
    assert {path.stem for path in (tmp_path / "out").iterdir()} == families


ROWS = ("float32", "bfloat16")
