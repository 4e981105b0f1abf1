import json
import pathlib
import stat
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import (
    loader,
    measure,
    memory,
    peers,
    pods,
    programs,
    startup,
    step_cost,
    theory_speed,
    trainer_overhead,
)
from sam_jax import models
from sam_jax.train import sharding

ROOT = pathlib.Path(__file__).parents[2]


def tiny_model():
    """A linear network on inputs that running statistics centre, as BatchNorm does."""

    def init(key, images):
        del images
        return {"w": jax.random.normal(key, (48, 10))}, {"mean": jnp.zeros(48)}

    def apply(params, model_state, images, *, train, key=None):
        del train, key
        inputs = images.reshape(len(images), -1)
        logits = jnp.tanh(inputs - inputs.mean(0)) @ params["w"]
        # Depends on the weights, so that a perturbed pass would give itself away.
        mean = 0.9 * model_state["mean"] + 0.1 * params["w"][:, 0]
        return logits, {"mean": mean}

    return models.Model(init, apply)


def trained(optimizer):
    """Weights and statistics after some updates of a benchmark's step."""
    chosen = programs.settings("sgd", "mlp:8", batch_size=6)
    own = {"model": tiny_model(), "optimizer": optimizer}
    program = programs.Program(programs.run(chosen, programs.noise(6, 4), **own), 3)
    program()
    assert int(program.state.step) == 3
    return program.state.params["w"], program.state.model_state["mean"]


def test_the_peers_of_sam_do_the_same():
    ways = step_cost.optimizers(["sam"])
    ways["in two"] = step_cost.around(step_cost.optax_sam_in_two())
    names = "sgd", "sam", step_cost.HAND_WRITTEN, step_cost.OPTAX, "in two"
    sgd, sam, *peers = (trained(ways[name]) for name in names)
    for other in peers:
        np.testing.assert_allclose(sam[0], other[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(sam[1], other[1], rtol=1e-5, atol=1e-6)
    assert np.abs(sam[0] - sgd[0]).max() > 1e-4


def test_step_cost_writes_a_table_and_a_record(tmp_path, capsys):
    out = tmp_path / "new" / "cost.json"
    argv = ["--models=mlp:32", "--batch=256", "--image=8", "--rounds=2", f"--out={out}"]
    assert step_cost.main([*argv, "--methods=sam,usam"]) == 0
    record = json.loads(out.read_text())
    assert record["command"].startswith("python -m experiments.benchmarks.step_cost -")
    assert record["versions"]["jax"] == jax.__version__
    results = record["results"]["mlp:32"]
    assert list(results) == ["sgd", "sam", "usam", "hand-written", "optax"]
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in results)
    assert results["hand-written"]["flops_ratio"] == pytest.approx(2, rel=0.02)
    assert results["sam"]["flops_ratio"] == pytest.approx(2, rel=0.05)
    assert abs(results["sam"]["state_copies"]) < 0.01
    assert results["sgd"]["optimizer_copies"] == pytest.approx(1, abs=0.01)
    assert results["sam"]["time_ratio"]["sgd"]["median"] > 0
    assert len(results["sam"]["all_seconds"]) == 2


def test_step_cost_counts_state_and_memory_in_copies_of_the_parameters():
    params = {"w": jnp.zeros(1000), "b": jnp.zeros(24)}

    def step(params, trace):
        return params, jax.tree.map(lambda w, m: w + m, params, trace)

    compiled = jax.jit(step).lower(params, params).compile()
    counted = step_cost.counted(compiled, params, {"trace": params, "old": params})
    assert counted["params_bytes"] == 4096
    assert counted["optimizer_copies"] == 2
    assert counted["argument_bytes"] == 8192
    assert counted["flops"] == 1024


@pytest.mark.parametrize(
    ("module", "argv", "message"),
    [
        (step_cost, ["--methods=sma"], "sam"),
        (step_cost, ["--models=mpl"], "mlp"),
        (step_cost, ["--models=mlp:x"], "name:width, got 'mlp:x'"),
        (trainer_overhead, ["--card=configs/digit_sam.py"], "digits_sam"),
        (trainer_overhead, ["--config.epochs=1", "--config.log_every_steps=20"], "20"),
    ],
)
def test_mistakes_are_one_line(module, argv, message, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert module.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert error.count("\n") == 1


def test_trainer_overhead_times_the_same_steps_of_both(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    out = tmp_path / "overhead.json"
    settings = {
        "model.name": "mlp",
        "model.width": 8,
        "batch_size": 128,
        "epochs": 3,
        "log_every_steps": 4,
        "data.crop": 0,
    }
    overrides = [f"--config.{key}={value}" for key, value in settings.items()]
    assert trainer_overhead.main([*overrides, "--rounds=1", f"--out={out}"]) == 0
    results = json.loads(out.read_text())["results"]
    # 1167 examples make 9 steps of 128 in an epoch; the log begins at step 4.
    assert results["steps"] == 3 * 9 - 4
    assert {len(times) for times in results["seconds"].values()} == {1}
    assert 0 < results["share"]["low"] <= results["share"]["high"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # the trainer's own output is not among them


def test_loader_delivers_batches_by_threads_and_times_a_step(tmp_path, monkeypatch):
    for name, value in (("SIZE", 32), ("BATCH", 4), ("WORKERS", (0,))):
        monkeypatch.setattr(loader, name, value)
    monkeypatch.setattr(
        loader.build,
        "build",
        lambda _, dataset: types.SimpleNamespace(**found(dataset)),
    )
    out = tmp_path / "loader.json"
    assert loader.main(["--rounds=2", "--images=8", f"--out={out}"]) == 0
    results = json.loads(out.read_text())["results"]
    assert {name: len(of["per second"]) for name, of in results.items()} == {
        "Pillow alone": 2,
        "threads": 2,
        "step": 1,
    }
    assert min(x for of in results.values() for y in of.values() for x in y) > 0


def found(dataset):
    """A run that counts the pixels."""
    return {
        "dataset": dataset,
        "mesh": sharding.make_mesh(1, 1, 1),
        "seed": 0,
        "init": lambda seed: seed,
        "train_step": lambda state, batch: (state + batch["image"].sum(), None),
    }


@pytest.fixture
def fake_python(tmp_path, monkeypatch):
    """Returns a function that puts a shell script in place of Python."""

    def install(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(path))

    return install


def test_startup_watches_for_header_and_first_step(fake_python):
    fake_python(
        "echo devices 1; sleep 0.2; echo compiled and ran the first step in; sleep 0.4"
    )
    header, first_step = startup.watch("card.py", "cache")
    assert header + 0.2 <= first_step + 0.01 < header + 0.4


@pytest.mark.parametrize("script", ["echo devices 1", "echo devices; exit 3"])
def test_startup_refuses_a_run_that_did_not_start(fake_python, script):
    fake_python(script)
    with pytest.raises(RuntimeError, match="lines seen"):
        startup.watch("card.py", "cache")


def test_startup_divides_the_time(monkeypatch):
    monkeypatch.setattr(
        startup, "seconds_of", lambda code: 3.0 if "load(" in code else 1
    )
    monkeypatch.setattr(startup, "watch", lambda card, cache: (4.5, 10.0))
    assert startup.start("card.py", "cache") == {
        "total": 10.0,
        "imports": 1,
        "data": 2.0,
        "state": 1.5,
        "step": 5.5,
    }


def busy(tmp_path, times, name="record.json"):
    """The exit code after results of these times, and what is written."""
    path = tmp_path / name
    code = measure.write(path, "a.b", [], {"seconds": times})
    return code, json.loads(path.read_text())["results"]["seconds"]


def test_a_busy_machine_is_told_and_takes_no_place_of_good_results(tmp_path, capsys):
    calm, noisy, worse = [1.0, 1.01, 1.02], [1.0, 1.5, 2.0], [1.0, 2.0, 4.0]
    assert busy(tmp_path, noisy) == (0, noisy)  # there is nothing better
    assert busy(tmp_path, worse) == (0, worse)
    assert busy(tmp_path, calm) == (0, calm)
    capsys.readouterr()
    assert busy(tmp_path, noisy) == (1, calm)
    said = capsys.readouterr().err
    assert said.startswith("warning: the times spread by 33 %: the machine is busy; ")
    assert said.count("\n") == 1
    kept = json.loads((tmp_path / "record.busy.json").read_text())
    assert kept["results"]["seconds"] == noisy and kept["spread"] > measure.CALM
    assert busy(tmp_path, calm) == (0, calm) and not capsys.readouterr().err
    (tmp_path / "record.json").write_text("[")
    assert busy(tmp_path, noisy) == (0, noisy)  # damaged is not good


def test_the_spread_is_that_of_most_times():
    steady, jumping = [2.0, 2.02, 2.04, 2.02], [1.0, 3.0, 9.0, 2.0]
    of_all = {"a": [{"seconds": steady}] * 2, "b": {"c": jumping}, "n": [1, 900, 3]}
    assert measure.spread_of(of_all) == pytest.approx(0.01 / 2.02)
    assert measure.spread_of({"two": [1.0, 9.0], "flops": {"a": 1.0, "b": 2.0}}) == 0
    record = ROOT / "experiments/benchmarks/results/step_cost_width64.json"
    assert measure.spread_of(json.loads(record.read_text())["results"]) < measure.CALM


def test_a_peer_that_is_not_here_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(measure.Missing, match=r"^torch is not installed: pip install "):
        measure.need("torch")
    measure.need("jax")


def test_in_turns_times_everyone_once_a_round():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = measure.in_turns(contenders, rounds=20)
    rounds = [calls[i : i + 3] for i in range(0, 60, 3)]
    assert all(sorted(of_round) == ["a", "b", "c"] for of_round in rounds)
    assert len({of_round[0] for of_round in rounds}) == 3  # nobody is always first
    assert [len(times[name]) for name in "abc"] == [20] * 3


def test_the_loops_of_theory_speed_do_the_same():
    # With one component there is nothing random.
    data = theory_speed.Data(np.array([[1.0, -2.0]]), np.array([0.7]), 0.1)
    with jax.enable_x64(True):
        expected = theory_speed.by_sam_jax(data, 2, 30)()
    assert np.abs(expected).max() > 0.1
    for loop in (theory_speed.seed_by_seed, theory_speed.all_at_once):
        np.testing.assert_allclose(loop(data, 2, 30), expected, rtol=1e-10)


def test_theory_speed_writes_a_table_and_a_record(tmp_path, capsys):
    out = tmp_path / "speed.json"
    argv = ["--seeds=3", "--steps=5", "--rounds=2", f"--out={out}"]
    assert theory_speed.main(argv) == 0
    results = json.loads(out.read_text())["results"]
    assert list(results) == list(theory_speed.problems())
    assert "NumPy, seed by seed" in capsys.readouterr().out


@pytest.mark.slow("compiles five steps; test_remat.py counts the memory of a gradient")
def test_memory_of_a_step_falls(tmp_path, capsys, optimized):
    """With less kept, and with fewer examples in the network at once."""
    argv = [
        "--models=resnet_digits:8",
        "--image=16",
        f"--out={tmp_path / 'memory.json'}",
    ]
    assert memory.main(argv) == 0
    found = json.loads((tmp_path / "memory.json").read_text())["results"]
    ways = found["resnet_digits:8"]
    plain = ways.pop(memory.PLAIN)
    assert len(ways) == 4
    for name, counted in ways.items():
        assert counted["temporary"] < 0.9 * plain["temporary"], name
        assert counted["state"] == plain["state"]
    assert ways["remat"]["flops"] > 1.05 * plain["flops"]
    assert "method_group_size=16" in capsys.readouterr().out


@pytest.mark.peers
@pytest.mark.slow("starts four processes that compile networks")
def test_peers_are_processes_that_take_turns(tmp_path, capfd):
    out = tmp_path / "peers.json"
    small = ["--widths=2", "--batch=8", "--rounds=3", "--steps=1", f"--out={out}"]
    assert peers.main([*small, "--ways=sgd,sam,torch sgd,torch sam"]) in (0, 1)
    rows = json.loads(out.read_text())["results"]["2"]
    assert list(rows) == ["sgd", "sam", "torch sgd", "torch sam"]
    for name, row in rows.items():
        assert row["first_step_seconds"] > row["seconds"] > 0
        assert row["peak_bytes"] > 1e8 and len(row["all_seconds"]) == 3
        assert row["time_ratio"][peers.own_sgd(name)]["median"] > 0
    assert rows["torch sgd"]["time_ratio"]["torch sgd"]["median"] == 1
    assert "| torch sam |" in capfd.readouterr().out
    assert out.with_suffix(".svg").read_text().count("torch sam") == 1
    assert peers.main([*small, "--ways=sgd", f"--data={tmp_path / 'none'}"]) == 2
    assert "'sgd' ended, see above" in capfd.readouterr().err


def test_a_way_whose_package_is_missing_is_left_out(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert peers.main(["--ways=torch sgd"]) == 0
    assert "torch is not installed: pip install" in capsys.readouterr().out
    assert peers.main(["--ways=tensorflow"]) == 2
    assert (
        "unknown way 'tensorflow': There are: sam, sam by hand"
        in capsys.readouterr().err
    )


def test_the_page_has_the_recorded_numbers():
    record = json.loads(
        (ROOT / "experiments/benchmarks/results/peers.json").read_text()
    )
    page = (ROOT / "docs/peers.md").read_text()
    for rows in record["results"].values():
        assert peers.table(rows) in page
    assert record["command"].rpartition(" ")[0] in page


def test_the_document_of_pods_has_the_tables_of_the_record():
    path = ROOT / "experiments" / "benchmarks" / "results" / "pods.json"
    known = json.loads(path.read_text())["results"]
    assert len(pods.PUBLISHED) == 3 and set(known) <= set(pods.cases())
    document = (ROOT / "docs" / "rehearsal.md").read_text()
    tables = pods.tables(known)
    assert {"Calibration", "ResNet-50, strong scaling"} <= set(tables)
    assert [title for title, text in tables.items() if text not in document] == []
