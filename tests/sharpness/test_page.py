"""The page about sharpness runs from its first to its last block."""

import pathlib
import re

import jax

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "sharpness.md"


def test_the_blocks_run_one_after_the_other():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    namespace = {}
    with jax.enable_x64(False):
        for block in blocks:
            exec(block, namespace)
    assert namespace["curved"].values.shape == (1,)
