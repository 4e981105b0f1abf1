"""The pages made from docstrings are up to date, and say what they should."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import sam_jax
from docs import methods_page, new_method
from sam_jax import main, methods
from sam_jax.train import cards

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = re.findall(
    r"`python -m (docs\.\w+)[^`]*`", (ROOT / "CONTRIBUTING.md").read_text()
)


@pytest.fixture
def clone(tmp_path):
    """A copy of the repository, without its runs and results."""
    folder = tmp_path
    for name in ("sam_jax", "docs", "configs", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "CHANGELOG.md", folder)
    return folder


def run(folder, *command):
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("name", methods.names())
def test_no_method_lacks_anything(name):
    assert new_method.missing(name) == []


def test_says_what_a_new_method_lacks(clone):
    """A method comes into being, as CONTRIBUTING says."""
    assert "docs.new_method" in COMMANDS
    code, lines = run(clone, "docs.new_method", "new_sam")
    files = [line.removeprefix("missing: ").split(":")[0] for line in lines]
    assert code == 1
    assert files == [
        "sam_jax/methods/new_sam.py",
        "sam_jax/__init__.pyi",
        "configs/methods/new_sam.py",
        "tests/methods/test_new_sam.py",
        "tests/methods/transcriptions.py",
        "tests/methods/test_transcriptions.py",
        "sam_jax/theory/conditions/method_classes.py",
        "CHANGELOG.md",
    ]

    def write(path, text, **replaced):
        file = clone / path
        old = file.read_text() if file.exists() else ""
        file.write_text(old.replace(text, replaced["by"]) if replaced else old + text)

    sam = (ROOT / "sam_jax/methods/sam.py").read_text()
    write(files[0], sam.replace("def sam(", "def new_sam("))
    write(files[1], "from sam_jax.methods.new_sam import new_sam as new_sam\n")
    write(
        files[2], '"""Of nobody."""\n\n\ndef get_config():\n    return {"rho": 0.1}\n'
    )
    write(files[3], "")
    write(files[4], "\n\ndef new_sam():\n    pass\n")
    write(files[5], "SETTINGS = {", by='SETTINGS = {\n    "new_sam": [{}],')
    write(files[6], '"asam",\n', by='"asam",\n        "new_sam",\n')
    write(files[7], "- `new_sam`.\n")
    code, lines = run(clone, "docs.new_method", "new_sam")
    assert code == 0 and lines[0].startswith("new_sam has everything.")


def test_says_what_a_docstring_lacks(monkeypatch):
    def lacking(text, by=""):
        doc = sam_jax.sam.__doc__
        assert text in doc
        monkeypatch.setattr(sam_jax.sam, "__doc__", doc.replace(text, by))
        [line] = new_method.missing("sam")
        monkeypatch.undo()
        return line.removeprefix("sam_jax/methods/sam.py: its docstring has no ")

    assert lacking("Raises:").startswith("section 'Raises'")
    assert lacking("Returns:", "Notes:").startswith("section 'Returns'")
    assert lacking(".. math::", "::") == "formula (`.. math::`)"
    assert lacking("Two gradients", "Some").startswith("paragraph 'Two gradients per")
    assert lacking("arxiv.org", "a.org") == "reference with a link to arXiv"


def test_every_method_has_a_page_without_loose_markup():
    pages = methods_page.pages()
    assert sorted(pages) == sorted(f"methods/{name}.md" for name in methods.names())
    text = "\n".join([*pages.values(), methods_page.table(), methods_page.others()])
    outside_code = re.sub(r"```.*?```", "", text, flags=re.S)
    for markup in (":math:", "``", "`_", ".. "):
        assert markup not in outside_code, markup


def test_reads_what_a_docstring_says():
    method = methods_page.read("unified_sam")
    assert method.signature == "unified_sam(rho=0.05, lam='1-1/t')"
    assert method.gradients == "2" and method.state.startswith("no state")
    assert [name for name, _ in method.arguments] == ["rho", "lam"]
    assert method.formulas[0].startswith("$$\nd = \\nabla L")
    assert len(methods_page.read("lookbehind").formulas) == 2
    assert methods_page.read("bsam").formulas[0].startswith("$$\n\\begin{aligned}")
    assert "rho=0.3" in method.fragment[1]
    assert "| Oikonomou and Loizou 2025, " in methods_page.row(method)


def test_the_settings_of_the_guide_to_pods_are_some():
    text = (ROOT / "docs" / "cloud_tpu.md").read_text()
    words = set(re.findall(r"--config\.[\w.]+=(?![A-Z]+\b)[\w./:$-]+", text))
    assert len(words) > 10
    for word in words:
        cards.load("configs/cifar10_sam.py", word)
    commands = re.findall(r"-m sam_jax\.main((?:[^\n`]*\\\n)*[^\n`]*)", text)
    flags = {flag for command in commands for flag in re.findall(r" (--\w+)", command)}
    assert {"--distributed", "--coordinator", "--workdir", "--config"} <= flags
    assert flags <= set(re.findall(r"--\w+", main.help_text()))
