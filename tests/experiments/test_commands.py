"""Command lines of the experiments: mistakes are one sentence before the first run."""

import argparse
import ast
import contextlib
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from matplotlib import figure

from experiments import commands
from experiments.benchmarks import measure
from experiments.gpu import record
from experiments.theory import report
from sam_jax import errors
from sam_jax.train import environment, figures

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
    assert found["experiments.theory.__main__"] == ["False"] * 3
    assert {each for calls in found.values() for each in calls} == {"False"}
    assert list(parsers("argparse.ArgumentParser(description=1)")) == [
        {"description": "1"}
    ]


@pytest.mark.parametrize(
    ("module", "argv"),
    [
        ("theory.__main__", ["run", "all", "--qui"]),
        ("gpu.__main__", ["--tin"]),
        ("gpu.worker", ["step_time", "--seconds=1", "--ou=X"]),
        ("gpu.pack", ["here", "X", "--mega=1"]),
        ("benchmarks.step_cost", ["--round=1"]),
        ("benchmarks.memory", ["--part=1"]),
        ("benchmarks.startup", ["--round=1"]),
        ("benchmarks.theory_speed", ["--seed=1"]),
        ("benchmarks.trainer_overhead", ["--round=1"]),
        ("benchmarks.scaling.__main__", ["--section=memory"]),
    ],
)
def test_abbreviated_flags_are_refused(module, argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(f"experiments.{module}").main
    try:
        code = main(argv)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert argv[-1].partition("=")[0] in capsys.readouterr().err


# ── Values ───────────────────────────────────────────────────────────────────────────


def test_a_record_is_checked_before_it_is_measured(tmp_path):
    path = tmp_path / "new" / "record.json"
    assert commands.file(str(path)) == path
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


def interrupted(*arguments, seen):
    """What a Python said after a line that ends so, and a Ctrl-C; and its exit code."""
    command = [sys.executable, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        line = next(line for line in process.stdout if line.split()[-1:] == [seen])
        process.send_signal(signal.SIGINT)
        return line, process.stdout.read().splitlines(), process.wait()


@pytest.mark.slow("starts two processes")
def test_ctrl_c_ends_a_command_and_what_it_has_started_in_one_line():
    module = ("-X", "importtime", "-m", "experiments.benchmarks.step_cost")
    _, said, code = interrupted(*module, seen="experiments")  # JAX is not yet there
    assert code == 130 and said[-1] == "error: ended by SIGINT"
    assert all(line.startswith("import time:") for line in said[:-1])

    script = """
import sys
sys.argv[0] = "-m"
from experiments import commands
commands.child(["sh", "-c", "echo $$ runs; exec sleep 600"])
"""
    line, said, code = interrupted("-c", script, seen="runs")
    assert (code, said) == (130, ["error: ended by SIGINT"])
    status = pathlib.Path("/proc", line.split()[0], "status")

    def ended():  # nobody may have asked yet how
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return "State:\tZ" in status.read_text()
        return True

    end = time.monotonic() + 10  # a busy machine kills it a little later
    while not ended() and time.monotonic() < end:
        time.sleep(0.05)
    assert ended()


@pytest.mark.parametrize(
    "write",
    [
        lambda path: measure.write(path, "a.b", [], {}),
        lambda path: record.Record(path).begin({"card": "none"}),
        lambda path: figures.save(figure.Figure(), path),
    ],
)
def test_results_replace_links_and_are_whole(write, tmp_path, monkeypatch):
    (tmp_path / "theirs").write_text("{}")
    path = tmp_path / "results.png"
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
    assert {each.name for each in tmp_path.iterdir()} == {"theirs", "results.png"}


@pytest.mark.parametrize("content", ["", "{", "[1", "\0"])
def test_a_damaged_record_is_one_sentence(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(errors.UserError, match=r"x.json is damaged: .*; delete it"):
        record.Record(tmp_path / "x.json")
    (tmp_path / "si_yun" / "valley").mkdir(parents=True)
    (tmp_path / "si_yun" / "valley" / "data.json").write_text(content)
    with pytest.raises(errors.UserError, match=r"data.json is damaged.*claim again"):
        report.index(tmp_path)


def test_commands_set_the_flags_of_xla_before_jax_is_there():
    """JAX reads them once: an early import would leave tables and peers slow."""
    program = """
import os, sys
from experiments.benchmarks import peers
from experiments.training import __main__
assert "jax" not in sys.modules
from sam_jax import commands
commands.start_jax(None)
print(os.environ.get("XLA_FLAGS"))
"""
    own = ("XLA_FLAGS", environment.SWITCH)
    env = {k: v for k, v in os.environ.items() if k not in own}
    said = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=env | {"JAX_PLATFORMS": "cpu"},
    )
    assert (environment.FLAG in said.stdout) == environment.is_tested()
