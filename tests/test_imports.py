"""Imports point one way: train -> models, data, methods; the library stands alone."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "sam_jax").rglob("*.py")
)
LIBRARY = ("sam_jax.methods", "sam_jax.schedules", "sam_jax.errors")


def imports(source, package=""):
    """Full names of all that is imported anywhere in a file, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def of_file(file):
    package = ".".join(pathlib.PurePosixPath(file).parent.parts)
    return imports((ROOT / file).read_text(), package)


def within(name, packages):
    return any(name == p or name.startswith(f"{p}.") for p in packages)


def test_the_reader_of_imports():
    source = """
import a.b, c as d
from e import f, g as h
def lazily():
    from . import i
    from ..j import k
"""
    found = imports(source, package="sam_jax.train")
    expected = {"a.b", "c", "e.f", "e.g", "sam_jax.train.i", "sam_jax.j.k"}
    assert found == expected


def test_all_files_are_seen():
    assert {"sam_jax/__init__.py", "sam_jax/methods/core.py"} <= set(FILES)
    assert within("sam_jax.methods.core", LIBRARY)
    assert not within("sam_jax.methods_of_others", LIBRARY)


@pytest.mark.parametrize("file", FILES)
def test_direction_of_imports(file):
    found = of_file(file)
    module = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    ours = {name for name in found if within(name, ["sam_jax"])}
    others = {name.split(".")[0] for name in found - ours} - sys.stdlib_module_names

    assert not others & {"configs", "experiments", "tests"}
    if within(module, LIBRARY) or module == "sam_jax":
        assert others <= {"jax", "optax", "numpy"}
        # sam_jax.methods.core, or core of sam_jax.methods; "sam_jax.errors" and so on.
        assert all(within(name, LIBRARY) for name in ours), ours
    if within(module, ["sam_jax.models", "sam_jax.data"]):
        assert not any(within(name, ["sam_jax.train", "sam_jax.main"]) for name in ours)
    if within(module, ["sam_jax.theory"]):
        assert others <= {"jax", "optax", "numpy", "scipy", "sklearn"}
        allowed = [*LIBRARY, "sam_jax.theory"]
        assert all(within(name, allowed) for name in ours - {"sam_jax"}), ours
    if not within(module, ["sam_jax.models"]):
        assert "flax" not in others
    if module not in {"sam_jax.train.checkpoint", "sam_jax.train.agreement"}:
        assert "orbax" not in others


def test_the_library_loads_nothing_of_the_trainer():
    # What jax and optax load themselves is theirs to decide.
    program = """
import sys
import jax, optax
before = set(sys.modules)
import sam_jax
loaded = set(sys.modules) - before
print(*sorted({name.split(".")[0] for name in loaded} - sys.stdlib_module_names))
print(*sorted(set(sys.argv[1:]) & {name.split(".")[0] for name in sys.modules}))
"""
    heavy = ["flax", "orbax", "tensorflow", "tensorflow_datasets", "sklearn", "torch"]
    heavy += ["ml_collections", "matplotlib", "rich", "tensorboardX", "grain"]
    run = subprocess.run(
        [sys.executable, "-c", program, *heavy],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "sam_jax\n\n"
