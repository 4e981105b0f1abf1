import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax import methods
from tests.methods import problems
from tests.methods.contract.cases import assert_finite, gradient_at, method


class Affine:
    """A module whose fields are paths by attribute, as Equinox registers them."""

    def __init__(self, weight, bias):
        self.weight, self.bias = weight, bias


class Block:
    def __init__(self, linear, norm1, norms):
        self.linear, self.norm1, self.norms = linear, norm1, norms


class Variable:
    """A leaf that wraps its value, as NNX registers it."""

    def __init__(self, value):
        self.value = value


for node, fields in (
    (Affine, ["weight", "bias"]),
    (Block, ["linear", "norm1", "norms"]),
    (Variable, ["value"]),
):
    jax.tree_util.register_dataclass(node, data_fields=fields, meta_fields=[])

LINEN = {
    "Conv_0": {"kernel": 0},
    "BatchNorm_0": {"scale": 1, "bias": 1},
    "ResNetBlock_0": {
        "Conv_0": {"kernel": 0, "bias": 0},
        "LayerNorm_1": {"scale": 1},
        "bn_init": {"scale": 1},
        "norm_proj": {"bias": 1},
    },
    "PreNormBlock_0": {"Dense_0": {"kernel": 0}, "RMSNorm_0": {"scale": 1}},
    "SubnetDense": {"kernel": 0},
    "NormalizingFlow_0": {"Dense_0": {"kernel": 0}},
    "NormalDense_0": {"kernel": 0},
}
NNX = {  # a state of variables; lists are keyed by numbers
    "conv1": {"kernel": Variable(0), "bias": Variable(0)},
    "bn1": {"scale": Variable(1), "bias": Variable(1)},
    "blocks": {
        0: {"linear": {"kernel": Variable(0)}, "norm1": {"scale": Variable(1)}},
        1: {"layer_norm": {"scale": Variable(1), "bias": Variable(1)}},
    },
    "norms": {0: {"scale": Variable(1)}},
}
HAIKU = {
    "res_net/~/initial_conv": {"w": 0},
    "res_net/~/initial_batchnorm": {"scale": 1, "offset": 1},
    "res_net/~/block_group_0/~/block_0/~/batchnorm_1": {"scale": 1},
    "res_net/~/block_group_0/~/block_0/~/conv_1": {"w": 0},
    "norm_free_net/~/linear": {"w": 0, "b": 0},
    "batch_norm": {"scale": 1},
    "logits": {"w": 0, "b": 0},
}
EQUINOX = [
    Block(Affine(0, 0), Affine(1, 1), [Affine(1, 1), Affine(1, None)]),
    Affine(0, 0),
]
OTHERS = {
    "features": {"layer1.0.bn2.weight": 1, "layer1.0.conv2.weight": 0},
    "block": {"norm_scale": 1, "GroupNorm": [1], "attention": (0, 0)},
    "head": {"fc_bn": {"w": 1}, "resnetBN": {"w": 1}, "SUBNET": {"w": 0}},
    "weight_normalization": {"g": 1},
}


@pytest.mark.parametrize(
    "expected",
    [LINEN, NNX, HAIKU, EQUINOX, OTHERS],
    ids=["Linen", "NNX", "Haiku", "Equinox", "others"],
)
def test_finds_the_layers_as_libraries_name_them(expected):
    params = jax.tree.map(lambda _: jnp.zeros(2), expected)
    mask = sam_jax.norm_layers_mask(params)
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    wrong = [
        jax.tree_util.keystr(path)
        for (path, flag), kept in zip(
            jax.tree_util.tree_leaves_with_path(expected),
            jax.tree.leaves(mask),
            strict=True,
        )
        if bool(flag) is not kept
    ]
    assert not wrong


@pytest.mark.parametrize(
    "params", [{"Dense_0": {"kernel": jnp.ones(2)}}, jnp.ones(2), {}, [{}]]
)
def test_no_layer_found_says_what_to_do(params):
    with pytest.raises(ValueError, match=r"^no normalisation layer .*pass a mask inst"):
        sam_jax.norm_layers_mask(params)


def test_is_a_mask_for_sam_on():
    # The norm runs over the layers' parameters only: (3, 4) has the length 5.
    params = {"Dense_0": {"kernel": jnp.ones(2)}, "norm": {"scale": jnp.ones(2)}}
    grads = {
        "Dense_0": {"kernel": jnp.ones(2)},
        "norm": {"scale": jnp.array([3.0, 4.0])},
    }
    tx = sam_jax.sam(10.0, mask=sam_jax.norm_layers_mask)
    seen = []

    def grad_fn(weights):
        seen.append(weights)
        return grads

    update = jax.jit(
        lambda params: tx.update(
            grads, tx.init(params), params, grad_fn=lambda w: w
        )  # by paths alone, so that it can be traced
    )
    direction, _ = update(params)
    tx.update(grads, tx.init(params), params, grad_fn=grad_fn)
    np.testing.assert_allclose(seen[0]["norm"]["scale"], [7, 9], rtol=1e-6)
    np.testing.assert_array_equal(seen[0]["Dense_0"]["kernel"], [1, 1])
    np.testing.assert_allclose(direction["norm"]["scale"], [7, 9], rtol=1e-6)


def test_passes_the_masked_nodes_of_optax():
    params = {"norm": {"scale": jnp.ones(2), "bias": optax.MaskedNode()}}
    mask = sam_jax.norm_layers_mask(params)
    assert mask["norm"]["scale"] is True


@pytest.mark.parametrize("value", [True, 0.0, "kernel", np.bool_(True), jnp.array(1)])
def test_one_value_in_the_place_of_a_tree_is_refused_at_construction(value):
    for name in ("sam", "momentum_sam", "bsam", "random_sam", "esam"):
        with pytest.raises(
            sam_jax.checks.BadValue, match="mask must be a tree of bool"
        ):
            method(name, mask=value)


@pytest.mark.parametrize(
    "value", ["no", float("nan"), 1, np.array([True]), jnp.array(1.0), print]
)
def test_a_leaf_that_is_no_boolean_is_refused_by_its_path(value):
    params = {"a": {"kernel": jnp.ones(1)}, "b": jnp.ones(1)}
    mask = {"a": {"kernel": value}, "b": True}
    for given in (mask, lambda params: mask):
        with pytest.raises(sam_jax.checks.BadValue, match=r"\['a'\]\['kernel'\]") as e:
            sam_jax.sam(0.1, mask=given).init(params)
        assert "mask must be a tree of booleans" in str(e.value)


@pytest.mark.parametrize(
    "true", [True, np.bool_(True), np.array(True), jnp.array(True)]
)
def test_a_tree_of_booleans_may_be_callable(true):
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Layer:
        kernel: Any
        bias: Any

        def __call__(self, x):
            return x @ self.kernel + self.bias

    w = Layer(jnp.array([3.0]), jnp.array([4.0]))
    mask = Layer(true, np.bool_(False))
    direction, _ = sam_jax.sam(1.0, mask=mask).update(
        w, sam_jax.sam(1.0, mask=mask).init(w), w, grad_fn=lambda w: w
    )
    assert (direction.kernel, direction.bias) == (4.0, 4.0)


def test_a_mask_of_traced_values_is_refused_in_one_sentence():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}

    def init(flag):
        return sam_jax.sam(0.1, mask={"a": True, "b": flag}).init(params)

    with pytest.raises(sam_jax.checks.BadValue, match="must have Python booleans") as e:
        jax.jit(init)(True)
    assert "\n" not in str(e.value)


def test_biases_of_attention_are_no_weights():
    attention = {"kernel": jnp.ones((4, 2, 3)), "bias": jnp.ones((2, 3))}
    found = sam_jax.weights_mask({"query": attention})
    assert found == {"query": {"kernel": True, "bias": False}}


@pytest.mark.usefixtures("promotion_of_optax")  # gradients of another dtype
def test_a_mask_function_sees_the_parameters():
    params = {"a": jnp.float32(3.0), "b": jnp.bfloat16(4.0)}
    tx = sam_jax.sam(
        0.5, mask=lambda p: jax.tree.map(lambda x: x.dtype == jnp.float32, p)
    )
    grads, points = jax.tree.map(jnp.bfloat16, params), []
    tx.update(grads, tx.init(params), params, grad_fn=lambda p: points.append(p) or p)
    assert points == [{"a": 3.5, "b": 4.0}]


@pytest.mark.parametrize("mask", [{"a": True, "norm": False}, sam_jax.norm_layers_mask])
def test_optax_finds_the_parameters_of_a_masked_state(mask):
    params = {"a": jnp.ones(2), "norm": {"scale": jnp.ones(3)}}
    tx = optax.chain(sam_jax.sam(mask=mask), optax.sgd(0.1, momentum=0.9))
    shapes = optax.tree.map_params(tx, lambda x: x.shape, tx.init(params))
    assert optax.tree.get(shapes, "trace") == {"a": (2,), "norm": {"scale": (3,)}}


@pytest.mark.parametrize("name", methods.names())
def test_a_mask_that_keeps_nothing_perturbs_nothing(name):
    params = problems.network()
    tx = method(name, mask=dict.fromkeys(params, False))
    call = problems.keywords(problems.network_loss, params, problems.batch())
    grads = gradient_at(params)
    with jax.disable_jit():
        direction, state = tx.update(grads, tx.init(params), params, **call)
    assert_finite(direction)
    assert sam_jax.diagnostics(state)["perturbation_norm"] == 0


@pytest.mark.parametrize("name", methods.names())
def test_no_gradient_is_taken_with_a_masked_parameter_moved(name):
    params = problems.network()
    tx = method(name, learning_rate=0.0, mask={"kernel": True, "bias": False})
    for point in problems.points(tx, params, tx.init(params), params):
        assert point["bias"] == params["bias"]
