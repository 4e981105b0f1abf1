"""Low-rank terms beside the weights of linear layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sam_jax import errors, models
from sam_jax.models import lora, own
from tests.train import my_parts

IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def vit():
    return models.build("vit_ti4", num_classes=3, width=128, depth=1)


@pytest.fixture(scope="module")
def tuned(vit):
    """An adapted network, its parameters with terms that are not zero."""
    model = lora.adapted(vit, 2, at="query|out|Dense_1", alpha=6.0)
    params, _ = jax.jit(model.init)(jax.random.key(0), IMAGES)
    rng = np.random.default_rng(1)
    moved = jax.tree_util.tree_map_with_path(
        lambda path, x: (
            rng.normal(size=x.shape).astype(np.float32) / 9
            if path[-1].key == "lora_b"
            else x
        ),
        params,
    )
    return model, params, moved


def layers(params):
    """The four layers, those that are adapted and one that is not."""
    block = params["EncoderBlock_0"]
    attention = block["MultiHeadDotProductAttention_0"]
    return attention["query"], attention["out"], block["Dense_1"], attention["key"]


def test_it_begins_as_it_was(vit, tuned):
    model, params, _ = tuned
    query, out, dense, key = layers(params)
    assert query["lora_a"].shape == (128, 2) and query["lora_b"].shape == (2, 128)
    assert out["lora_a"].shape == (128, 2) and out["lora_b"].shape == (2, 128)
    assert dense["lora_a"].shape == (512, 2)
    assert 0.5 < 128 * jnp.var(query["lora_a"]) < 1.5
    assert key.keys() == {"kernel", "bias"} == params["Dense_0"].keys()
    plain, _ = jax.jit(vit.init)(jax.random.key(0), IMAGES)
    same = model.apply(params, {}, IMAGES, train=False)[0]
    np.testing.assert_array_equal(same, vit.apply(plain, {}, IMAGES, train=False)[0])


def test_it_is_the_network_of_the_sum(vit, tuned):
    model, _, params = tuned
    found = model.apply(params, {}, IMAGES, train=True)[0]

    summed = jax.tree.map(lambda x: x, params)
    for layer in layers(summed)[:3]:
        term = 6.0 / 2 * layer.pop("lora_a") @ layer.pop("lora_b")
        layer["kernel"] += term.reshape(layer["kernel"].shape)
    expected = vit.apply(summed, {}, IMAGES, train=True)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    unmoved = vit.apply(
        jax.tree.map(lambda x: x, tuned[1]) | {}, {}, IMAGES, train=True
    )[0]
    assert not np.allclose(found, unmoved, atol=1e-3)


def test_a_function_of_the_user_may_make_one():
    def mine(num_classes):
        plain = models.build("mlp", num_classes=num_classes, width=4)
        return lora.adapted(plain, 1, at="Dense_0")

    model = own.build(mine, "my.py:mine", {}, {"num_classes": 7, "dtype": "float32"})
    params, _ = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    assert params["Dense_0"]["lora_b"].shape == (1, 4)
    assert params["Dense_2"]["kernel"].shape == (4, 7)


def test_a_rank_of_zero_is_refused(vit):
    with pytest.raises(errors.UserError, match="rank is 0"):
        lora.adapted(vit, 0)


def shapes(network, **how):
    model = lora.adapted(own.build(network, "net", {}, {"num_classes": 3}), 2, **how)
    return jax.eval_shape(model.init, jax.random.key(0), IMAGES)[0]


def test_a_network_without_such_a_layer_is_refused():
    with pytest.raises(errors.UserError, match=r"at='nothing' is .* Dense_0, Dense_1"):
        shapes(models.build("mlp", num_classes=3), at="nothing")
    with pytest.raises(errors.UserError, match=r"of Linen: .* first, last"):
        shapes(my_parts.TableNet)


class Sums(nn.Module):
    axis: tuple[int, ...]

    @nn.compact
    def __call__(self, images):
        return nn.DenseGeneral(3, axis=self.axis)(images)


@pytest.mark.parametrize("axis", [(1, 2, 3), (-1, 1, 2)])
def test_a_layer_sums_over_the_last_axes(axis):
    assert shapes(Sums(axis))["DenseGeneral_0"]["lora_a"].shape == (64, 2)
    with pytest.raises(errors.UserError, match=r"_0 sums over the axes \(1, 2\) of 4"):
        shapes(Sums((1, 2)))
