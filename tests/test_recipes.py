"""Every recipe runs as it is written, and trains."""

import importlib.util
import pathlib
import re
import subprocess
import sys
import warnings

import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = {name: (DOCS / name).read_text() for name in ("recipes.md", "other_loops.md")}
BLOCK = re.compile(r"^## (.+?)\n(?:(?!^## ).)*?```python\n(.*?)```", re.M | re.S)
BLOCKS = {
    f"{page}: {title}": code
    for page, text in PAGES.items()
    for title, code in BLOCK.findall(text)
}
# What not every environment has, by the package to install.
FRAMEWORKS = {"keras": "keras", "kauldron": "kauldron", "tunix": "google-tunix"}
HEAVY = [t for t, code in BLOCKS.items() if re.search("keras|kauldron|tunix", code)]
slow = pytest.mark.slow("imports a framework")


def test_every_heading_has_a_block():
    assert len(BLOCKS) == sum(len(re.findall("^## ", p, re.M)) for p in PAGES.values())
    assert len(BLOCKS) == sum(page.count("```python") for page in PAGES.values())
    assert len(HEAVY) == len(FRAMEWORKS)


@pytest.mark.parametrize(
    "title",
    [pytest.param(t, marks=slow) if t in HEAVY else t for t in BLOCKS],
)
def test_runs_and_trains(title):
    for module, package in FRAMEWORKS.items():
        found = importlib.util.find_spec(module)
        if re.search(rf"(import|from) {module}\b", BLOCKS[title]) and not found:
            pytest.skip(f"pip install {package}")
    if title in HEAVY:  # Keras may have been imported here, for TensorFlow
        check = "assert losses[-1] < 0.7 * losses[0]"
        command = [sys.executable, "-W", "ignore", "-c", f"{BLOCKS[title]}\n{check}"]
        subprocess.run(command, cwd=DOCS.parent, check=True, timeout=300)
        return
    namespace = {}
    with warnings.catch_warnings():
        # What other packages deprecate at import says nothing about ours.
        warnings.simplefilter("ignore")
        exec(BLOCKS[title], namespace)
    losses = namespace["losses"]
    assert losses[-1] < 0.7 * losses[0]
