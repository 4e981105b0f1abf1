"""What is built from the repository: a wheel with its run cards, a readable README."""

import importlib.util
import pathlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

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


def test_links_in_the_readme_lead_somewhere():
    relative = [link for link in targets(README) if not link.startswith("http")]
    assert len(relative) > 10
    for link in relative:
        assert (ROOT / link.partition("#")[0]).exists(), link


def test_an_index_shows_no_link_into_the_repository(setup):
    plain = setup.description(README, None)
    assert targets(plain)
    assert all(link.startswith("https:") for link in targets(plain))
    assert "`sam(rho=0.05)`" in plain and "![" not in plain

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


@pytest.mark.slow("builds the archives")
def test_what_is_built_is_whole(tmp_path):
    """The sdist builds without the repository; the wheel works in any folder."""
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    source = tmp_path / "source"
    for file in files.stdout.splitlines():
        if (ROOT / file).is_file():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).write_bytes((ROOT / file).read_bytes())

    def build(folder, out):
        command = [sys.executable, "-c", BUILD, str(out)]
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))

    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    sdist, wheel = build(source, tmp_path / "first")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert packed >= CARDS and {"LICENSE", "SECURITY.md"} <= packed
    assert not [name for name in packed if name.startswith("tests")]
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    _, again = build(unpacked, tmp_path / "second")

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

    zipfile.ZipFile(again).extractall(tmp_path / "site")
    used = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "site")],
        env={"PYTHONPATH": str(tmp_path / "site"), "JAX_PLATFORMS": "cpu"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert used.stdout == "0.2\n", used.stderr
