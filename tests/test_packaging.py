"""What is built from the repository: a wheel with its run cards, a readable README."""

import csv
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile

import numpy as np
import pytest

import sam_jax
from tests import bounds

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CARDS = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.py")}


@pytest.fixture(scope="module")
def setup():
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def targets(markdown):
    return re.findall(r"\]\(([^)]*)\)", markdown)


def test_an_index_shows_no_link_into_the_repository(setup):
    plain = setup.description(README, None)
    assert not [link for link in targets(plain) if not link.startswith("https:")]
    assert "`sam(rho)`" in plain and "![" not in plain

    absolute = setup.description(README, "https://host/me/sam_jax/blob/v1")
    assert len(targets(absolute)) == len(targets(README))
    assert all(link.startswith("https:") for link in targets(absolute))
    assert "(https://host/me/sam_jax/blob/v1/docs/methods.md#sam)" in absolute
    pictures = re.findall(r"!\[[^]]*\]\((.*)\)", absolute)
    assert pictures and all(link.endswith(".png?raw=true") for link in pictures)


def test_versions_agree():
    assert PROJECT["version"] == sam_jax.__version__
    resolved = "jax==0.10.0\noptax==0.2.7\narray-record==0.7.1\n"
    wrong = bounds.untrue(
        {
            "dependencies": ["jax>=0.10", "optax>=0.2.6"],
            "optional-dependencies": {
                "a": ["array_record>=0.7.1", "rich>=13.0"],
                "b": ["sam_jax[a]"],
            },
        },
        resolved,
    )
    assert wrong == [
        "optax>=0.2.6: the lowest that resolves is 0.2.7",
        "rich>=13.0: the lowest that resolves is nothing",
    ]
    assert [name for name in bounds.untrue(PROJECT, "") if ">=" in name]


def test_tensorflow_comes_with_the_extra_of_its_data_sets_alone():
    extras = PROJECT["optional-dependencies"]
    of_tfds = ("array_record", "importlib_resources", "tensorflow")
    found = {
        extra
        for extra, promises in extras.items()
        if any(each.startswith(of_tfds) for each in promises)
    }
    assert found == {"tfds"}
    assert {each.split(">")[0] for each in extras["tfds"]} >= {
        *("sam_jax[train]", "tensorflow-datasets", "array_record"),
    }


BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # which they change
build_meta.build_sdist(folder)
build_meta.build_wheel(folder)
"""

USE = """
import pathlib, sys
from sam_jax.train import cards, config
assert config.CARDS.is_relative_to(sys.argv[1]), config.CARDS
print(cards.load("digits_sam:usam").method.coefficients["rho"])
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist unpacked, the wheel of the repository, and that of the sdist."""
    folder = tmp_path_factory.mktemp("built")
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    source = folder / "source"
    for file in files.stdout.splitlines():
        if (ROOT / file).is_file():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).write_bytes((ROOT / file).read_bytes())

    def build(source, out):
        out.mkdir()
        command = [sys.executable, "-c", BUILD, str(out)]
        subprocess.run(command, cwd=source, capture_output=True, check=True)
        return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))

    sdist, wheel = build(source, folder / "first")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    _, again = build(unpacked, folder / "second")
    return unpacked, wheel, again


@pytest.fixture(scope="module")
def site(built, tmp_path_factory):
    """The wheel unpacked, with its command, where the clone is not."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(built[-1]).extractall(folder / "site")
    (entries,) = (folder / "site").glob("*.dist-info/entry_points.txt")
    name, module, function = re.findall(
        r"^(\S+) = (\S+):(\S+)$", entries.read_text(), re.M
    )[0]
    (folder / "bin").mkdir()
    script = folder / "bin" / name
    program = f"import sys, {module} as entry\nsys.exit(entry.{function}())\n"
    script.write_text(f"#!{sys.executable}\n{program}")
    script.chmod(0o755)
    # Packages that the extra `train` does not bring.
    lacking = (
        "tensorflow",
        "tensorflow_datasets",
        "array_record",
        "importlib_resources",
    )
    (folder / "site" / "sitecustomize.py").write_text(
        f"import sys\nsys.modules |= dict.fromkeys({lacking})\n"
    )
    return folder


@pytest.mark.slow("builds the archives")
def test_what_is_built_is_whole(built, site, tmp_path):
    """The sdist builds without the repository; the wheel works in any folder."""
    unpacked, wheel, again = built
    packed = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*")}
    assert packed >= CARDS and {"LICENSE", "SECURITY.md"} <= packed
    assert not [name for name in packed if name.startswith("tests")]

    names = set(zipfile.ZipFile(wheel).namelist())
    assert names == set(zipfile.ZipFile(again).namelist())
    package = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "sam_jax").rglob("*.py*")
    }
    package = {name for name in package if not name.endswith(".pyc")}
    cards = {f"sam_jax/{name}" for name in CARDS}
    assert package | cards | {"sam_jax/py.typed"} == {
        name for name in names if name.startswith("sam_jax/")
    }
    (metadata,) = [name for name in names if name.endswith("METADATA")]
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "Description-Content-Type: text/markdown" in text
    assert "](docs/" not in text and "## Quick start" in text

    used = subprocess.run(
        [sys.executable, "-c", USE, str(site / "site")],
        env={"PYTHONPATH": str(site / "site"), "JAX_PLATFORMS": "cpu"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert used.stdout == "0.2\n", used.stderr


PAGE = (ROOT / "docs" / "start_to_end.md").read_text()
BLOCKS = re.findall(r"^```(\w+)(.*)\n((?:.*\n)*?)```", PAGE, re.M)


@pytest.mark.slow("starts ten processes")
def test_the_page_from_start_to_end(site, tmp_path):
    """Its blocks in their order; what says `kill` is killed once it has saved."""
    environment = os.environ | {
        "PYTHONPATH": str(site / "site"),
        "PATH": f"{site / 'bin'}:{pathlib.Path(sys.executable).parent}:/usr/bin:/bin",
        "XLA_FLAGS": "",
    }
    shown = {}
    for language, info, body in BLOCKS:
        words = info.split()
        name = next((word[5:] for word in words if word.startswith("file=")), None)
        if name:
            (tmp_path / name).write_text(body)
        where = environment | {
            "PYTHONPATH": "" if "elsewhere" in words else str(site / "site")
        }
        command = ["python", name] if "run" in words else ["bash", "-ec", body]
        if "kill" in words:
            kill_once_saved(body, tmp_path, environment)
        elif language == "sh" or "run" in words:
            done = subprocess.run(
                command, cwd=tmp_path, env=where, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            shown[name or body] = done.stdout
    (resumed,) = [text for body, text in shown.items() if "resume" in body]
    assert re.search(r"resumed +after step [1-9]", resumed) and "epoch 20/20" in resumed
    with (tmp_path / "predictions.csv").open() as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    hits = [path.split("/")[-2] == row["class"] for path, row in rows.items()]
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert sum(hits) / len(hits) == scores["accuracy"] > 0.6
    row = rows["photos/test/two/12.jpg"]
    expected = [float(row[f"p_{name}"]) for name in ("one", "two", "zero")]
    for text in (shown["use.py"].partition("[[")[2], shown["elsewhere.py"]):
        found = [float(x) for x in re.findall(r"\d\S*\d", text.partition("\n")[0])]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert "['one', 'two', 'zero'] batch_stats.BatchNorm_0" in shown["elsewhere.py"]
    with (tmp_path / "comparison" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert not any(row["failure"] for row in rows)
    swept = {(float(r["method.rho"]), r["seed"]) for r in rows if r["epochs"] == "5"}
    assert swept == {(rho, seed) for rho in (0.05, 0.1, 0.2) for seed in ("0", "1")}
    assert (
        len(rows) == 7
        and "sam(rho=0.2)" in (tmp_path / "comparison" / "table.md").read_text()
    )


def kill_once_saved(body, folder, environment):
    process = subprocess.Popen(
        ["bash", "-c", f"exec {body}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        saved = folder / "runs" / "photos" / "checkpoints"
        while not [path for path in saved.glob("*") if path.name.isdecimal()]:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
