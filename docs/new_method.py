"""Says in words what a new method still lacks.

    python -m docs.new_method zsharp

It exits with code 1 if anything is missing. Whether what is there is right, the tests
say.
"""

import ast
import pathlib
import sys

from sam_jax import exports

ROOT = pathlib.Path(__file__).parents[1]


def missing(name: str) -> list[str]:
    """What a method lacks: one ``file: what belongs there`` each.

    Example:
        >>> missing("sam")
        []
    """
    library, fragment = f"sam_jax/methods/{name}.py", f"configs/methods/{name}.py"
    tests, formulas = f"tests/methods/test_{name}.py", "tests/methods/transcriptions.py"
    compared = "tests/methods/test_transcriptions.py"
    theory = "sam_jax/theory/conditions/method_classes.py"
    is_exported = exports.MODULES.get(name) == f"sam_jax.methods.{name}"
    steps = [
        (defines(library, name), f"{library}: a factory `{name}(rho, ..., eps, mask)`"),
        (
            is_exported,
            "sam_jax/__init__.pyi: "
            f"`from sam_jax.methods.{name} import {name} as {name}`",
        ),
        (
            defines(fragment, "get_config"),
            f"{fragment}: `get_config()` with the paper's values; its docstring says "
            "where they are from",
        ),
        (
            says(tests),
            f"{tests}: tests of what is special to it; `TRAITS` says how it differs "
            "from the usual method",
        ),
        (
            defines(formulas, name)
            or defines("tests/methods/optimizer_transcriptions.py", name),
            f"{formulas}: `{name}`, the formula in NumPy",
        ),
        (
            says(compared, f'"{name}": '),
            f"{compared}: coefficients to compare with, in `SETTINGS`",
        ),
        (
            says(theory, f'"{name}"'),
            f"{theory}: the theorems that speak of it, or its name in `NO_THEOREM`",
        ),
        (says("CHANGELOG.md", f"`{name}`"), "CHANGELOG.md: its name"),
    ]
    return [what for is_there, what in steps if not is_there] or undocumented(name)


def undocumented(name: str) -> list[str]:
    """What the page made from docstrings lacks."""
    from docs import methods_page  # imports JAX

    try:
        methods_page.row(methods_page.read(name))
    except methods_page.Incomplete as error:
        return [str(error)]
    return []


def read(path: str) -> str:
    """The text of a file of the repository; empty if there is none."""
    file = pathlib.Path(ROOT, path)
    return file.read_text() if file.exists() else ""


def says(path: str, text: str = "") -> bool:
    """Whether a file is there and contains a text."""
    return pathlib.Path(ROOT, path).exists() and text in read(path)


def defines(path: str, function: str) -> bool:
    """Whether a file is there and has a function of that name."""
    return any(
        isinstance(node, ast.FunctionDef) and node.name == function
        for node in ast.parse(read(path)).body
    )


def main() -> int:
    """Prints what is missing; the exit code."""
    if len(sys.argv) != 2:
        print("usage: python -m docs.new_method NAME", file=sys.stderr)
        return 2
    name = sys.argv[1]
    lacking = missing(name)
    for step in lacking:
        print(f"missing: {step}")
    if not lacking:
        print(f"{name} has everything. Now: pytest tests/methods --method={name}")
    return bool(lacking)


if __name__ == "__main__":
    raise SystemExit(main())
