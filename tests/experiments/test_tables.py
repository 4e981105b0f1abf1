"""What makes a run of a table another one, and how its images are disturbed."""

import re

import numpy as np
import pytest

from experiments.training import robustness, table
from sam_jax.train import settings


def test_a_method_of_ones_own_has_its_run_among_the_others(tmp_path):
    (tmp_path / "mine.py").write_text("import sam_jax\nmine = sam_jax.sam\n")
    row = f'[[rows]]\n"method.name" = "{tmp_path}/mine.py:mine"\n'
    (tmp_path / "own.toml").write_text(f'title = "t"\ncard = "digits_sam"\n{row}')
    (name,) = table.planned(table.load(str(tmp_path / "own.toml")))
    assert re.fullmatch(r"mine_rho0.05_seed0_[0-9a-f]{8}", name)


def test_a_run_is_what_its_own_settings_say():
    flat = settings.flat_text(settings.Settings())
    identity = table.identity(flat)
    assert table.identity(flat | {"a setting of later": 0}) != identity
    without = {key: x for key, x in flat.items() if key != "label_smoothing"}
    assert table.identity(without) == identity, "it has a default"
    assert table.identity(flat | {"data.data_dir": "/data"}) == identity
    for key, value in (("seed", 1), ("data.label_noise", 0.4)):
        assert table.identity(flat | {key: value}) != identity
    sam = flat | {"method.name": "sam", "method.rho": 0.3}
    assert table.identity(sam) != identity
    assert table.identity(sam | {"method.rho": 0.4}) != table.identity(sam)
    assert table.identity(sam | {"method.mask": None}) == table.identity(sam)


def test_disturbances_do_what_they_say():
    images = np.random.default_rng(1).integers(90, 160, (4, 8, 8, 3), np.uint8)
    made = {
        name: robustness.disturbed(images, by).astype(float)
        for name, by in robustness.DISTURBANCES.items()
    }
    assert np.std(made["noise"] - images) == pytest.approx(0.08 * 255, rel=0.1)
    for name in ("blur", "contrast"):
        means = made[name].mean((1, 2)) - images.mean((1, 2))
        assert np.abs(means).max() < (8 if name == "blur" else 0.6)
    within = made["contrast"].std((1, 2)) / images.std((1, 2))
    np.testing.assert_allclose(within, 0.4, rtol=0.05)
    assert made["blur"].std() < 0.6 * images.std()
