"""The command line ``sam-jax VERB``."""

import csv
import json
import os
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from sam_jax import commands, data
from sam_jax.commands import train
from tests.train import runs


def said(capsys, *arguments):
    """Exit code, output and errors of a command, run here."""
    try:
        code = commands.main([str(word) for word in arguments])
    except SystemExit as ended:
        code = ended.code
    found = capsys.readouterr()
    return code, found.out, found.err


def one_line(capsys, *arguments, code=2):
    returned, _, err = said(capsys, *arguments)
    assert returned == code
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


# ── Help ─────────────────────────────────────────────────────────────────────────────


def test_help_shows_the_verbs_without_jax():
    program = f"""
import sys
from sam_jax import commands
assert commands.main(["--help"]) == commands.main([]) == 0
for verb in {list(commands.VERBS)}:
    try:
        assert commands.main([verb, "--help"]) == 0
    except SystemExit as ended:
        assert ended.code == 0
print("jax" in sys.modules)
"""
    done = runs.python(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("False\n")
    for verb, line in commands.VERBS.items():
        assert f"{verb}  " in done.stdout
        assert line in done.stdout
        assert f"Example:\n  sam-jax {verb} " in done.stdout
    for default in (
        "--config.batch_size=128",
        "(default: best)",
        "  --config=  ",
        "  digits_sam ",
    ):
        assert default in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predikt"], "did you mean 'predict'"),
        (["evaluate"], "required: RUN"),
        (["evaluate", "x", "--ste=3"], "unrecognized arguments: --ste=3"),
        (["predict", "x", "y"], "required: --out"),
        (["resume"], "required: RUN; "),
    ],
)
def test_mistakes_on_the_command_line(capsys, words, message):
    assert message in one_line(capsys, *words)


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ([], []),
        (["--epochs=9"], ["--config.epochs=9"]),
        (
            ["--epochs", "9", "--", "--process_id=1"],
            ["--process_id=1", "--config.epochs=9"],
        ),
        (
            ["--own_code"],
            ["--config.model.name=a.py:N", "--config.optimizer.name=b.py:sgd"],
        ),
    ],
)
def test_resume_is_train_with_the_folder(tmp_path, monkeypatch, words, flags):
    own = {"name": "b.py:sgd", "b.py:sgd": {}}
    config = {"model": {"name": "a.py:N"}, "optimizer": own}
    (tmp_path / "config.json").write_text(json.dumps(config))
    given = []
    monkeypatch.setattr(train, "main", lambda words: given.extend(words) or 0)
    assert commands.main(["resume", str(tmp_path), *words]) == 0
    assert given == [f"--workdir={tmp_path}", *flags]


def test_a_path_of_two_lines_is_one(capsys):
    assert "a b" in one_line(capsys, "evaluate", "a\nb")


def test_a_signal_before_the_verb_begins_is_one_line():
    program = (
        "import os, runpy, signal, sys; from sam_jax.commands import evaluate\n"
        "evaluate.main = lambda words: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['sam-jax', 'evaluate', 'run']\n"
        "runpy.run_module('sam_jax', run_name='__main__')\n"
    )
    done = runs.python(program)
    assert (done.returncode, done.stderr) == (130, "error: ended by SIGINT\n")


def test_a_reader_that_leaves_ends_the_command_quietly(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        monkeypatch.setattr(sys, "argv", ["sam-jax"])
        with pytest.raises(SystemExit) as ended:
            commands.main()
        assert ended.value.code == 141
        print("no error at the end of the process", flush=True)


def test_the_script_of_the_package_is_this():
    text = (runs.ROOT / "pyproject.toml").read_text()
    assert f'sam-jax = "{commands.__name__}:{commands.main.__name__}"' in text


# ── Verbs ────────────────────────────────────────────────────────────────────────────


def test_evaluate(finished, capsys, tmp_path):
    out = tmp_path / "scores.json"
    code, shown, err = said(
        capsys, "evaluate", finished.folder, "--step=last", f"--out={out}"
    )
    assert (code, err) == (0, "")
    reported = finished.results["last"]["test"]
    assert f"{100 * reported['accuracy']:.2f} %" in shown
    assert "digits, test: 500 images" in shown
    written = json.loads(out.read_text())
    assert written["accuracy"] == reported["accuracy"]
    assert np.sum(written["confusion"]) == 500
    assert [row["class"] for row in written["classes"]] == list("0123456789")
    assert "it exists" in one_line(capsys, "evaluate", finished.folder, f"--out={out}")
    line = one_line(capsys, "evaluate", finished.folder, "--data=digitz")
    assert "did you mean 'digits'" in line
    assert "'best', 'last'" in one_line(capsys, "evaluate", finished.folder, "--step=9")


def test_predict(finished, capsys, tmp_path):
    images = data.load("digits").test.split.images[:3]
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{number}.png")
    out = tmp_path / "table.csv"
    code, shown, err = said(
        capsys, "predict", finished.folder, tmp_path, f"--out={out}"
    )
    assert (code, err) == (0, "")
    assert "3 images" in shown
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [pathlib.Path(row["path"]).name for row in rows] == [
        "0.png",
        "1.png",
        "2.png",
    ]
    assert all(abs(sum(float(r[f"p_{k}"]) for k in range(10)) - 1) < 1e-5 for r in rows)
    (tmp_path / "broken.png").write_text("x")
    other = f"--out={tmp_path / 'other.csv'}"
    line = one_line(capsys, "predict", finished.folder, tmp_path, other)
    assert "broken.png" in line
    assert "is not there" in one_line(capsys, "predict", tmp_path / "no", "x", other)
    assert "exists" in one_line(
        capsys, "predict", finished.folder, tmp_path, f"--out={out}"
    )


def test_export(finished, capsys, tmp_path):
    out = tmp_path / "x.npz"
    code, shown, _ = said(capsys, "export", finished.folder, "--to=npz", f"--out={out}")
    assert code == 0
    assert str(out) in shown
    assert np.load(out)["params.Dense_0.kernel"].shape == (64, 8)
    line = one_line(capsys, "export", finished.folder, "--to=onnx", f"--out={out}")
    assert "There are: flax, jax.export, npz, safetensors" in line
