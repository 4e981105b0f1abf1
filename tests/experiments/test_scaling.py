"""The benchmark of scaling at tiny sizes: what can be counted is exact."""

import functools
import json
import pathlib
import stat
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import commands
from experiments.benchmarks import measure, programs
from experiments.benchmarks.scaling import (
    __main__ as command,
)
from experiments.benchmarks.scaling import (
    common,
    device_groups,
    devices,
    memory,
    processes,
)
from sam_jax import models
from sam_jax.rehearsal import hlo
from sam_jax.train import metrics, sharding

SGD, SAM, SAM_DEVICE, SAM_HALF = common.WAYS
MODEL = "mlp:64"
DEVICES, BATCH, PER_DEVICE = 4, 16, 4


def network(*args, normalize=True, **settings):
    """One layer behind statistics of what passes together; compiles fast."""
    del args, settings

    def init(key, images):
        return {"w": jax.random.normal(key, (images[0].size, 10)) / 4}, {}

    def apply(params, model_state, images, *, train, key=None):
        del train, key
        x = images.reshape(len(images), -1)
        if normalize:
            x = (x - x.mean(0)) / (x.std(0) + 0.1)
        return jnp.tanh(x) @ params["w"], model_state

    return models.Model(init, apply)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(models, "build", network)


# ── Devices ──────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def records():
    """(kind, step, devices) -> record, on one device and on four."""
    with pytest.MonkeyPatch.context() as patch:
        plain = functools.partial(network, normalize=False)
        patch.setattr(models, "build", plain)
        found = devices.records(
            MODEL, [1, DEVICES], BATCH, PER_DEVICE, rounds=2, steps=1
        )
    return {(r["scaling"], r["step"], r["devices"]): r for r in found}


GRADIENT_BYTES = 4 * 64 * 10  # of the network on the digits


def test_every_way_is_measured_in_both_kinds_of_scaling(records):
    assert set(records) == {
        (kind, step, n)
        for kind in ("strong", "weak")
        for step in common.WAYS
        for n in (1, DEVICES)
    }
    for (kind, _, n), record in records.items():
        assert record["batch"] == (BATCH if kind == "strong" else n * PER_DEVICE)
        assert len(record["seconds"]) == 2
    sizes = [records["strong", step, DEVICES]["group_size"] for step in common.WAYS]
    assert sizes == [16, 16, 4, 2]


@pytest.mark.parametrize(
    ("step", "gradients"), [(SGD, 1), (SAM, 2), (SAM_DEVICE, 1), (SAM_HALF, 1)]
)
def test_gradients_that_are_carried(records, step, gradients):
    record = records["strong", step, DEVICES]
    assert set(record["collectives"]) == {"all-reduce"}
    # Beside gradients only scalars: losses, accuracies and norms.
    scalars = record["carried_bytes"] - gradients * GRADIENT_BYTES
    assert 0 < scalars <= 100
    assert record["sent_bytes"] == hlo.all_reduce_bytes(
        record["carried_bytes"], DEVICES
    )


def test_one_device_sends_nothing_and_is_its_own_measure(records):
    for (_, _, n), record in records.items():
        if n == 1:
            assert record["collectives"] == {}
            assert record["carried_bytes"] == record["sent_bytes"] == 0
            assert set(record["time_ratio"].values()) == {1}
        else:
            assert record["time_ratio"]["median"] > 0


def test_time_is_compared_with_the_same_step_on_one_device(records):
    for kind in ("strong", "weak"):
        seconds = [records[kind, SAM, n]["seconds"] for n in (DEVICES, 1)]
        ratios = np.divide(*seconds)
        assert records[kind, SAM, DEVICES]["time_ratio"]["low"] == min(ratios)


def test_a_device_is_given_its_share_of_the_batch(records):
    strong, weak = (
        [records[kind, SGD, n]["argument_bytes"] for n in (1, DEVICES)]
        for kind in ("strong", "weak")
    )
    example = 8 * 8 + 4 + 4 + 4  # image, two labels, weight
    assert strong[0] - strong[1] == example * (BATCH - BATCH // DEVICES)
    assert weak[0] == weak[1] == strong[1]


class Compiled:
    """A program with this text."""

    def __init__(self, text):
        self._text = text

    def as_text(self):
        return self._text


def test_collectives_are_read_with_their_bytes():
    (each,) = hlo.collectives(
        Compiled(
            "%r = (f32[4,8]{1,0}, bf16[3]{0}, pred[], s64[]) all-reduce(%a, %b, %c), "
            "replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add"
        )
    )
    assert each[:4] == ("all-reduce", (32, 3, 1, 1), 128 + 6 + 1 + 8, 4)
    assert each.sent == 1.5 * each.bytes


@pytest.mark.parametrize(
    ("name", "size", "sent"),
    # An array of 80 bytes on 4 devices; the result of a reduce-scatter is a part.
    [("all-reduce", 80, 120), ("all-gather", 80, 60), ("reduce-scatter", 20, 60)],
)
def test_bytes_sent_in_a_ring(name, size, sent):
    assert hlo.Collective(name, (size // 4,), size, 4).sent == sent
    assert hlo.Collective(name, (size // 4,), size, 1).sent == 0


# ── Memory ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("method", "copies"), [("sam", 2), ("vasso", 3)])
def test_memory_falls_with_the_devices_but_for_small_arrays(method, copies):
    records = {r["fsdp"]: r for r in memory.kept("mlp:512", method)}
    assert list(records) == [1, 2, 4, 8]
    alone = records[1]
    assert alone["bytes"] == alone["whole_bytes"]
    for fsdp in (2, 4, 8):
        whole, size = records[fsdp]["whole_bytes"], records[fsdp]["bytes"]
        assert 0 < whole < 0.03 * alone["bytes"]
        assert size - whole == (alone["bytes"] - whole) / fsdp
        assert records[fsdp]["ratio"] == size / alone["bytes"]

    chosen = programs.settings(method, "mlp:512", mesh={"data": 1, "fsdp": 8})
    run = programs.run(chosen, common.digits(128))
    state = run.init(run.seed)
    parameters = sum(x.nbytes for x in jax.tree.leaves(state.params))
    assert alone["bytes"] == pytest.approx(copies * parameters, rel=1e-3)
    kept = jax.tree.leaves((state.params, state.opt_state))
    local = sum(x.addressable_shards[0].data.nbytes for x in kept)
    assert records[8]["bytes"] == local


# ── Processes ────────────────────────────────────────────────────────────────────────


@pytest.fixture
def fake_trainer(tmp_path, monkeypatch):
    """``fake_trainer(code)``: a script instead of Python; returns its log."""

    def install(code):
        rows = [
            {"step": step, "split": "train", "wall_time": time}
            for step, time in ((5, 10.0), (10, 11.0), (15, 12.0))
        ]
        history = tmp_path / "history"
        history.write_text("".join(json.dumps(row) + "\n" for row in rows))
        log = tmp_path / "log"
        script = tmp_path / "python"
        script.write_text(
            "#!/bin/sh\n"
            f'echo "$XLA_FLAGS $JAX_PLATFORMS $*" >> {log}\n'
            'for flag in "$@"; do case $flag in --workdir=*)\n'
            "  mkdir -p ${flag#*=}\n"
            f"  cp {history} ${{flag#*=}}/{metrics.METRICS_FILE};; esac; done\n"
            f"{code}\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(script))
        return log

    return install


def test_the_trainer_is_started_in_processes_that_share_the_devices(
    fake_trainer, monkeypatch
):
    monkeypatch.setenv(
        "XLA_FLAGS", "--xla_a=1 --xla_force_host_platform_device_count=8"
    )
    log = fake_trainer("")
    assert processes.train(1, 2, ["--config=c"]) == 10 / 2  # steps over seconds
    (one,) = log.read_text().splitlines()
    count = "--xla_a=1 --xla_force_host_platform_device_count"
    assert one.startswith(f"{count}=2 cpu -m sam_jax.main")
    assert "--config=c" in one and "process" not in one
    log.unlink()
    assert processes.train(2, 1, []) == 5
    lines = sorted(log.read_text().splitlines(), key=lambda line: line[-1])
    assert all(line.startswith(f"{count}=1 cpu") for line in lines)
    assert all("--num_processes=2" in line for line in lines)
    assert [line.split()[-1] for line in lines] == ["--process_id=0", "--process_id=1"]
    flags = [dict(f.split("=") for f in line.split() if "=" in f) for line in lines]
    assert flags[0]["--coordinator"] == flags[1]["--coordinator"]
    assert flags[0]["--workdir"] == flags[1]["--workdir"]


def test_a_trainer_that_fails_says_why(fake_trainer):
    fake_trainer("echo no such card >&2; exit 2")
    with pytest.raises(RuntimeError, match="no such card"):
        processes.train(1, 1, [])


def test_processes_are_compared_round_by_round(monkeypatch):
    speeds, calls = iter([8.0, 6.0, 3.0, 4.0] * 3), []

    def train(number, devices, flags):
        calls.append((number, devices, flags))
        return next(speeds)

    monkeypatch.setattr(processes, "train", train)
    results = processes.compare(MODEL, batch=32, number=2, epochs=3, rounds=2)
    assert list(results) == [SGD, SAM, SAM_DEVICE]
    assert sorted(call[:2] for call in calls) == [(1, 2)] * 6 + [(2, 1)] * 6
    for result in results.values():
        one, several = (result["examples_per_second"][name] for name in ("1", "n"))
        assert sorted(one + several) == [96, 128, 192, 256]
        assert result["ratio"]["low"] == min(np.divide(several, one))
    sizes = [
        next(flag for flag in flags if "group_size" in flag) for _, _, flags in calls
    ]
    assert [size.partition("=")[2] for size in sizes[::4]] == ["32", "32", "16"]


# ── Groups on one device ─────────────────────────────────────────────────────────────


def groups_of_four(**method):
    settings = {"batch_size": 12, "method_group_size": 4, "method": method}
    chosen = programs.settings("sam", MODEL, **settings)
    return device_groups.forms(chosen, programs.noise(12, side=4))


def test_all_forms_of_the_loop_over_groups_do_the_same(small):
    runs = groups_of_four(rho=0.5)
    weights, first = {}, next(iter(runs.values()))
    start = first.init(first.seed)
    for form, run in runs.items():
        program = programs.Program(run)
        program.state = jax.tree.map(jnp.copy, start)
        program()
        weights[form] = program.state.params["w"]
    scanned = weights.pop(device_groups.ONE_BY_ONE)
    whole = weights.pop(device_groups.ONE_PERTURBATION)
    assert np.abs(scanned - whole).max() > 1e-3
    assert len(weights) == 2
    for other in weights.values():
        np.testing.assert_allclose(other, scanned, rtol=1e-5, atol=1e-6)


def test_the_forms_are_those_of_their_names(small):
    runs = groups_of_four()
    products, loops = {}, {}
    for form, run in runs.items():
        text = programs.Program(run).compiled.as_text()
        products[form] = text.count(" dot(")
        loops[form] = text.count(" while(")
    whole, one_by_one, unrolled, together = runs
    # A loop stands for all of its rounds.
    assert products[whole] == products[one_by_one] == products[together] > 0
    assert products[unrolled] == 3 * products[whole]
    assert loops == {whole: 0, one_by_one: 2, unrolled: 0, together: 0}


# ── Command line ─────────────────────────────────────────────────────────────────────


def test_sections_run_in_processes_of_their_own(tmp_path, monkeypatch, capfd):
    def child(argv, seen):
        if "--sections=groups" not in argv:
            return really(argv, seen=seen)
        out = pathlib.Path(argv[-1].removeprefix("--out="))
        assert not out.exists() and argv[1:3] == ["-m", command.MODULE]
        results = {"groups": {"results": 1}}
        return measure.write(out, "a.b", [], results), ""

    really = commands.child
    monkeypatch.setattr(commands, "child", child)
    out = tmp_path / "scaling.json"
    argv = ["--sections=memory,groups", "--memory_models=mlp:64", f"--out={out}"]
    assert command.main(argv) == 0
    record = json.loads(out.read_text())
    assert record["command"] == " ".join(["python -m", command.MODULE, *argv])
    assert set(record["results"]) == {"memory", "groups"}
    measured = record["results"]["memory"]
    assert measured["machine"]["device"] == "8 x cpu"
    assert measured["results"] == [
        r for method in memory.METHODS for r in memory.kept("mlp:64", method)
    ]
    printed = capfd.readouterr().out.splitlines()
    assert sum(line.startswith("| mlp:64 | vasso | 8 |") for line in printed) == 1


def test_a_section_that_fails_says_why(monkeypatch, capsys):
    failed = 2, "a line\nerror: there is no such model\n"
    monkeypatch.setattr(commands, "child", lambda argv, seen: failed)
    assert command.main(["--sections=memory,groups"]) == 2
    said = capsys.readouterr().err
    assert said == "error: section memory: there is no such model\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--sections=memory,grups"], "groups"),
        (["--sections=devices", "--model=mpl"], "mlp"),
        (["--sections=groups", "--groups_size=24"], "16 or 32"),
    ],
)
def test_mistakes_are_one_line(argv, message, capsys):
    assert command.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("own", "devices", "flags"),
    [
        ("", 2, "--xla_force_host_platform_device_count=2"),
        ("--xla_a=1", 4, "--xla_a=1 --xla_force_host_platform_device_count=4"),
    ],
)
def test_flags_of_the_user_stay(own, devices, flags, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", own)
    assert common.xla_flags(devices) == flags


def test_the_tables_have_a_row_for_each_record(records):
    table = devices.table([*records.values()]).splitlines()
    assert len(table) == 2 + len(records)
    cells = {line.count("|") for line in table}
    assert cells == {12}
    assert sharding.SMALLEST_SHARDED == 4096  # as the sizes above assume


# ── Document ─────────────────────────────────────────────────────────────────────────


def test_the_document_has_the_numbers_of_the_record():
    folder = pathlib.Path(__file__).parents[2]
    record = folder / "experiments/benchmarks/results/scaling.json"
    document = (folder / "docs/rehearsal.md").read_text()
    sections = json.loads(record.read_text())["results"]

    def spread(ratio):
        return f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"

    of = {
        (r["step"], r["devices"]): r
        for r in sections["devices"]["results"]
        if r["scaling"] == "strong"
    }
    rows = [
        f"| {step} | {1000 * np.median(of[step, 1]['seconds']):.1f} "
        f"| {spread(of[step, 2]['time_ratio'])} | {spread(of[step, 8]['time_ratio'])} "
        f"| {sum(of[step, 8]['collectives'].values())}, "
        f"{of[step, 8]['sent_bytes'] / 1e6:.3f} |"
        for step in common.WAYS
    ]
    rows += [
        f"| {step} | {np.median(r['examples_per_second']['1']):.0f} "
        f"| {np.median(r['examples_per_second']['n']):.0f} | {spread(r['ratio'])} |"
        for step, r in sections["processes"]["results"].items()
    ]
    assert [row for row in rows if row not in document] == []
    text = " ".join(document.split())
    for form, record in sections["groups"]["results"].items():
        if form != device_groups.ONE_PERTURBATION:
            assert spread(record["time_ratio"]) in text
