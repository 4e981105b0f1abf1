"""The best radius over the width, with networks of a few neurons."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.training import widths


def test_widths_of_two_networks_share_a_page(tmp_path, monkeypatch):
    for name in ("mlp", "resnet"):
        small = widths.NETWORKS[name]._replace(radii=(0, 0.1))
        monkeypatch.setitem(widths.NETWORKS, name, small)
    once = ["--seeds=1", "--epochs=1", f"--out={tmp_path}"]
    assert widths.main(["--network=mlp", "--widths=2,16", *once]) == 0
    assert widths.main(["--network=resnet", "--widths=16", *once]) == 0
    assert {x.name for x in tmp_path.iterdir()} == {
        *("mlp.json", "mlp.png", "resnet.json", "resnet.png", "table.md")
    }
    found = json.loads((tmp_path / "mlp.json").read_text())["errors"]
    assert len({str(each["2"]) for each in found.values()}) > 1
    again = widths.errors(widths.NETWORKS["mlp"], "both", 16, 1, 1)  # as SAM: the base
    np.testing.assert_allclose(again, found["sam"]["16"], atol=1)
    page = (tmp_path / "table.md").read_text()
    assert page.count("## ") == 2 and "| best radius: error | 2 | 16 |" in page


@pytest.mark.parametrize("name", widths.NETWORKS)
def test_a_start_in_proportion_changes_the_head_and_the_stem(name):
    model = widths.NETWORKS[name].build(64)
    params, _ = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    changed = {
        jax.tree_util.keystr(path, simple=True, separator="/"): ratio
        for path, ratio in jax.tree_util.tree_leaves_with_path(
            jax.tree.map(
                lambda new, old: float(jnp.linalg.norm(new) / jnp.linalg.norm(old)),
                widths.in_proportion(params, 64),
                params,
            )
        )
        if abs(ratio - 1) > 1e-3
    }
    stem = {"CifarStem_0/Conv_0/kernel": pytest.approx(2)} if name == "resnet" else {}
    head = "Dense_2/kernel" if name == "mlp" else "Dense_0/kernel"
    assert changed == {head: pytest.approx(0.5), **stem}
