"""The command line as a user meets it: one line for each mistake, and what to do."""

import pathlib
import re
import shlex
import signal
import sys
import time

import pytest
from absl.testing import flagsaver

from sam_jax import errors, main
from sam_jax.train import agreement, cards, environment, loop
from tests.train import runs

CARD = f"--config={runs.DIGITS}"
TINY = (
    *("--config.model.name=mlp", "--config.model.width=8", "--config.mesh.data=1"),
    *("--config.data.train_examples=128", "--config.epochs=2"),
)
HERE = str(runs.ROOT / "tests")  # a folder without archives


def finish(process):
    out, err = process.communicate()
    return process.returncode, out, err


def here(*words):
    """The exit code of the command in this process."""
    with flagsaver.flagsaver():
        return main.main(cards.parse(["main", *words]))


# ── Mistakes, each with what the message must say ────────────────────────────────────

# What the settings alone cannot tell: the names of networks and data, and sizes.
IN_A_SETTING = {
    ("model.name=resnet81",): ["unknown model 'resnet81'", "did you mean 'resnet18'"],
    ("model.options={'dropot': 0.1}",): ["dropot"],
    ("model.dtype=float17",): ["float17", "did you mean 'float16'"],
    ("data.name=digitz",): ["unknown data set 'digitz'", "did you mean 'digits'"],
    ("on_nonfinite=skp",): ["on_nonfinite", "did you mean 'skip'"],
    ("method.rho=nan",): ["rho must be a finite number >= 0 or a schedule", "nan"],
    ("batch_size=100000",): ["config.batch_size must be in [1, 1167]", "100000"],
    ("data.cutout=100",): ["config.data.cutout must be in [0, 8]", "100"],
    # Splits, sampling, devices, archives.
    ("data.sampling.name=importanc",): ["data.sampling", "importance", "shuffle"],
    ("data.sampling.name=importance", "data.sampling.uniform=1.5"): [
        "config.data.sampling.uniform",
        "[0, 1]",
        "1.5",
    ],
    ("data.sampling.name=importance", "data.sampling.scores=nothing.npy"): [
        "config.data.sampling.scores=nothing.npy",
        "numpy.save",
    ],
    ("data.validation=5000",): ["config.data.validation=5000", "1297"],
    ("data.train_examples=0",): ["config.data.train_examples must be", "got 0"],
    # Images of one's own.
    ("data.name=folder",): ["config.data.path", "needs a path"],
    ("data.name=image_folder",): ["did you mean 'folder'?"],
    ("data.name=folder", "data.path=/no"): ["config.data.path=/no does not exist"],
    ("data.image_size=8",): ["config.data", "image_size is for your own images"],
    ("data.image_size=9999",): ["config.data.image_size must be at most 4096"],
    ("data.resize=pad",): ["config.data.resize=pad needs image_size"],
    ("data.mean=(0.5,0.5)",): ["config.data.mean=(0.5, 0.5)", "give 1 numbers"],
    ("data.std=(0,)",): ["config.data.std=(0,)", "in [0.001, 1]"],
    ("batch_size=30", "mesh.data=8"): ["config.batch_size=30", "8 devices", "24 or 32"],
    ("mesh.data=9",): ["config.mesh.data", "[1, 8]"],
    (
        "data.name=fashion_mnist",
        "data.download=False",
        f"data.data_dir={HERE}/nothing",
        f"data.manual_dir={HERE}",
    ): ["train-images-idx3-ubyte.gz", "config.data.manual_dir"],
}


@pytest.mark.parametrize("settings", IN_A_SETTING, ids=" ".join)
def test_mistake_in_a_setting_leaves_no_folder(settings, tmp_path):
    flags = [f"--config.{setting}" for setting in settings]
    with pytest.raises(errors.UserError) as caught:
        config = cards.load(runs.DIGITS, "--config.mesh.data=1", *flags)
        loop.train_and_evaluate(config, tmp_path / "run")
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in IN_A_SETTING[settings]), message
    assert not (tmp_path / "run").exists()


def test_a_process_without_workdir_trains_where_the_first_one_does(monkeypatch):
    folders = []

    def train(config, folder, command):
        folders.append(folder)

    monkeypatch.setattr(agreement, "from_first", lambda of_first: "runs/of_the_first")
    monkeypatch.setattr(loop, "train_and_evaluate", train)
    assert here(CARD, *TINY) == here(CARD, *TINY, "--workdir=runs/own") == 0
    assert folders == ["runs/of_the_first", "runs/own"]


def test_a_blank_workdir_is_refused(tmp_path, monkeypatch, capsys):
    """As of a variable of the shell that is not set."""
    monkeypatch.chdir(tmp_path)
    assert here(CARD, *TINY, "--workdir=") == 2
    assert "--workdir is blank" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_looked_into_is_one_line(tmp_path, monkeypatch, capsys):
    refused = PermissionError(13, "Permission denied", "locked/run")
    real = pathlib.Path.is_file

    def is_file(self):
        if "locked" in self.parts:  # as of another user; root may look anywhere
            raise refused
        return real(self)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pathlib.Path, "is_file", is_file)
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv(environment.SWITCH, "")
    monkeypatch.setattr(environment, "TESTED", {environment._jaxlib()})
    assert here(CARD, *TINY, "--workdir=locked/run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line.startswith("error: locked/run (Permission denied)")
        and "give another --workdir" in line
    )


# ── Real processes ───────────────────────────────────────────────────────────────────


def test_a_run_without_workdir_says_how_to_continue(
    trainer, tmp_path, monkeypatch, capsys
):
    code, out, err = finish(trainer(CARD, *TINY))
    assert (code, err) == (0, ""), err
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d_\d{6}_digits_mlp_sam_rho0.1_seed0", folder.name
    )
    made = {path.name for path in folder.iterdir()}
    assert {"config.json", "metrics.jsonl", "report.html", "results.json"} <= made
    assert any(name.startswith("events.out.tfevents") for name in made)
    (resume,) = re.findall(r"^to resume +(.*)$", out, re.MULTILINE)
    assert shlex.split(resume)[:3] == ["python", "-m", "sam_jax.main"]
    assert "\x1b" not in out  # no control characters in a pipe

    monkeypatch.chdir(tmp_path)
    assert here(*shlex.split(resume)[3:]) == 0
    again = capsys.readouterr().out
    assert "This run is finished" in again
    assert out.partition("weights of")[2] == again.partition("weights of")[2]


def test_a_run_that_diverges_ends_in_one_line(tmp_path, capsys):
    huge = "--config.learning_rate=1e30"
    assert here(CARD, *TINY, huge, f"--workdir={tmp_path}") == 1
    err = capsys.readouterr().err
    (line,) = err.splitlines()
    assert line.startswith("error: ") and "is not finite" in line


@pytest.mark.slow("starts two trainers")
def test_a_folder_alone_continues_its_run(trainer, tmp_path):
    first = trainer(CARD, *TINY, "--workdir=run")
    first.stdout.readline()  # it has begun
    first.terminate()
    finish(first)
    if not (tmp_path / "run" / "config.json").exists():
        finish(trainer(CARD, *TINY, "--workdir=run"))
    code, out, err = finish(trainer("--workdir=run"))
    assert (code, err) == (0, ""), err
    assert "test accuracy" in out
    assert (tmp_path / "run" / "results.json").exists()


@pytest.mark.slow("starts four trainers")
def test_ctrl_c_at_any_moment_ends_the_run_in_one_line(trainer):
    """While modules are imported, JAX is, data are read, the step is compiled."""
    for delay in (0.4, 1.0, 2.0, 3.5):
        process = trainer(CARD, *TINY[:-1], "--config.epochs=999", "--workdir=run")
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        code, out, err = finish(process)
        assert code == 130, (delay, out, err)
        (line,) = err.splitlines() or out.splitlines()[-1:]
        assert line.startswith(("error: ended by SIGINT", "stopped after step")), line


@pytest.mark.slow("starts a trainer")
def test_a_reader_that_leaves_ends_the_run_quietly(trainer):
    process = trainer(CARD, *TINY, "--workdir=run")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait() == 141
    assert process.stderr.read() == ""


def test_a_mistake_is_one_line_and_other_packages_are_heard_only_then():
    program = (
        "import logging, runpy, sys\n"
        "sys.argv = ['main', '--config=digits_sam', '--config.method.rho=-1']\n"
        "try:\n"
        "    runpy.run_module('sam_jax.main', run_name='__main__')\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 2\n"
        "for name in ('matplotlib.font_manager', 'absl', 'sam_jax.data'):\n"
        "    print(logging.getLevelName(logging.getLogger(name).getEffectiveLevel()))\n"
    )
    done = runs.python(program)
    assert done.stdout.split() == ["WARNING", "WARNING", "INFO"], done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "rho must be a finite number >= 0" in line
