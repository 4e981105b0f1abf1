"""The sharpness of runs: measured by the verb, and in training."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sam_jax import checks, data, errors
from sam_jax.train import (
    build,
    coefficients,
    frozen,
    hosts,
    loaded,
    loop,
    report,
    settings,
    sharpness_files,
    sharpness_runs,
    subject,
    watch,
)
from sam_jax.train import sharpness as measures_lib
from sam_jax.train.slices import PICTURES
from tests.train import runs
from tests.train.test_commands import one_line, said


@pytest.fixture
def run(finished):
    return loaded.load_run(finished.folder, "last")


@pytest.fixture
def copied(finished, tmp_path):
    """The folder of a run, to be measured."""
    return shutil.copytree(finished.folder, tmp_path / "run")


def aimed(run, **asked):
    """Some examples of the run's training set."""
    asked = subject.Asked(**{"examples": 50, **asked})
    source = build.load_data(run.config.data).train
    few = subject.drawn(source, asked.examples, asked.seed)
    return subject.Subject(run, few, subject.Losses.of_run(run), asked)


# ── What is measured ─────────────────────────────────────────────────────────────────


def test_the_loss_is_that_of_evaluations_on_the_labels_trained_on(run):
    target = aimed(run, examples=None)
    split = build.load_data(run.config.data).train.split
    assert np.any(split.labels != split.true_labels)
    expected = run.evaluate((split.images, split.labels)).loss
    found = measures_lib.MEASURES["loss"].find(target)["value"]
    assert found == pytest.approx(expected, rel=1e-6)
    assert target.examples == 128


@pytest.mark.slow("differentiates a network twice; the fast tier smaller ones")
def test_eigenvalue_and_trace_are_those_of_the_whole_hessian(run):
    """Of the network written out once more, and differentiated twice."""
    target = aimed(run)
    images = jnp.asarray(target.source.split.images)
    labels = target.source.split.labels
    vector, form = ravel_pytree(run.params)

    def loss(vector):
        logits = run.logits(form(vector), run.model_state, images)
        return -jnp.mean(jax.nn.log_softmax(logits)[np.arange(50), labels])

    exact = jax.jit(jax.hessian(loss))(vector)
    chosen = {k: measures_lib.MEASURES[k] for k in ("lambda_max", "trace")}
    found = dict(measures_lib.measure(target, chosen))
    top = found["lambda_max"]
    assert abs(top["value"] - np.linalg.eigvalsh(exact)[-1]) <= top["residual"] + 1e-4
    trace = found["trace"]
    assert abs(trace["value"] - np.trace(exact)) < 4 * trace["standard_error"]
    assert (top["examples"], top["batch_norm"], top["step"]) == (50, "evaluation", 12)


def test_batch_norm_is_as_in_evaluation_or_as_in_training(net, run):
    model = net(0.0)
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    other = dataclasses.replace(run, model=model, params=params, model_state=state)
    split = aimed(other).source.split
    images = data.augment.normalize(
        jnp.asarray(split.images), run.preprocessing.mean, run.preprocessing.std
    )
    for mode in subject.BATCH_NORM:
        target = aimed(other, batch_norm=mode)
        # Batches of 32: in training one of them, whole; in evaluation all.
        count = 32 if mode == "training" else 50
        logits, _ = model.apply(params, state, images[:count], train=mode == "training")
        wrong = -jax.nn.log_softmax(logits)[np.arange(count), split.labels[:count]]
        found = measures_lib.MEASURES["loss"].find(target)["value"]
        assert found == pytest.approx(float(wrong.mean()), rel=1e-5)
        assert target.examples == count


def test_frozen_weights_are_not_measured(run):
    config = dataclasses.replace(run.config, freeze="Dense_0")
    target = aimed(dataclasses.replace(run, config=config))
    trained, _ = frozen.cut(run.params, "Dense_0")
    assert jax.tree.structure(target.params) == jax.tree.structure(trained)
    found = measures_lib.MEASURES["loss"].find(target)["value"]
    assert found == measures_lib.MEASURES["loss"].find(aimed(run))["value"]


def test_the_edge_is_that_of_the_runs_last_update(run):
    found = measures_lib.MEASURES["sam_edge"].find(target := aimed(run))
    rho = run.config.method.coefficients["rho"]
    assert found["rho"] == rho and 0 < found["learning_rate"] < 0.1
    rate, momentum = found["learning_rate"], run.config.optimizer.options["momentum"]
    norm, edge = target.ascent.grad_norm, found["value"]
    # The climbed gradient of an eigenvector is longer by this factor.
    assert rate * edge * (1 + rho * edge / norm) == pytest.approx(2 * (1 + momentum))
    config = dataclasses.replace(run.config, learning_rate=0.0)
    with pytest.raises(errors.UserError, match=r"learning rate .* is 0 in update 12"):
        measures_lib.MEASURES["sam_edge"].find(
            aimed(dataclasses.replace(run, config=config))
        )


def test_the_edge_is_that_of_the_runs_method_or_refused(run):
    def edge(**changes):
        config = dataclasses.replace(run.config, **changes)
        aim = aimed(dataclasses.replace(run, config=config))
        return measures_lib.MEASURES["sam_edge"].find(aim)

    rho, b = run.config.method.coefficients["rho"], 0.9
    found = edge(method=dataclasses.replace(run.config.method, name="usam"))
    value, rate = found["value"], found["learning_rate"]
    assert rate * value * (1 + rho * value) == pytest.approx(2 * (1 + b))
    found = edge(method=coefficients.Method(), cadence=settings.EveryK())
    assert found["learning_rate"] * found["value"] == pytest.approx(2 * (1 + b))
    plain = settings.Optimizer("sgd", {"momentum": None, "nesterov": False})
    found = edge(method=coefficients.Method(), optimizer=plain)
    assert found["learning_rate"] * found["value"] == pytest.approx(2)
    layers = run.config.method.coefficients | {"mask": "norm_layers"}
    nesterov = settings.Optimizer("sgd", {"momentum": b, "nesterov": True})
    for changes in (
        {"method": dataclasses.replace(run.config.method, name="asam")},
        {"optimizer": settings.Optimizer("adamw", {})},
        {"optimizer": nesterov},
        {"cadence": settings.EveryK()},
        {"clip_norm": 1.0},
        {"learning_rate_factors": "Dense_0=0.1"},
        {"method": dataclasses.replace(run.config.method, coefficients=layers)},
    ):
        with pytest.raises(errors.UserError, match="sam_edge is known for none, sam, "):
            edge(**changes)


def test_the_way_to_another_run_is_that_of_frozen_weights_too(run):
    config = dataclasses.replace(run.config, freeze="Dense_1")
    start = dataclasses.replace(run, config=config)
    end = dataclasses.replace(start, params=jax.tree.map(jnp.zeros_like, run.params))
    target = dataclasses.replace(aimed(start, examples=32), end=end)
    losses = PICTURES["path"].find(target)["losses"]
    assert losses[-1] == pytest.approx(np.log(10), rel=1e-6)  # of a network of zeros


# ── The verb ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def drawn(monkeypatch):
    """What would be drawn."""
    pictures = []
    monkeypatch.setattr(
        sharpness_files,
        "draw",
        lambda name, shown, path: pictures.append((path.name, len(shown))),
    )
    return pictures


def test_table_numbers_and_pictures(copied, capsys, tmp_path, drawn):
    other = shutil.copytree(copied, tmp_path / "b" / "run")  # of the same name
    asked = ["--measures=trace,m_sharpness,line,path", "--examples=40", "--m=16"]
    out = f"--out={tmp_path / 'both'}"
    code, shown, err = said(capsys, "sharpness", copied, other, *asked, out)
    assert (code, err) == (0, "")
    assert "BatchNorm   as in evaluation" in shown and "16 products" in shown
    both = json.loads((tmp_path / "both" / "sharpness.json").read_text())
    found = sharpness_files.read(copied)
    assert found["measures"]["trace"] == both[str(copied)]["trace"]
    assert found["measures"]["m_sharpness"]["examples"] == 32
    assert found["pictures"]["path"]["end"] == str(other)
    assert found["pictures"]["path"]["batch_norm"] == "training"
    assert len(found["pictures"]["line"]["losses"]) == 21
    value = sharpness_files.value(found["measures"]["trace"])
    assert f"| trace | {value} | {value} |" in (tmp_path / "both/table.md").read_text()
    names = [f"sharpness_{k}.png" for k in ("line", "path")]
    assert drawn == [(name, runs) for runs in (1, 1, 2) for name in names]
    # What is not measured anew stays.
    assert (
        said(capsys, "sharpness", copied, "--measures=loss", "--examples=all")[0] == 0
    )
    again = sharpness_files.read(copied)
    assert again["measures"].keys() == {"trace", "m_sharpness", "loss"}
    assert again["measures"]["loss"]["examples"] == 128
    # What is measured before a mistake stays; what is said is of all measures.
    late = "--measures=gradient_norm,path"
    assert "two runs" in one_line(capsys, "sharpness", copied, late, "--examples=40")
    assert sharpness_files.read(copied)["measures"].keys() >= {"gradient_norm", "loss"}
    parts = ["--measures=m_sharpness,loss", *asked[1:]]
    assert "32 or 40, of the" in said(capsys, "sharpness", copied, *parts)[1]
    kept = (copied / "sharpness.json").read_bytes()
    line = one_line(capsys, "sharpness", copied, f"--out={copied}", "--measures=loss")
    assert "give another folder" in line
    assert (copied / "sharpness.json").read_bytes() == kept
    (copied / "sharpness.json").write_text('{"format": 2}')
    assert "measure again" in one_line(capsys, "sharpness", copied, "--measures=loss")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--measures=tarce"], "did you mean 'trace'?"),
        (["--measures="], "unknown measure in --measures ''"),
        (["--examples=0"], "must be an integer >= 1, got '0'"),
        (
            ["--batch_norm=train"],
            "--batch_norm must be one of 'evaluation', 'training'",
        ),
        (["--rho=0"], "--rho must be a finite number > 0"),
        (["--seed=-1"], "--seed must be an integer >= 0"),
        (["--measures=lambda_max", "--k=999"], "k must be at most the 610 parameters"),
        (["--measures=path"], "a path needs two runs"),
        (["--step=best", "--measures=trajectory"], "keeps"),
        (["--step=5"], "'best', 'last'"),
    ],
)
def test_mistakes_are_one_line(finished, capsys, words, message):
    fast = ["--examples=32", *words]
    if any(word.startswith("--examples") for word in words):
        fast = words
    assert message in one_line(capsys, "sharpness", finished.folder, *fast)


def test_other_folders_and_other_networks(copied, capsys, tmp_path):
    assert "is not there" in one_line(capsys, "sharpness", tmp_path / "no")
    (tmp_path / "empty").mkdir()
    assert "is not the folder of a run" in one_line(
        capsys, "sharpness", tmp_path / "empty"
    )
    config = json.loads((copied / "config.json").read_text())
    config["model"]["width"] = 9
    (copied / "config.json").write_text(json.dumps(config))
    line = one_line(capsys, "sharpness", copied, "--examples=9", "--measures=loss")
    assert "Dense_0" in line


def test_what_is_not_finite_is_one_line(run):
    broken = jax.tree.map(lambda w: w * jnp.nan, run.params)
    target = aimed(dataclasses.replace(run, params=broken))
    chosen = {"trace": measures_lib.MEASURES["trace"]}
    with pytest.raises(errors.UserError, match=r"^trace: the loss is nan"):
        list(measures_lib.measure(target, chosen))


def test_the_training_in_its_plane_and_the_pictures(copied, tmp_path):
    """Each form of a picture, of one run and of two, with losses that overflow."""
    asked = subject.Asked(examples=8)
    with report.Report(quiet=True) as out:
        found = sharpness_runs.measure_runs([copied], "density,line", asked, out)
    records = found[str(copied)]
    assert (copied / "sharpness_density.png").read_bytes().startswith(b"\x89PNG")
    about = {k: records["line"][k] for k in ("about", "examples", "batch_norm")}
    plane = about | {
        "coordinates": [[-1.0, 0.0, 1.0]] * 2,
        "losses": [[1.0, 2.0, 3.0], [0.0, 1.0, np.inf], [2.0, np.nan, 4.0]],
        "points": [[0.5, 0.5], [0.0, 0.0]],
    }
    path = tmp_path / "plane.png"
    sharpness_files.draw("trajectory", {"a": plane, "b": plane}, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_trajectory_ends_at_the_run(tiny, tmp_path):
    config = tiny("none", **{"checkpoint.keep_every": 4})
    loop.train_and_evaluate(config, tmp_path)
    target = aimed(loaded.load_run(tmp_path, "last"), examples=8)
    ((_, found),) = measures_lib.measure(target, {"t": PICTURES["trajectory"]})
    assert found["steps"] == [4, 8, 12] and found["points"][-1] == [0, 0]
    assert sum(found["explained"]) == pytest.approx(1, abs=1e-5)
    assert np.shape(found["losses"]) == (15, 15)


# ── In training ──────────────────────────────────────────────────────────────────────


def without_clocks(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_it_changes_no_bit_of_the_training_and_resumes(
    finished, tmp_path, disturb, capsys
):
    measures = ("lambda_max", "sam_sharpness", "line")
    chosen = {"every": 1, "measures": measures, "examples": 40}
    watched = watch_of(finished.config, **chosen)
    run = runs.Finished(watched, tmp_path / "whole")
    assert "sharpness at step 4: lambda_max" in capsys.readouterr().out
    runs.assert_same_state(finished.config, run.folder, finished.folder)
    rows = runs.comparable(run.rows)
    others = [row for row in rows if row["split"] != "sharpness"]
    assert others == runs.comparable(finished.rows)
    mine = [row for row in rows if row["split"] == "sharpness"]
    assert [row["step"] for row in mine] == [4, 8, 12]
    assert all(
        row.keys() >= {"lambda_max", "lambda_max_residual", "sam_sharpness", "seconds"}
        for row in mine
    )
    # Numbers and pictures of the last weights are in the folder, for the report.
    kept = sharpness_files.read(run.folder)
    assert kept["measures"]["lambda_max"]["value"] == mine[-1]["lambda_max"]
    assert len(kept["pictures"]["line"]["losses"]) == 21
    assert "loss along a direction" in (run.folder / "report.html").read_text()
    # The last one is what the verb finds in the finished run.
    target = aimed(loaded.load_run(run.folder, "last"), examples=40)
    found = measures_lib.MEASURES["lambda_max"].find(target)["value"]
    assert mine[-1]["lambda_max"] == pytest.approx(found, rel=1e-5)

    disturb(7, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.train_and_evaluate(watched, tmp_path / "resumed")
    disturb()
    resumed = runs.Finished(watched, tmp_path / "resumed")
    assert without_clocks(runs.comparable(resumed.rows)) == without_clocks(rows)


def watch_of(config, **chosen):
    """The settings with what is measured in training."""
    wanted = dataclasses.replace(config.sharpness, **chosen)
    return dataclasses.replace(config, sharpness=wanted)


@pytest.mark.slow("compiles for four devices")
def test_on_several_devices_it_measures_the_same(tiny, digits):
    config = watch_of(tiny("sam", **{"mesh.data": 4}), every=1, examples=60)
    values = []
    for mesh in (4, 1):
        chosen = dataclasses.replace(
            config, mesh=dataclasses.replace(config.mesh, data=mesh)
        )
        made = build.build(chosen)
        watching = watch.Watch(made)
        values.append(watching.measured(made.init(made.seed), pytest.fail))
    for name in ("lambda_max", "trace"):
        assert values[0][name] == pytest.approx(values[1][name], rel=1e-4)


def test_what_is_not_finite_in_training_is_said_and_goes_on(tiny):
    made = build.build(watch_of(tiny(), every=2, measures="loss,trace", examples=9))
    watching, said = watch.Watch(made), []
    state = made.init(made.seed)
    broken = state._replace(params=jax.tree.map(lambda w: w * jnp.nan, state.params))
    values = watching.measured(broken, said.append)
    assert np.isnan(values["trace"]) and "trace: the loss is nan" in said[-1]
    assert [step for step in range(1, 13) if watching.due(step)] == [8, 12]


def test_mistakes_before_the_run_begins(tiny, tmp_path, monkeypatch):
    config = watch_of(tiny(), every=1, measures="lambda")
    with pytest.raises(errors.UserError, match="did you mean 'lambda_max'"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(hosts, "several", lambda: True)
    with pytest.raises(errors.UserError, match="runs of one process"):
        watch.Watch(build.build(watch_of(tiny(), every=1)))
    with pytest.raises(checks.BadValue, match="examples must be"):
        subject.Asked(examples=0)


def test_every_run_logs_what_its_perturbation_raises_the_loss_by(finished):
    rows = [row for row in finished.rows if row["split"] == "train"]
    for row in rows:
        assert row["sharpness"] == row["perturbed_loss"] - row["loss"]
    assert any(row["sharpness"] > 0 for row in rows)
