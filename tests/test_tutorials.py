"""The tutorials: notebooks are those of their sources, and hold what they assert."""

import re

import pytest

from docs import notebooks

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupytext")
COLAB = "https://colab.research.google.com/github/me/sam_jax/blob/v"


def written(name):
    path = notebooks.FOLDER / f"{name}.ipynb"
    return nbformat.read(path, as_version=4)


def test_there_is_a_notebook_of_every_source():
    for suffix in ("py", "ipynb"):
        found = {path.stem for path in notebooks.FOLDER.glob(f"*.{suffix}")}
        assert found == set(notebooks.NAMES)


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_a_notebook_was_run_as_its_source_is(name):
    made, source = written(name), notebooks.source(name)
    advice = f"run python -m docs.notebooks {name}"
    assert [(c.cell_type, c.source) for c in made.cells] == [
        (c.cell_type, c.source) for c in source.cells
    ], advice
    install, *code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert install.source.startswith("!pip install") and not install.outputs
    assert all(cell.execution_count for cell in code), advice
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert kinds and "error" not in kinds
    assert "stderr" not in {x.get("name") for cell in code for x in cell.outputs}
    assert "assert" in "".join(cell.source for cell in code)
    # A repository that is cloned, a page that is read on a telephone.
    assert (notebooks.FOLDER / f"{name}.ipynb").stat().st_size < 150_000


def test_pages_have_their_pictures_and_links(monkeypatch):
    monkeypatch.delenv("SAM_JAX_REPOSITORY", raising=False)
    pages = notebooks.pages()
    assert [f"tutorials/{name}.md" for name in notebooks.NAMES] == [
        place for place in pages if place.endswith(".md")
    ]
    for place, text in pages.items():
        if not place.endswith(".md"):
            assert "<svg" in text
            continue
        for about, picture in re.findall(r"!\[(.*)\]\((.*)\)", text):
            assert about and f"tutorials/{picture}" in pages
        named = re.findall(r"\]\((\w+)\.md\)", text)
        assert set(named) <= set(notebooks.NAMES)
        assert text.count(".ipynb)") == 1 and "colab" not in text
    monkeypatch.setenv("SAM_JAX_REPOSITORY", "https://github.com/me/sam_jax/")
    text = notebooks.pages()["tutorials/valley.md"]
    assert f"]({COLAB}" in text and "/docs/tutorials/valley.ipynb) · " in text


@pytest.mark.slow("a kernel of its own; the other tutorials run every night")
def test_a_tutorial_runs(tmp_path):
    notebook = notebooks.executed("valley", tmp_path)
    assert "predicted 0.017647, SAM 0.017647" in str(notebook)
