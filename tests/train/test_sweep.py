"""Many runs from one command: which they are, what is left alone, what fails."""

import json
import pathlib
import re
import shlex

import jax
import numpy as np
import pytest

from sam_jax import errors, locks, methods, models, page
from sam_jax.train import build, comparison, loop, settings, shared, sweep
from tests import tiers
from tests.train import runs
from tests.train.test_commands import one_line, said

TINY = (
    "--config.model.name=mlp",
    "--config.model.width=8",
    "--config.model.options={'depth': 1}",
    "--config.data.train_examples=128",
    "--config.data.crop=0",
    "--config.batch_size=32",
    "--config.epochs=1",
    "--config.mesh.data=1",
)


def names(*axes, seeds=1, card=runs.DIGITS, changes=()):
    read = [sweep.Axis.read(axis) for axis in axes]
    return list(sweep.planned(card, read, seeds, changes))


# ── Which runs ───────────────────────────────────────────────────────────────────────


def test_all_combinations_over_seeds():
    assert names("method.rho=0.05,.2", "learning_rate=0.3", seeds=2) == [
        "sam_rho0.05_learning_rate=0.3_seed0",
        "sam_rho0.05_learning_rate=0.3_seed1",
        "sam_rho0.2_learning_rate=0.3_seed0",
        "sam_rho0.2_learning_rate=0.3_seed1",
    ]
    found = sweep.planned(runs.DIGITS, [], 2, ["--config.seed=7"])
    assert [config.seed for config in found.values()] == [7, 8]


def test_a_method_without_a_coefficient_has_one_run():
    assert names(
        "method.name=sgd,sam,gsam", "method.rho=1x,3x", "method.alpha=0.5"
    ) == [
        "sgd_seed0",
        "sam_rho0.1_seed0",
        "sam_rho0.3_seed0",
        "gsam_rho0.05_alpha=0.5_seed0",
        "gsam_rho0.15_alpha=0.5_seed0",
    ]


def test_all_methods_beside_ones_of_the_users_own():
    every = sweep.Axis.read("method.name=all").values
    beside = sweep.Axis.read("method.name=my.py:my_sam,all,sam").values
    assert beside == [*every, "my.py:my_sam"]


def test_all_methods_with_multiples_of_their_own_radii():
    found = sweep.planned(
        runs.DIGITS,
        [sweep.Axis.read("method.name=all"), sweep.Axis.read("method.rho=2x")],
        1,
    )
    by_name = {config.method.name: config for config in found.values()}
    assert by_name.keys() == {"none", *methods.names()}
    assert by_name["momentum_sam"].method.coefficients["rho"] == 6.0
    rates, steps = (
        sweep.planned(runs.DIGITS, [sweep.Axis.read(axis)], 1, [f"--config.{first}"])
        for axis, first in (
            ("learning_rate=1x,3x", "learning_rate=0.12345678"),
            ("data.train_examples=1x,2x", "data.train_examples=1234567"),
        )
    )
    rates = [config.learning_rate for config in rates.values()]
    assert rates == [0.12345678, pytest.approx(0.37037034, abs=0)]
    assert [x.data.train_examples for x in steps.values()] == [1234567, 2469134]


def test_a_method_of_a_file_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("my.py", "other.py"):
        pathlib.Path(file).write_text("from sam_jax import sam as my_sam\n")
    axes = "method.name=sam,my.py:my_sam", "method.rho=0.2"
    assert names(*axes) == ["sam_rho0.2_seed0", "my_sam_rho0.2_seed0"]
    with pytest.raises(errors.UserError, match="would have the folder my_sam"):
        names("method.name=my.py:my_sam,other.py:my_sam")


def test_values_in_brackets_stay_together():
    text = "model.options={'a': (1,2),'b': 1},{'a': [1,2]}"
    assert sweep.Axis.read(text).values == ["{'a': (1,2),'b': 1}", "{'a': [1,2]}"]


def test_long_settings_make_a_folder_of_a_short_name():
    changed = [f"data.cache_dir={x * 300}" for x in "xyü"]
    (found,) = zip(*(names(each) for each in changed), strict=True)
    assert len(set(found)) == 3
    assert all(len(name.encode()) < 200 and name.endswith("_seed0") for name in found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set=method.rh=0.1"], "did you mean 'config.method.rho'"),
        (["--set=method.rho=0.1,x"], "config.method.rho"),
        (["--set=method.rho=-1,1"], "config.method.rho"),
        (["--set=method.name=sam,vaso"], "did you mean 'vasso'"),
        (["--set=epcohs=1"], "did you mean 'config.epochs'"),
        (["--set=method.rho"], "must be a setting and different values"),
        (["--set=method.rho="], "must be a setting and different values"),
        (["--set=method.rho=1,1"], "must be a setting and different values"),
        (["--set=method.rho=0.1,0.10"], "two runs of the sweep"),
        (["--set=learning_rate=0.1,1e-1"], "would be the same run"),
        (["--set=checkpoint.keep_last=1,2"], "would be the same run"),
        (["--seeds=2", "--config.seed=4294967295"], "beyond 4294967295"),
        (["--set=epochs=1", "--set=epochs=2"], "--set=epochs is given twice"),
        (["--set=seed=1,2"], "give --seeds=N"),
        (["--set=data.name=2x"], "which is not a number"),
        (["--seeds=0"], "--seeds: must be an integer >= 1, got '0'"),
        (["--seeds=" + "9" * 5000], "--seeds: must be an integer >= 1"),
        (["--seed=3"], "unknown flag '--seed=3': did you mean '--seeds'?"),
        (["sam"], "unknown flag 'sam'"),
        (["--config.epochs"], "unknown flag '--config.epochs'"),
        (["--config.epcohs=1"], "did you mean 'config.epochs'?"),
        (["--config.epochs=1", "--config.epochs=2"], "is given 2 times"),
        (["--out=file"], "cannot write to file"),
        (["--out=/proc"], "cannot write to /proc"),
        (["--out=file/below"], "cannot write to file"),
    ],
)
def test_mistakes_are_said_before_the_first_run(
    words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "train_and_evaluate", None)
    pathlib.Path("file").write_text("in the way")
    assert message in one_line(capsys, "sweep", f"--config={runs.DIGITS}", *words)
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "runs"}


def test_a_card_is_needed(capsys):
    assert "did you mean 'digits_sam'" in one_line(
        capsys, "sweep", "--config=digit_sam"
    )
    for words in ([], ["--set=method.name=sam,usam"]):
        assert "--config is missing" in one_line(capsys, "sweep", *words)


# ── What happens to them ─────────────────────────────────────────────────────────────


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Names of the runs that train from now on; they end at once, as ``fails`` says."""

    def train(config, folder, **_):
        called.append(folder.name)
        if error := fails.get(folder.name):
            raise error
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(settings.to_json(config))
        last = {"test": {"accuracy": 0.9}, "validation": {"accuracy": 0.9}}
        (folder / "results.json").write_text(json.dumps({"last": last}))

    called, fails = [], {}
    monkeypatch.setattr(loop, "train_and_evaluate", train)
    monkeypatch.chdir(tmp_path)
    return called, fails


def swept(capsys, *words, rho="0.1,0.2"):
    return said(
        *(capsys, "sweep", f"--config={runs.DIGITS}", f"--set=method.rho={rho}"),
        *("--seeds=1", "--out=out", *words),
    )


def test_a_choice_without_a_validation_set_is_refused_before_the_first_run(
    trained, capsys
):
    called, _ = trained
    code, _, err = swept(capsys, "--tuned", "--config.data.validation=0")
    assert code == 2 and "config.data.validation is 0: hold examples out" in err
    assert not called


def test_what_is_finished_is_left_alone(trained, capsys, monkeypatch):
    called, _ = trained
    assert swept(capsys)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(sweep.environment, "changed", lambda *_: ["net.py has changed"])
        assert "warning: net.py has changed" in swept(capsys)[2]
    assert called == ["sam_rho0.1_seed0", "sam_rho0.2_seed0"]
    pathlib.Path("out/sam_rho0.2_seed0/results.json").write_text("{")
    del called[:]
    code, shown, _ = swept(capsys, rho="0.1,0.2,0.3")
    assert code == 0 and called == ["sam_rho0.2_seed0", "sam_rho0.3_seed0"]
    assert "[3/3] sam_rho0.3_seed0" in shown and "| sam(rho=0.3) | 1 " in shown
    assert page.is_ours(pathlib.Path("out/report.html"))
    (row, *_) = comparison.read("out")
    assert row.error("last") == pytest.approx(10)
    assert "method.rho=0.1,0.2,0.3" in pathlib.Path("out/results.json").read_text()


def test_runs_of_several_data_sets_have_a_table_and_no_report(trained, capsys):
    code, shown, err = swept(capsys, "--set=data.name=digits,mnist", rho="0.1")
    assert code == 0 and "data.name=mnist" in shown
    assert err.startswith("warning: no report.html: the runs are of different data")
    assert not pathlib.Path("out/report.html").exists()


def test_one_that_fails_does_not_stop_the_others(trained, capsys):
    called, fails = trained
    fails["sam_rho0.1_seed0"] = loop.Diverged("the loss of step 7 is not finite")
    fails["sam_rho0.2_seed0"] = TypeError("a mistake in my_sam")
    code, shown, err = swept(capsys, "--tuned", rho="0.1,0.2,0.3")
    assert code == 1 and len(called) == 3
    assert "| sam(rho=0.3) | 1 " in shown and "rho=0.1)" not in shown
    assert "Traceback" in err and "a mistake in my_sam" in err
    assert "error: sam_rho0.1_seed0 failed: the loss of step 7 is not finite" in err
    fails.clear()
    assert swept(capsys, rho="0.1,0.2,0.3")[0] == 0 and len(called) == 5


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (loop.Stopped(2, 5), 130),
        (loop.Stopped(15, 5), 143),
        (errors.WriteError("cannot write x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_ends_all_of_them_keeps_what_is_finished(trained, capsys, error, code):
    called, fails = trained
    fails["sam_rho0.2_seed0"] = error
    returned, _, err = swept(capsys, rho="0.1,0.2,0.3")
    assert (returned, len(called), len(err.splitlines())) == (code, 2, 1)
    assert [run.name for run in comparison.read("out")] == ["sam_rho0.1_seed0"]


def test_a_run_of_other_settings_is_refused_before_the_first(trained, capsys):
    called, _ = trained
    assert swept(capsys, rho="0.2")[0] == 0
    code, _, err = swept(capsys, "--config.epochs=99")
    assert code == 2 and len(called) == 1
    assert (
        "sam_rho0.2_seed0 belongs to a run with other settings (epochs: 30 -> 99)"
        in err
    )
    assert swept(capsys, "--config.log_every_steps=3")[0] == 0


def test_of_a_tuned_sweep_every_run_is_on_record(trained, capsys):
    assert swept(capsys, "--tuned", rho="0.1,0.2,0.3")[0] == 0
    assert len(comparison.read("out")) == 3
    assert pathlib.Path("out/table.md").read_text().count("| sam(") == 1


@pytest.mark.parametrize("number", ["inf", "nan"])
def test_a_number_that_is_not_finite_is_the_same_in_the_next_sweep(
    trained, capsys, number
):
    called, _ = trained
    given = f"--config.model.options.limit={number}"
    code, _, err = swept(capsys, given, rho="0.2")
    assert code == 0, err
    code, _, err = swept(capsys, given, rho="0.2")
    assert (code, len(called)) == (0, 1), err


def test_two_sweeps_do_not_work_in_one_folder(trained, capsys, tmp_path):
    (tmp_path / "out").mkdir()
    with locks.held(tmp_path / "out" / ".lock", wait=False):
        code, _, err = swept(capsys)
    assert code == 2 and "another sweep is working in out" in err


# ── What they share ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "several",
    tiers.cases((1,), (1, 3), "compiles several updates in a call"),
)
def test_runs_of_one_shape_compile_once_and_end_as_they_do_alone(
    several, tmp_path, monkeypatch, capsys
):
    """Also with radii and learning rates of their own."""
    built = []
    real = shared.Shared.make_run

    def make_run(self, config, **brought):
        built.append(real(self, config, **brought))
        return built[-1]

    monkeypatch.setattr(shared.Shared, "make_run", make_run)
    code, shown, err = said(
        *(capsys, "sweep", f"--config={runs.DIGITS}", *TINY, f"--out={tmp_path / 'x'}"),
        *("--set=method.rho=0.1,0.5", "--set=learning_rate=0.2", "--seeds=2"),
        f"--config.steps_per_dispatch={several}",
    )
    assert (code, len(built)) == (0, 4), err
    assert len({id(run.dataset) for run in built}) == 1
    for program in ("init", "train_steps" if several > 1 else "train_step"):
        assert len({id(getattr(run, program).func) for run in built}) == 1
        assert getattr(built[0], program).func._cache_size() == 1
    assert "| sam(rho=0.5) | 2 " in shown
    name = "sam_rho0.5_learning_rate=0.2_seed1"
    config = built[-1].config
    assert config.method.coefficients["rho"] == 0.5 and config.seed == 1
    loop.train_and_evaluate(config, tmp_path / "alone")
    (saved, _), (alone, _) = (
        runs.saved(config, folder)
        for folder in (tmp_path / "x" / name, tmp_path / "alone")
    )
    assert saved.keys() == alone.keys()
    for path, leaf in saved.items():
        np.testing.assert_allclose(
            leaf, alone[path], rtol=1e-4, atol=1e-6, err_msg=path
        )


def test_runs_of_networks_that_were_brought_do_not_share_a_program(tiny):
    programs, config = shared.Shared(), tiny()
    nets = [models.build("mlp", num_classes=10, width=width) for width in (2, 3)]
    small, large, again = (
        programs.make_run(config, model=net) for net in (*nets, nets[0])
    )
    names = {"Dense_0": (64, 2)}, {"Dense_0": (64, 3)}
    for run, shapes in zip((small, large), names, strict=True):
        params = jax.eval_shape(run.init, 0).params
        assert params["Dense_0"]["kernel"].shape == shapes["Dense_0"]
    assert small.train_step.func is again.train_step.func
    assert small.train_step.func is not large.train_step.func


@pytest.mark.parametrize(
    "name",
    tiers.cases(("gsam", "momentum_sam"), methods.names(), "traces a step of each"),
)
def test_numbers_of_every_method_are_arguments(name, tiny):
    config = tiny(name)
    spec = build.DataSpec((8, 8, 1), 10, 128, 4)
    plain, made = build.steps(config, spec), shared.Shared().make_steps(config, spec)
    assert {"learning_rate", "rho"} <= shared.numbers_of(config).keys()
    state, batch = plain.abstract_state(), plain.abstract_batch()
    assert made.abstract_state() == state
    found, expected = (
        jax.tree.map(
            lambda x: (x.shape, x.dtype, x.weak_type),
            jax.eval_shape(steps.train_step, state, batch),
        )
        for steps in (made, plain)
    )
    assert found == expected


def test_numbers_stay_in_the_program_where_code_of_the_users_may_branch(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("my.py").write_text("from sam_jax import sam as my_sam\n")
    method = {"name": "my.py:my_sam", "rho": 0.1}
    assert shared.numbers_of(settings.read({"method": method})) == {}
    tied = {"name": "learning_rate", "value": 0.1, "low": 0.02}
    method = {"name": "gsam", "rho": tied, "alpha": 0.4}
    assert shared.numbers_of(settings.read({"method": method})) == {"alpha": 0.4}


@pytest.mark.slow("plans the surveys of all methods")
@pytest.mark.parametrize("file", ["docs/results.md", "docs/sweeps.md"])
def test_the_commands_of_the_pages_are_understood(file, monkeypatch, capsys):
    planned = []
    monkeypatch.setattr(
        sweep, "sweep", lambda runs, *_, **__: planned.append(runs) or []
    )
    text = (runs.ROOT / file).read_text().replace("\\\n", " ")
    commands = re.findall(r"^ *sam-jax sweep (--config.*)$", text, re.MULTILINE)
    for command in commands:
        code, _, err = said(capsys, "sweep", *shlex.split(command))
        assert code == 0, err
    assert len(planned) == len(commands) > 0
