"""Imports point one way: train -> models, data, methods; the library stands alone."""

import ast
import importlib
import pathlib
import subprocess
import sys

import optax

import sam_jax
from sam_jax import exports, methods

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "sam_jax").rglob("*.py")
)
LIBRARY = tuple(
    f"sam_jax.{name}"
    for name in (
        *("methods", "schedules", "sharpness", "testing"),
        *("checks", "errors", "exports"),
    )
)


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


def offences(file):
    """What a file imports against the rules."""
    found = of_file(file)
    module = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    # The package itself has no code; its names are of the library.
    ours = {name for name in found if within(name, ["sam_jax"])} - {"sam_jax"}
    others = {name.split(".")[0] for name in found} - sys.stdlib_module_names
    others -= {"sam_jax"}

    forbidden = others & {"configs", "experiments", "tests"}
    if within(module, LIBRARY) or module == "sam_jax":
        forbidden |= others - {"jax", "optax", "numpy"}
        # sam_jax.methods.core, or core of sam_jax.methods; "sam_jax.errors" and so on.
        forbidden |= {name for name in ours if not within(name, LIBRARY)}
    if within(module, ["sam_jax.models", "sam_jax.data"]):
        trainer = ["sam_jax.train", "sam_jax.main"]
        forbidden |= {name for name in ours if within(name, trainer)}
    if within(module, ["sam_jax.theory"]):
        forbidden |= others - {"jax", "optax", "numpy", "scipy", "sklearn"}
        allowed = [*LIBRARY, "sam_jax.theory"]
        forbidden |= {name for name in ours if not within(name, allowed)}
    if not within(module, ["sam_jax.models"]):
        forbidden |= others & {"flax"}
    if module not in {"sam_jax.train.checkpoint", "sam_jax.train.agreement"}:
        forbidden |= others & {"orbax"}
    return forbidden


def test_direction_of_imports():
    found = {file: offences(file) for file in FILES}
    assert {file: bad for file, bad in found.items() if bad} == {}


def output(program, *arguments):
    """What a Python program prints, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_library_loads_nothing_of_the_trainer():
    # What jax and optax load themselves is theirs to decide.
    program = """
import sys
import jax, optax
before = set(sys.modules)
import sam_jax
[getattr(sam_jax, name) for name in dir(sam_jax)]
loaded = set(sys.modules) - before
print(*sorted({name.split(".")[0] for name in loaded} - sys.stdlib_module_names))
print(*sorted(set(sys.argv[1:]) & {name.split(".")[0] for name in sys.modules}))
"""
    heavy = ["flax", "orbax", "tensorflow", "tensorflow_datasets", "sklearn", "torch"]
    heavy += ["ml_collections", "matplotlib", "rich", "tensorboardX", "grain"]
    assert output(program, *heavy) == "sam_jax\n\n"


def test_nothing_is_imported_before_it_is_used():
    """A Ctrl-C in the first second, and --help, must not wait for JAX."""
    program = """
import runpy, sys
import sam_jax, sam_jax.methods
sam_jax.methods.names(), dir(sam_jax)
try:
    sam_jax.vaso
except AttributeError as error:
    print(error)
try:
    sys.argv = ["main", "--help"]
    runpy.run_module("sam_jax.main", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
print("jax" in sys.modules)
print(sam_jax.vasso.__name__, "jax" in sys.modules)
"""
    first, *help_text, before, after = output(program).splitlines()
    assert first.startswith("module 'sam_jax' has no attribute 'vaso'")
    assert any("--config" in line for line in help_text)
    assert (before, after) == ("False", "vasso True")


def test_heavy_packages_are_imported_only_where_they_are_used(tmp_path):
    program = """
import pathlib, sys
import sam_jax.data
from sam_jax.train import figures, metrics, report
print(*sorted(set(sys.argv[2:]) & set(sys.modules)))
figures.save(figures.empty((1, 1), ""), pathlib.Path(sys.argv[1]))
print("matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    heavy = ["tensorflow", "tensorflow_datasets", "sklearn", "matplotlib", "pandas"]
    heavy += ["IPython", "tensorboardX", "wandb", "torch"]
    picture = tmp_path / "empty.png"
    said = output(program, str(picture), *heavy).splitlines()
    assert said == ["", "True False"] and picture.exists()


def test_without_the_extras_a_sentence_says_what_to_install():
    """Whatever is imported: no bare error of a package that is not installed."""
    program = """
import importlib, pkgutil, sys
sys.modules |= dict.fromkeys(sys.argv[1:])
import sam_jax
for info in pkgutil.walk_packages(sam_jax.__path__, "sam_jax.", onerror=lambda _: None):
    try:
        importlib.import_module(info.name)
    except (ImportError, SystemExit) as error:
        print(info.name, "|", error)
from sam_jax.theory import finite_sums
from sam_jax.train import boards, figures, typed
for use in (
    lambda _: finite_sums.digits((0, 1)),
    boards.TensorBoard,
    lambda title: figures.empty((1, 1), title),
    lambda _: typed.ml_collections(),
):
    try:
        use("x")
    except ImportError as error:
        print("use", "|", error)
"""
    extras = ["flax", "matplotlib", "ml_collections", "orbax", "rich", "sklearn"]
    extras += ["tensorboardX", "tensorflow", "tensorflow_datasets", "wandb"]
    lines = output(program, *extras, "array_record").splitlines()
    refused = dict(line.split(" | ") for line in lines if "use" not in line)
    assert {"sam_jax.models", "sam_jax.train.loop", "sam_jax.train.report"} <= set(
        refused
    )
    assert len(lines) == len(refused) + 4
    assert not {n for n in refused if within(n, (*LIBRARY, "sam_jax.theory"))}
    for line in lines:
        assert 'not installed: this part of sam_jax needs pip install "sam_jax[' in line


def test_every_exported_name_is_there():
    for name, module in exports.MODULES.items():
        value = getattr(sam_jax, name)
        if module != "sam_jax":
            assert value is getattr(importlib.import_module(module), name)
            assert getattr(value, "__module__", module) == module, name
    assert set(exports.MODULES) <= set(dir(sam_jax))


def test_a_star_replaces_nothing_of_optax():
    names = dict(vars(optax))  # as after: from optax import *
    exec("from sam_jax import *", names)
    assert names["scale"] is optax.scale and names["vasso"] is sam_jax.vasso
    assert not set(sam_jax.__all__) & set(dir(optax))
    left_out = set(exports.MODULES) - set(sam_jax.__all__)
    assert left_out == set(exports.MODULES) & set(dir(optax))


def test_every_method_is_exported():
    """A file that holds something of its own name is a method."""
    files = [path.stem for path in (ROOT / "sam_jax" / "methods").glob("[a-z]*.py")]
    holders = [
        name
        for name in files
        if hasattr(importlib.import_module(f"sam_jax.methods.{name}"), name)
    ]
    assert sorted(holders) == list(methods.names())
