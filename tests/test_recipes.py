"""Every recipe runs as it is written, and trains."""

import pathlib
import re
import warnings

import pytest

RECIPES = (pathlib.Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
BLOCKS = dict(
    re.findall(r"^## (.+?)\n(?:(?!^## ).)*?```python\n(.*?)```", RECIPES, re.M | re.S)
)


def test_every_heading_has_a_block():
    assert list(BLOCKS) == re.findall(r"^## (.+)", RECIPES, re.M)
    assert RECIPES.count("```python") == len(BLOCKS)


@pytest.mark.parametrize("title", BLOCKS)
def test_runs_and_trains(title):
    namespace = {}
    with warnings.catch_warnings():
        # What other packages deprecate at import says nothing about ours.
        warnings.simplefilter("ignore", DeprecationWarning)
        exec(BLOCKS[title], namespace)
    losses = namespace["losses"]
    assert losses[-1] < 0.7 * losses[0]
