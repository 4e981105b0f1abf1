"""The pages made from docstrings are up to date, and say what they should."""

import importlib.util
import pathlib
import re

from sam_jax import methods

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def script():
    spec = importlib.util.spec_from_file_location(
        "methods_page", DOCS / "methods_page.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MADE = script()


def test_the_methods_page_is_up_to_date():
    assert MADE.PAGE.read_text() == MADE.page(), "run python docs/methods_page.py"


def test_the_readme_table_is_up_to_date():
    readme = MADE.README.read_text()
    assert readme == MADE.with_table(readme), "run python docs/methods_page.py"


def test_every_method_has_a_section_without_loose_markup():
    page = MADE.page()
    assert sorted(re.findall(r"^## `(\w+)`", page, re.M)) == sorted(methods.names())
    outside_code = re.sub(r"```.*?```", "", page, flags=re.S)
    for markup in (":math:", "``", "`_", ".. "):
        assert markup not in outside_code, markup


def test_reads_what_a_docstring_says():
    method = MADE.read("unified_sam")
    assert method.signature == "unified_sam(rho=0.05, lam='1-1/t')"
    assert method.gradients == "2" and method.state.startswith("no state")
    assert [name for name, _ in method.arguments] == ["rho", "lam"]
    assert method.formulas[0].startswith("d = \\nabla L")
    assert len(MADE.read("lookbehind").formulas) == 2
    assert MADE.read("bsam").formulas[0].startswith(r"\begin{aligned}")
    assert "rho=0.3" in method.fragment[1]
