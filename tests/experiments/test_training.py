"""The tables of `experiments.training`, with two runs of seconds on digits."""

import json
import re
import shlex
import shutil
import sys
import types

import jax
import numpy as np
import pytest
from safetensors import numpy

from experiments.training import __main__ as program
from experiments.training import engine, robustness, table, weights, written
from sam_jax import data, errors, locks
from sam_jax.train import (
    cards,
    comparison,
    files,
    loaded,
    loop,
    settings,
    sharpness,
    subject,
)

TOY = """
title = "Toy"
card = "configs/digits_sam.py"
source = "a paper"
seconds = 3
seeds = SEEDS
by = "data.label_noise"
baseline = { "method.name" = "none" }
weights = true
curves = "model.name"

[settings]
epochs = 1
"data.train_examples" = 128
"data.label_noise" = 0.25
"model.name" = "mlp"
"model.width" = 8

[[rows]]
"method.name" = ["sgd", "sam"]

[[published]]
where = { "method.name" = "sam" }
value = "2.7 ± 0.1"
source = "page 3"
"""


class Place:
    """Folders of a table, and the command on them."""

    def __init__(self, folder):
        self.file, self.runs, self.out = (
            folder / name for name in ("toy.toml", "runs", "results")
        )
        self.write()

    def write(self, seeds=1, text=TOY):
        self.file.write_text(text.replace("SEEDS", str(seeds)))

    def __call__(self, *words):
        return program.main(
            [str(self.file), f"--runs={self.runs}", f"--out={self.out}", *words]
        )

    @property
    def job(self):
        return engine.Job(str(self.file), (), self.out, self.runs)

    @property
    def record(self):
        return self.out / "toy" / "table.json"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("filled"))
    assert place() == 0
    return place


@pytest.fixture
def place(filled, tmp_path):
    """A copy of a table that is filled."""
    shutil.copytree(filled.runs, tmp_path / "runs")
    shutil.copytree(filled.out, tmp_path / "results")
    return Place(tmp_path)


@pytest.fixture
def trained(monkeypatch):
    """Names of the runs that are trained from now on; none is really."""
    found = []

    def train(config, folder, **parts):
        found.append(folder.name)
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(settings.to_json(config))
        raise loop.Diverged("not finite")

    monkeypatch.setattr(loop, "train_and_evaluate", train)
    return found


# ── A table and its runs ─────────────────────────────────────────────────────────────


def test_a_table_has_every_number_and_what_is_published(filled):
    text = (filled.out / "toy" / "table.md").read_text()
    sgd, sam = (x for x in text.splitlines() if re.match(r"\| s(gd|am)", x))
    assert sam.endswith("| 2.7 ± 0.1 (page 3) |") and "p =" not in sam
    assert sgd.endswith("| not available |")
    assert "data.label_noise = 0.25" in text and "†" in sgd
    runs = comparison.read(filled.record)
    assert [run.settings["method.name"] for run in runs] == ["none", "sam"]
    for run in runs:
        assert re.fullmatch(r"\w+\+?", run.extra["commit"])
        assert run.extra["environment"]["packages"]["jax"]
        names = {f"error_{name}" for name in robustness.DISTURBANCES}
        assert {"nll", "ece"} | names <= run.extra.keys()
        # The trainer's own evaluation says the same of the undisturbed images.
        assert run.extra["nll"] == pytest.approx(run.last["test"]["loss"], rel=1e-5)
    record = filled.record.read_text()
    assert "data.cache_dir" not in record, "a folder of this machine"
    assert str(filled.out.parent) not in record
    for name in ("table.png", "curves.png"):
        assert (filled.out / "toy" / name).stat().st_size > 10_000
    for run in runs:  # of the one epoch
        metrics = comparison.read(filled.runs / run.name)[0].curve("train", "loss")
        assert run.extra["training_losses"] == pytest.approx([metrics[1]], rel=1e-3)


def test_published_cells_of_cifar100_are_of_the_official_split():
    made = table.load("foret_cifar")
    plan = table.planned(made, ["--config.model.name=mlp"])
    text = written.markdown(made, [], plan)
    one, two = text.split("## data.name = ")[1:]
    assert "| 2.7 ± 0.1 (paper) |" in one and "official split" not in one
    assert "| 16.5 ± 0.2 (paper, official split) |" in two


# ── Weights ──────────────────────────────────────────────────────────────────────────


def test_kept_weights_are_measured_again(filled, capsys):
    (path, _) = sorted((filled.out / "toy" / "weights").glob("*.safetensors"))
    words = [str(filled.file), f"--out={filled.out}", "--examples=64", "--rho=0.1"]
    assert weights.main(words) == 0
    record = json.loads((filled.out / "toy" / "sharpness.json").read_text())
    assert record["rho"] == 0.1 and len(record["rows"]) == 2
    for row in record["rows"]:
        recorded = row["recorded test error (%)"]
        assert row["test error (%)"] == pytest.approx(recorded, abs=0.5)
        assert row["sam_sharpness"] <= row["worst_case"] and row["lambda_max"] > 0
    page = (filled.out / "toy" / "sharpness.md").read_text()
    assert "within a radius of 0.1" in page and page.count("\n| s") == 2
    # As the trainer measures the run itself, in whole precision.
    run = loaded.load_run(filled.runs / path.stem, "last")
    few = subject.drawn(run.own_data().train, 64, 0)
    aim = subject.Subject(run, few, subject.Losses.of_run(run))
    [same] = [r for r in record["rows"] if r["run"].startswith(path.stem[:3])]
    loss = sharpness.MEASURES["loss"].find(aim)["value"]
    assert same["loss"] == pytest.approx(loss, rel=1e-2)


def test_weights_of_another_network_are_refused(place, capsys):
    for path in (place.out / "toy" / "weights").iterdir():
        content = numpy.load_file(path)
        content["params.Dense_0.kernel"] = np.zeros((3, 3), np.float16)
        numpy.save_file(content, path)
    assert weights.main([str(place.file), f"--out={place.out}"]) == 2
    said = capsys.readouterr().err
    assert "is not of this network" in said and said.count("\n") == 1


WEIGHTS = sorted(program.RESULTS.glob("*/weights/*.safetensors"))


def test_committed_weights_are_those_of_the_records_and_fit_their_networks():
    """All but the evaluation, for which `experiments.training.weights` needs images."""
    split = np.zeros((128, 32, 32, 3), np.uint8), np.arange(128) % 10
    dataset = data.of_arrays(split, split)
    shapes = set()
    for folder in {path.parents[1] for path in WEIGHTS}:
        record = json.loads((folder / "sharpness.json").read_text())
        runs = {run.name: run for run in comparison.read(folder / "table.json")}
        plan = table.planned(table.load(folder.name))
        kept = [path for path in WEIGHTS if path.parents[1] == folder]
        assert len(record["rows"]) >= len(kept)
        for path in kept:
            assert path.stem in runs and path.stat().st_size < 1_000_000
            run = weights.load(path, plan[path.stem], dataset)
            leaves = jax.tree.leaves((run.params, run.model_state))
            assert all(np.isfinite(leaf).all() for leaf in leaves)
            shapes.add(sum(leaf.size for leaf in jax.tree.leaves(run.params)))
        for row in record["rows"]:
            recorded = row["recorded test error (%)"]
            assert row["test error (%)"] == pytest.approx(recorded, abs=0.2)
    assert len(WEIGHTS) >= 35 and shapes == {44_230}


def test_weights_are_kept_in_half_precision(filled):
    [path, _] = sorted((filled.out / "toy" / "weights").glob("*.safetensors"))
    run = loaded.load_run(filled.runs / path.stem, "last")
    from safetensors.numpy import load_file

    kept = load_file(path)["params.Dense_0.kernel"]
    assert kept.dtype == np.float16
    np.testing.assert_allclose(kept, run.params["Dense_0"]["kernel"], rtol=1e-3)


@pytest.mark.parametrize("lost", ["nothing", "runs", "results"])
def test_what_is_finished_is_not_run_again(place, trained, lost):
    before = place.record.read_text()
    if lost != "nothing":
        shutil.rmtree(place.runs if lost == "runs" else place.out)
    assert place() == 0
    assert trained == []
    assert place.record.read_text() == before


def test_all_rows_have_a_seed_before_one_has_two(place, trained):
    place.write(seeds=3)
    assert place() == 1  # as all of them fail
    brief = [re.sub(r"(_rho0.1)?_seed(\d)_.*", r"\2", name) for name in trained]
    assert brief == ["sgd1", "sam1", "sgd2", "sam2"]
    # A run that has diverged would again.
    assert place() == 0
    assert len(trained) == 4
    assert "| 1 of 3, 2 failed |" in (place.out / "toy" / "table.md").read_text()


def test_a_run_that_fails_otherwise_is_tried_again(place, monkeypatch, capsys):
    def fails(*args, **parts):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(loop, "train_and_evaluate", fails)
    place.write(seeds=2)
    assert [place(), place()] == [1, 1]
    assert capsys.readouterr().out.count("seed1") == 4
    assert "**2 runs are missing" in (place.out / "toy" / "table.md").read_text()


def test_a_run_of_another_process_is_left_to_it(place, trained):
    place.write(seeds=2)
    _, _, missing = place.job.state()
    [held, _] = missing
    with locks.held(place.runs / f".{held}.lock", wait=False):
        assert place() == 1
    assert [name.partition("_")[0] for name in trained] == ["sam"]


def test_a_stopped_table_keeps_what_is_finished(place, monkeypatch, capsys):
    def stops(*args, **parts):
        raise loop.Stopped(15, 7)

    monkeypatch.setattr(loop, "train_and_evaluate", stops)
    place.write(seeds=2)
    assert place() == 128 + 15
    assert "stopped after step 7" in capsys.readouterr().err
    assert "**2 runs are missing" in (place.out / "toy" / "table.md").read_text()
    assert len(place.job.state()[1]) == 2


def test_a_table_can_be_written_while_it_is_filled(place, trained):
    place.write(seeds=2)
    assert place("--write-only") == 0 and trained == []
    assert "**2 runs are missing" in (place.out / "toy" / "table.md").read_text()


def test_commands_train_the_same_runs(place, capsys):
    place.write(seeds=2)
    assert place("--print-commands") == 0
    lines = capsys.readouterr().out.splitlines()
    _, _, missing = place.job.state()
    assert len(lines) == len(missing) == 2
    for line, (name, config) in zip(lines, missing.items(), strict=True):
        card, workdir, *words = shlex.split(line)[3:]
        assert workdir == f"--workdir={place.runs / name}"
        assert cards.load(card.removeprefix("--config="), *words) == config


def test_without_a_gpu_its_rows_stay_empty(place, trained, capsys):
    place.write(seeds=2, text=TOY.replace("seconds = 3", ""))
    assert place() == 0
    assert trained == []
    assert "needs a GPU" in capsys.readouterr().out
    text = (place.out / "toy" / "table.md").read_text()
    assert "**2 runs are missing: they need a GPU.**" in text


# ── What goes wrong ──────────────────────────────────────────────────────────────────


def test_another_version_of_the_table_is_refused(place, trained, capsys):
    place.write(text=TOY.replace("epochs = 1", "epochs = 2"))
    assert place() == 2
    message = capsys.readouterr().err
    assert "another version of the table: it has 2 runs" in message
    assert message.count("\n") == 1 and trained == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 3\n" + TOY, "unknown key 'seed': did you mean 'seeds'?"),
        (TOY.replace('title = "Toy"', ""), "has no title"),
        (TOY.replace('"sam"]', '"sma"]'), "did you mean 'sam'"),
        ("title = [", "is not a table"),
    ],
)
def test_a_mistake_in_a_table_is_one_line(place, capsys, text, message):
    place.write(text=text)
    assert place() == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_an_unknown_table_has_a_nearest_one(capsys):
    assert program.main(["khanh_tabel4"]) == 2
    assert "did you mean 'khanh_table4'?" in capsys.readouterr().err


def test_missing_data_end_the_command_before_the_first_run(place, trained, capsys):
    text = TOY.replace('"model.name" =', '"data.name" = "npz"\n"model.name" =')
    place.write(text=text)
    shutil.rmtree(place.out)
    assert place("--config.data.path=nowhere.npz") == 2
    assert "nowhere.npz does not exist" in capsys.readouterr().err
    assert trained == []


def test_a_disk_that_is_full_in_a_run_keeps_finished_runs(place, monkeypatch, capsys):
    def train(config, folder, **parts):
        raise errors.WriteError("cannot write metrics.jsonl (No space left on device)")

    monkeypatch.setattr(loop, "train_and_evaluate", train)
    place.write(seeds=2)
    before = place.record.read_text()
    assert place() == 1
    said = capsys.readouterr().err
    assert "No space left" in said and said.count("\n") == 1
    assert place.record.read_text() == before


def test_a_full_disk_keeps_finished_runs(place, monkeypatch, capsys):
    def full(path, data):
        raise errors.WriteError(f"cannot write {path} (No space left on device)")

    monkeypatch.setattr(files, "replace", full)
    before = place.record.read_text()
    assert place() == 1
    said = capsys.readouterr().err
    assert "No space left" in said and said.count("\n") == 1
    assert place.record.read_text() == before


def test_a_dead_worker_is_one_line(place, monkeypatch, capsys):
    class Executor:
        """Of two workers the second one dies."""

        def __init__(self, folder, cluster):
            assert cluster == "slurm"
            self.started = []

        def update_parameters(self, **parameters):
            assert parameters["name"] == "sam_jax_toy"

        def submit(self, function, *arguments):
            self.started.append(function)
            dies = len(self.started) == 2
            paths = types.SimpleNamespace(stderr="runs/workers/2.err")

            def result():
                if dies:
                    raise RuntimeError("Job\nwas killed")
                return function(*arguments)

            return types.SimpleNamespace(job_id=2, paths=paths, result=result)

    fake = types.SimpleNamespace(AutoExecutor=Executor)
    monkeypatch.setitem(sys.modules, "submitit", fake)
    place.record.unlink()
    assert place("--workers=2", "--cluster=slurm") == 1
    said = capsys.readouterr().err
    assert "worker 2 died (Job was killed; runs/workers/2.err)" in said
    assert said.count("\n") == 1 and place.record.exists()


@pytest.mark.slow("processes of submitit")
def test_two_workers_share_the_runs_of_a_table(tmp_path):
    place = Place(tmp_path)
    place.write(seeds=2)
    assert place("--workers=2") == 0
    assert len(comparison.read(place.record)) == 4
    logs = [path.read_text() for path in (place.runs / "workers").glob("*_log.out")]
    assert len(logs) == 2
    assert sum(log.count("test error") for log in logs) == 4


# ── The tables that there are ────────────────────────────────────────────────────────


QUICK = ("foret_cifar", "khanh_table4", "oikonomou_table4")
SLOW = pytest.mark.slow("many methods, and nothing that the quick ones have not")


@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=[SLOW] * (x not in QUICK)) for x in table.names()],
)
def test_every_run_can_be_planned_and_every_published_cell_has_a_row(name):
    made = table.load(name)
    plan = table.planned(made)
    runs = [
        comparison.Run(folder, table.own(settings.flat_text(config)))
        for folder, config in plan.items()
    ]
    groups = [x for part in written.parts(made, runs).values() for x in part]
    for cell in made.published:
        rows = [group for group in groups if written.matches(cell["where"], group)]
        assert len(rows) == 1, cell
    if made.baseline:
        for part in written.parts(made, runs).values():
            assert written.matches(made.baseline, part[0])
    assert made.source or made.seconds, "where it is from, or what it costs"
    job = engine.Job(name, (), program.RESULTS, program.RESULTS)
    _, done, missing = job.state()
    page = (program.RESULTS / name / "table.md").read_text()
    assert page == written.markdown(made, done, missing), "write it with --write-only"


def test_the_list_says_what_tables_cost(place, monkeypatch, capsys):
    shutil.copy(table.TABLES / "khanh_table5.toml", place.file.parent)
    monkeypatch.setattr(table, "TABLES", place.file.parent)
    place.write(seeds=5, text=TOY.replace("seconds = 3", "seconds = 1800"))
    assert program.main(["list", f"--out={place.out}", f"--runs={place.runs}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"khanh_table5 +0 of 36 +needs a GPU, 7,200 epochs +Khanh .*", lines[0]
    )
    assert re.fullmatch(r"toy +2 of 10 +4.0 core hours +Toy", lines[1])
