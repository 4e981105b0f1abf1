"""Command lines of the experiments: mistakes are one sentence before the first run."""

import argparse
import ast
import importlib
import json
import os
import pathlib

import pytest
from matplotlib import figure

from experiments import commands
from experiments.benchmarks import measure
from experiments.gpu import record
from experiments.theory import report
from experiments.training import compare, survey
from sam_jax import errors
from sam_jax.train import loop, metrics

ROOT = pathlib.Path(__file__).parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("experiments", "docs", "sam_jax", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "parser(" in path.read_text().lower()
]


def parsers(source):
    """Calls that make a parser, and whether each asks for flags written out."""
    for node in ast.walk(ast.parse(source)):
        name = getattr(node, "func", None)
        name = getattr(name, "attr", getattr(name, "id", ""))
        if name in ("ArgumentParser", "add_parser"):
            yield {k.arg: ast.unparse(k.value) for k in node.keywords}


def test_no_parser_takes_abbreviations():
    found = {
        module: [
            keywords.get("allow_abbrev")
            for keywords in parsers(
                (ROOT / f"{module.replace('.', '/')}.py").read_text()
            )
        ]
        for module in MODULES
    }
    assert found["experiments.commands"] == ["False"]
    assert found["experiments.theory.__main__"] == ["False"] * 3
    assert {each for calls in found.values() for each in calls} == {"False"}
    assert list(parsers("argparse.ArgumentParser(description=1)")) == [
        {"description": "1"}
    ]


@pytest.mark.parametrize(
    ("module", "argv"),
    [
        ("training.compare", ["--card=configs/digits_sam.py", "--out=X", "--seed=3"]),
        ("training.survey", ["--card=configs/digits_sam.py", "--out=X", "--facto=1"]),
        ("theory.__main__", ["run", "all", "--qui"]),
        ("gpu.__main__", ["--tin"]),
        ("gpu.worker", ["step_time", "--seconds=1", "--ou=X"]),
        ("gpu.pack", ["here", "X", "--mega=1"]),
        ("benchmarks.step_cost", ["--round=1"]),
        ("benchmarks.memory", ["--part=1"]),
        ("benchmarks.startup", ["--round=1"]),
        ("benchmarks.theory_speed", ["--seed=1"]),
        ("benchmarks.trainer_overhead", ["--round=1"]),
        ("benchmarks.scaling_model", ["--utili=0.5"]),
        ("benchmarks.scaling.__main__", ["--section=memory"]),
    ],
)
def test_abbreviated_flags_are_refused(module, argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(f"experiments.{module}").main
    try:
        code = main([word.replace("configs", f"{ROOT}/configs") for word in argv])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert argv[-1].partition("=")[0] in capsys.readouterr().err


# ── Comparison and survey ────────────────────────────────────────────────────────────

CARD = f"--card={ROOT}/configs/digits_sam.py"


def ended(main, argv, capsys):
    """Exit code and the last line of the errors."""
    try:
        code = main(argv)
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr().err.splitlines()
    return code, said[-1] if said else ""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, in which no run may begin."""

    def begun(*args):
        raise AssertionError("a run has begun")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "train_and_evaluate", begun)
    monkeypatch.setattr(survey, "step_times", begun)
    monkeypatch.setattr(compare, "use_compilation_cache", lambda: None)
    return tmp_path


@pytest.mark.parametrize("main", [compare.main, survey.main])
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seeds=0"], "--seeds: must be an integer >= 1, got '0'"),
        (["--seeds=-1"], "--seeds: must be an integer >= 1, got '-1'"),
        (["--seeds=1e9"], "--seeds: must be an integer >= 1, got '1e9'"),
        (["--seeds=" + "9" * 5000], "--seeds: must be an integer >= 1"),
        (["--methods=sam,sam"], "--methods: must be different values"),
        (["--methods="], "--methods: must be different values"),
        (["--methods=sgd,vaso"], "did you mean 'vasso'?"),
        (["--out=/dev/null/x"], "--out: must be a folder that can be written to"),
        (["--out=file"], "--out: must be a folder that can be written to"),
        (["--runs=file"], "--runs: must be a folder that can be written to"),
        (["--card=configs/digits_sma.py"], "configs/digits_sma.py"),
        (["--seed=1"], "unknown flag '--seed=1': did you mean '--seeds'?"),
        (["sam"], "unknown flag 'sam'"),
        (["--config.epochs"], "unknown flag '--config.epochs'"),
        (["--config.epcohs=1"], "did you mean 'config.epochs'?"),
        (["--config.epochs=x"], "epochs"),
        (
            ["--config.epochs=1", "--config.epochs=2"],
            "--config.epochs is given 2 times",
        ),
        (["--seeds=1", "--seeds=2"], "--seeds is given 2 times"),
    ],
)
def test_mistakes_are_said_before_the_first_run(main, argv, message, here, capsys):
    (here / "file").write_text("in the way")
    given = {word.partition("=")[0] for word in argv}
    plain = [word for word in (CARD, "--out=out") if word.split("=")[0] not in given]
    code, said = ended(main, [*plain, *argv], capsys)
    assert code == 2
    assert message in said


@pytest.mark.parametrize("factors", ["abc", "0", "-1", "nan", "1,1", "1,,2", "inf"])
def test_factors_that_are_no_factors(factors, here, capsys):
    argv = [CARD, "--out=out", f"--factors={factors}"]
    code, said = ended(survey.main, argv, capsys)
    assert code == 2
    assert "--factors: must be" in said


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b'{"sgd": 1', b"[1]", b"3", b"\xff", b"[" * 9**5),
        *(b'{"sgd": "x"}', b'{"sgd": NaN}', b'{"sgd": -1.0}', b'{"sgd": null}'),
    ],
)
def test_damaged_costs_are_refused(content, here, capsys):
    (here / "out").mkdir()
    (here / "out" / "costs.json").write_bytes(content)
    code, said = ended(survey.main, [CARD, "--out=out", "--methods=sgd"], capsys)
    assert code == 2
    assert "out/costs.json is damaged" in said and said.endswith("measured again")


def test_the_survey_needs_a_validation_set(here, capsys):
    argv = [CARD, "--out=out", "--methods=sgd", "--config.data.validation=0"]
    assert "config.data.validation is 0" in ended(survey.main, argv, capsys)[1]


def test_long_settings_make_a_folder_of_a_short_name():
    names = {
        compare.folder_name("a.py", "sam", 1, [f"--config.data.data_dir={x * 999}"])
        for x in "xyü"
    }
    assert len(names) == 3
    assert all(len(name.encode()) < 200 for name in names)
    assert all(name.endswith("_sam_seed1") for name in names)


@pytest.fixture
def some_diverge(here, monkeypatch):
    """Runs that have ended: SAM's of seed 1 and all of radius 0.3 diverged."""

    def train(config, folder):
        method = config.method
        lost = method.name == "sam" and config.seed == 1
        if lost or method.name == "usam" or method.coefficients.get("rho") == 0.3:
            raise loop.Diverged("the loss of step 7 is not finite")
        scores = {"accuracy": 0.9 - 0.01 * config.seed, "loss": 1.0}
        return {"last": {"test": scores, "validation": scores}, "best": None}

    row = {"epoch": 1.0, "accuracy": 0.9}
    history = [{**row, "split": split} for split in ("train", "test")]
    monkeypatch.setattr(loop, "train_and_evaluate", train)
    monkeypatch.setattr(metrics, "read_history", lambda _: history)
    return here / "out"


def test_a_diverging_run_is_a_row_of_the_comparison(some_diverge, capsys):
    argv = [CARD, "--out=out", "--methods=sgd,sam,usam", "--seeds=3"]
    assert compare.main(argv) == 0
    said = capsys.readouterr()
    assert said.err.count("diverged: the loss of step 7 is not finite") == 4
    expected = (
        "| sgd | 3 | 11.00 ± 1.00 | – |",
        "| sam | 3 (1 diverged) | 11.00 ± 1.41 | – |",
        "| usam | 3 (3 diverged) | – | – |",
    )
    assert (some_diverge / "table.md").read_text().splitlines()[2:] == list(expected)
    found = json.loads((some_diverge / "results.json").read_text())["methods"]
    assert found["sam"]["diverged"] == 1 and found["sam"]["seeds"] == 3
    assert found["sam"]["last"]["values"] == [10.0, 12.0]
    assert (some_diverge / "curves.png").stat().st_size > 1000


def test_a_diverging_radius_is_not_chosen_in_the_survey(
    some_diverge, monkeypatch, capsys
):
    monkeypatch.setattr(
        survey, "step_times", lambda *_: {"sgd": 0.5, "sam": 1.0, "usam": 1.0}
    )
    argv = [CARD, "--out=out", "--methods=sgd,sam,usam", "--seeds=1"]
    assert survey.main([*argv, "--factors=1,3", "--config.method.rho=0.05"]) == 2
    assert survey.main([*argv, "--factors=1,3"]) == 0
    found = json.loads((some_diverge / "results.json").read_text())["methods"]
    assert found["sam"]["tried"] == {"0.1": 10.0, "0.3": 100.0}
    assert found["usam"]["equal_epochs"]["values"] == [100.0]
    assert (
        found["sgd"]["equal_time"]["epochs"]
        == 2 * found["sgd"]["equal_epochs"]["epochs"]
    )


# ── Values ───────────────────────────────────────────────────────────────────────────


def test_a_record_is_checked_before_it_is_measured(tmp_path):
    parser = measure.parser("Measures.")
    path = tmp_path / "new" / "record.json"
    assert parser.parse_args([f"--out={path}"]).out == path
    measure.write(path, "a.b", ["--x=a b"], {})
    assert json.loads(path.read_text())["command"] == "python -m a.b '--x=a b'"
    for bad in (tmp_path, path / "below", "a\0b/c"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a f"):
            commands.file(str(bad))


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError("no space"), 1), (KeyboardInterrupt(), 130), (ValueError("a bug"), None)],
)
def test_ends(error, code, capsys):
    @commands.ends
    def main(argv):
        raise error

    if code is None:
        with pytest.raises(ValueError, match="a bug"):
            main([])
    else:
        assert main([]) == code
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda path: measure.write(path, "a.b", [], {}),
        lambda path: record.Record(path).begin({"card": "none"}),
        lambda path: compare.save(figure.Figure(), path),
    ],
)
def test_results_replace_links_and_are_whole(write, tmp_path, monkeypatch):
    (tmp_path / "theirs").write_text("{}")
    path = tmp_path / "results"
    path.symlink_to(tmp_path / "theirs")
    write(path)
    written = path.read_bytes()
    assert (tmp_path / "theirs").read_text() == "{}" and not path.is_symlink()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.UserError, match="results"):
        write(path)
    assert path.read_bytes() == written
    assert {each.name for each in tmp_path.iterdir()} == {"theirs", "results"}


@pytest.mark.parametrize("content", ["", "{", "[1", "\0"])
def test_a_damaged_record_is_one_sentence(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(errors.UserError, match=r"x.json is damaged: .*; delete it"):
        record.Record(tmp_path / "x.json")
    (tmp_path / "si_yun" / "valley").mkdir(parents=True)
    (tmp_path / "si_yun" / "valley" / "data.json").write_text(content)
    with pytest.raises(errors.UserError, match=r"data.json is damaged.*claim again"):
        report.index(tmp_path)
