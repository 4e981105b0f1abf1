"""The list of faults names tests that exist."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LIST = (ROOT / "tests" / "faults.md").read_text()
ROWS = re.findall(r"^\| (?!fault|---)(.+?) \| .+? \| `(.+?)` \|$", LIST, re.M)


@pytest.mark.parametrize("held_by", sorted({test for _, test in ROWS}))
def test_every_named_test_is_there(held_by):
    file, _, name = held_by.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    functions = {x.name for x in tree.body if isinstance(x, ast.FunctionDef)}
    assert any(f.startswith("test_") for f in functions) or not file.count("test_")
    assert not name or name in functions


def test_every_fault_is_listed():
    named = " ".join(fault for fault, _ in ROWS)
    for kind, numbers in (("F", range(1, 17)), ("T", range(13))):
        missing = [n for n in numbers if not re.search(rf"\b{kind}{n}\b", named)]
        assert not missing, (kind, missing)
