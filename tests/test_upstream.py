"""Faults of other packages are there as the page says, and the patches fix them."""

import importlib.metadata
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "upstream.md"
PATCHES = sorted((PAGE.parent / "upstream").glob("*.patch"))
VERSIONS = dict(re.findall(r"`(\w+) ([\d.]+)`", PAGE.read_text()))


def package(patch):
    return re.search(r"^--- a/(\w+)/", patch.read_text(), re.M)[1]


def test_the_page_names_every_patch_and_its_package():
    named = re.findall(r"\(upstream/([\w.]+)\)", PAGE.read_text())
    assert sorted(named) == [path.name for path in PATCHES]
    assert {package(path) for path in PATCHES} == VERSIONS.keys()


@pytest.mark.peers
@pytest.mark.slow("runs tests of other packages")
@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_its_test_fails_without_the_patch_and_passes_with_it(patch, tmp_path):
    name = package(patch)
    installed = importlib.util.find_spec(name)
    if installed is None or not shutil.which("patch"):
        pytest.skip(f"{name} is missing: pip install -r requirements-peers.txt")
    version = importlib.metadata.version(name)
    if version != VERSIONS[name]:
        pytest.skip(f"{name} {version} is another version than the page's")
    (source,) = installed.submodule_search_locations
    shutil.copytree(source, tmp_path / name)
    parts = re.split(r"^(?=diff --git )", patch.read_text(), flags=re.M)[1:]
    fixes, test = sorted(parts, key=lambda part: "test" in part.splitlines()[0])
    failed, _ = tried(tmp_path, test)
    assert failed
    failed, said = tried(tmp_path, fixes, re.search(r"^\+\+\+ b/(\S+)", test, re.M)[1])
    assert not failed, said


def tried(folder, diff, file=None):
    """Applies a diff; whether a test fails there (that of the diff)."""
    apply = ["patch", "--strip=1", "--quiet", "--directory", str(folder)]
    subprocess.run(apply, input=diff, text=True, check=True)
    file = file or re.search(r"^\+\+\+ b/(\S+)", diff, re.M)[1]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout  # they ran
    return done.returncode == 1, done.stdout
