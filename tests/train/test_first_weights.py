"""First weights of networks of one's own, and of numbers that NumPy does not have."""

import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import errors
from sam_jax.train import build, loop, names, pretrained, start
from tests.train.test_fine_tuning import begun

HEADS = """
import jax.numpy as jnp
from flax import linen as nn


class Heads(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images):
        x = images.reshape(len(images), 8, 8)
        x = x + self.param("positions", nn.initializers.normal(), (1, 8, 8))
        x = x.reshape(len(x), -1)
        heads = [nn.Dense(1, name=f"head_{i}")(x) for i in range(self.num_classes)]
        return jnp.concatenate(heads, axis=-1)
"""


def test_networks_of_ones_own_with_positions_and_a_layer_for_each_class(tiny, tmp_path):
    (tmp_path / "net.py").write_text(HEADS)
    own = {"model.name": f"{tmp_path}/net.py:Heads", "model.width": None, "epochs": 1}
    own["model.options"] = {}
    loop.train_and_evaluate(tiny("none", **own), tmp_path / "first")
    run, found = begun(tiny("none", **own, init_from=f"{tmp_path / 'first'}@last"))
    assert found.fresh == {} and found.resized == [] and found.left == []
    assert len(found.matched) == 21 and found.remarks == []
    source = pretrained.Source("x", {}, class_names=("a", "b"))
    for of_classes, count in ((set(), 1), ({"params.Dense_0.bias"}, 0)):
        found = start._of_other_classes(source, of_classes, run.dataset.class_names)
        assert len(found) == count


def test_safetensors_of_bfloat16(tiny, tmp_path):
    """Which safetensors reads for JAX, and not for NumPy."""
    from safetensors import flax

    run = build.build(tiny())
    params = run.init(run.seed).params
    arrays = {f"params.{k}": x for k, x in names.by_name(params).items()}
    narrow = {name: x.astype(jnp.bfloat16) for name, x in arrays.items()}
    path = tmp_path / "narrow.safetensors"
    flax.save_file(narrow, path)
    found = pretrained.read(tiny(init_from=str(path)))
    for name, x in narrow.items():
        np.testing.assert_array_equal(found.arrays[name].astype(np.float32), x)
    flax.save_file(dict.fromkeys(narrow, jnp.zeros(3, jnp.float8_e4m3fn)), path)
    with pytest.raises(errors.UserError, match="is of F8_E4M3"):
        pretrained.read(tiny(init_from=str(path)))
