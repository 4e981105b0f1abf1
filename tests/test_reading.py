"""What a reader meets: files and functions of a size, one step in few of them."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "sam_jax"
STEP = ("train/step.py", "train/passes.py", "methods/sam.py", "methods/core.py")
LONGER = {
    "sam_jax/train/step.py: train_step": "the whole step, to be read from top to bottom"
}


def test_a_step_of_sam_is_read_in_four_files_and_900_lines():
    lines = {name: len((PACKAGE / name).read_text().splitlines()) for name in STEP}
    assert sum(lines.values()) <= 900, lines
    # They are all there is to follow: each one names the next.
    calls = ("passes.value_and_grad", "model.apply", "sharpness_aware", "grad_fn(")
    for name, call in zip(STEP, calls, strict=True):
        assert call in (PACKAGE / name).read_text(), f"{name} without {call}"


def length(node):
    return node.end_lineno - node.lineno + 1


def functions(node):
    """Those in a node, not those in them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        else:
            yield from functions(child)


def own_lines(function):
    """Signature, docstring and functions in it aside."""
    lines = function.end_lineno - function.body[0].lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= length(function.body[0])
    return lines - sum(map(length, functions(function)))


def test_files_of_450_lines_and_functions_of_60():
    long = []
    for folder in ("sam_jax", "configs", "experiments", "tests", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            place = path.relative_to(ROOT).as_posix()
            if len(text.splitlines()) > 450:
                long.append(place)
            long += [
                f"{place}: {node.name}"
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and own_lines(node) > 60
            ]
    assert set(long) == set(LONGER)
