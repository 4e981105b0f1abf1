"""What is built from the repository: a wheel with its run cards, a readable README."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

import sam_jax
from docs import notebooks
from tests import bounds

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CARDS = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.py")}


@pytest.fixture(scope="module")
def hook():
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hook", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def targets(markdown):
    return re.findall(r"\]\(([^)]*)\)", markdown)


def test_an_index_shows_no_link_into_the_repository(hook):
    plain = hook.description(README, None)
    assert not [link for link in targets(plain) if not link.startswith("https:")]
    assert "`sam(rho)`" in plain and "![" not in plain

    absolute = hook.description(README, "https://host/me/sam_jax/blob/v1")
    assert len(targets(absolute)) == len(targets(README))
    assert all(link.startswith("https:") for link in targets(absolute))
    assert "(https://host/me/sam_jax/blob/v1/sam_jax/methods/sam.py)" in absolute
    pictures = re.findall(r"!\[[^]]*\]\((.*)\)", absolute)
    assert pictures and all(link.endswith(".png?raw=true") for link in pictures)


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {sam_jax.__version__}\n" in citation
    newest = re.search(
        r"^## \[?(\d\S*?)\]? ", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert newest and newest[1] == sam_jax.__version__


def test_what_does_not_resolve_is_named():
    resolved = "jax==0.10.0\noptax==0.2.7\narray-record==0.7.1\n"
    elsewhere = "tensorflow>=2.18.1; sys_platform == 'another'"
    wrong = bounds.untrue(
        {
            "dependencies": ["jax>=0.10", "optax>=0.2.6"],
            "optional-dependencies": {
                "a": ["array_record>=0.7.1", "rich>=13.0", elsewhere],
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


USE = """
import pathlib, sys
from sam_jax.train import cards, config
assert config.CARDS.is_relative_to(sys.argv[1]), config.CARDS
print(cards.load("digits_sam:usam").method.coefficients["rho"])
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist unpacked, and the archives: of the repository, and of that sdist."""
    folder = tmp_path_factory.mktemp("built")
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    source = folder / "source"
    for file in files.stdout.splitlines():
        if (ROOT / file).is_file():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).write_bytes((ROOT / file).read_bytes())

    def build(source, out):
        command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
        subprocess.run(command, cwd=source, capture_output=True, check=True)
        return sorted(out.iterdir(), key=lambda path: path.suffix)

    archives = build(source, folder / "first")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked, archives, build(unpacked, folder / "second")


@pytest.fixture(scope="module")
def site(built, tmp_path_factory):
    """The wheel unpacked, with its command, where the clone is not."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(built[-1][-1]).extractall(folder / "site")
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
    """The sdist builds without the repository, to the same bytes; cards are found."""
    unpacked, archives, again = built
    packed = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*")}
    assert packed >= CARDS and {"LICENSE", "SECURITY.md"} <= packed
    assert not [name for name in packed if name.startswith("tests")]
    assert [path.name for path in archives] == [path.name for path in again]
    assert [path.read_bytes() for path in archives] == [p.read_bytes() for p in again]
    assert sam_jax.__version__ == archives[1].name.split("-")[1]

    names = set(zipfile.ZipFile(archives[1]).namelist())
    package = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "sam_jax").rglob("*.py*")
    }
    package = {name for name in package if not name.endswith(".pyc")}
    cards = {f"sam_jax/{name}" for name in CARDS}
    assert package | cards | {"sam_jax/py.typed"} == {
        name for name in names if name.startswith("sam_jax/")
    }
    (metadata,) = [name for name in names if name.endswith("METADATA")]
    text = zipfile.ZipFile(archives[1]).read(metadata).decode()
    assert "Description-Content-Type: text/markdown" in text
    assert "](docs/" not in text and "## Quick start" in text

    used = run("python", "-c", USE, str(site / "site"), at=site / "site", cwd=tmp_path)
    assert used == "0.2\n"


@pytest.mark.slow("builds the archives")
def test_an_index_would_take_them(built):
    pytest.importorskip("twine")
    paths = [str(path) for path in built[1]]
    assert "FAILED" not in run("python", "-m", "twine", "check", "--strict", *paths)


FIRST_USE = """
import jax, jax.numpy as jnp, optax, sam_jax
tx = optax.chain(sam_jax.sam(rho=0.1), optax.sgd(0.5))
params = jnp.array([3.0, 4.0])
grad_fn = jax.grad(lambda w: 0.5 * (w @ w))
updates, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
print(sam_jax.__version__, " ".join(f"{u:.4f}" for u in updates))
"""


@pytest.mark.slow("installs jax and optax")
@pytest.mark.skipif(not shutil.which("uv"), reason="uv is not installed")
def test_the_wheel_works_in_an_empty_environment(built, tmp_path):
    python = tmp_path / "bin" / "python"
    run("uv", "venv", "--quiet", "--python", sys.executable, str(tmp_path))
    tested = ["--constraints", str(ROOT / "requirements.txt")]
    install = ["uv", "pip", "install", "--quiet", "--python", str(python), *tested]
    run(*install, str(built[1][1]))
    seen = run(str(python), "-c", FIRST_USE, cwd=tmp_path)
    # w + 0.1 w / 5 is 1.02 w, and half of that is the update.
    assert seen == f"{sam_jax.__version__} -1.5300 -2.0400\n"
    said = run(str(tmp_path / "bin" / "sam-jax"), "--help", cwd=tmp_path)
    assert said.startswith("usage: sam-jax VERB")


def run(*command, at="", cwd=None):
    """What a command prints, without this repository on Python's path."""
    program = sys.executable if command[0] == "python" else command[0]
    environment = {**os.environ, "PYTHONPATH": str(at), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [program, *command[1:]],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow("trains in processes of its own")
def test_the_tutorial_on_own_images_runs_where_the_clone_is_not(site, tmp_path):
    """From a folder of images to an exported program; its assertions hold."""
    notebooks.executed("own_images", tmp_path, str(site / "site"))
    assert (tmp_path / "runs" / "photos" / "report.html").exists()
