"""One training step is read in few files: from ``train_step`` to ``model.apply``."""

import pathlib

PACKAGE = pathlib.Path(__file__).parents[1] / "sam_jax"
STEP = ("train/step.py", "train/passes.py", "methods/sam.py", "methods/core.py")


def test_a_step_of_sam_is_read_in_four_files_and_900_lines():
    lines = {name: len((PACKAGE / name).read_text().splitlines()) for name in STEP}
    assert sum(lines.values()) <= 900, lines
    # They are all there is to follow: each one names the next.
    calls = ("passes.value_and_grad", "model.apply", "sharpness_aware", "grad_fn(")
    for name, call in zip(STEP, calls, strict=True):
        assert call in (PACKAGE / name).read_text(), f"{name} without {call}"
