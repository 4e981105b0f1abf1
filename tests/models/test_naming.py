"""Names and layouts of other libraries; test_other_libraries.py asks the libraries."""

import inspect

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_jax import errors, models
from sam_jax.models import naming, vit
from sam_jax.train import names

NETWORKS = ("resnet18_imagenet", "resnet50_imagenet", "vit_s16")


def shapes_of(network, side=32):
    model = models.build(network, num_classes=5)
    images = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), images)
    return {k: x.shape for k, x in names.by_name({"params": params, **state}).items()}


SHAPES = {network: shapes_of(network) for network in NETWORKS}
PAIRS = [
    (library, network)
    for library, kinds in naming.LIBRARIES.items()
    for network in NETWORKS
    if len(kinds) == 2 or network.startswith("vit")
]


@pytest.mark.parametrize(("library", "network"), PAIRS)
def test_every_array_has_a_place_of_its_own(library, network):
    places = naming.places(library, SHAPES[network])
    assert places.keys() == SHAPES[network].keys()
    assert len(set(places.values())) == len(places)
    thirds = [p for p in places.values() if p.part is not None]
    fused = network.startswith("vit") and library in ("timm", "torchvision")
    assert len(thirds) == (12 * 3 * 2 if fused else 0)


@settings(max_examples=30)
@given(pair=st.sampled_from(PAIRS), data=st.data())
def test_the_layouts_are_inverse(pair, data):
    library, network = pair
    name = data.draw(st.sampled_from(sorted(SHAPES[network])))
    # The same number of dimensions, small and all different.
    shape = tuple(range(2, 2 + len(SHAPES[network][name])))
    array = np.random.default_rng(0).normal(size=shape)
    there = naming.to_library(library, name, array)
    assert there.ndim == array.ndim or there.ndim in (1, 2)
    back = naming.from_library(library, name, there, shape)
    np.testing.assert_array_equal(back, array)


def test_stages_are_found_by_their_shortcuts():
    places = naming.places("timm", SHAPES["resnet50_imagenet"])

    def place(name):
        return places[f"params.{name}.kernel"].name

    assert place("Block_0.Conv_3") == "layer1.0.downsample.0.weight"
    assert place("Block_2.Conv_2") == "layer1.2.conv3.weight"
    assert place("Block_3.Conv_0") == "layer2.0.conv1.weight"
    assert place("Block_15.Conv_1") == "layer4.2.conv2.weight"
    var = places["batch_stats.Block_13.BatchNorm_3.var"]
    assert var.name == "layer4.0.downsample.1.running_var"


def test_a_network_that_a_library_does_not_have():
    with pytest.raises(errors.UserError, match=r"timm has no .*resnet.._imagenet or"):
        naming.places("timm", {"params.CifarStem_0.Conv_0.kernel": (3, 3, 3, 8)})
    with pytest.raises(errors.UserError, match=r"model.name=vit_..$"):
        naming.places("vision_transformer", SHAPES["resnet18_imagenet"])
    # What a user has added has no place.
    added = {"params.EncoderBlock_0.Dense_0.lora_a": (4, 2)}
    assert naming.places("timm", added) == {}


def test_the_options_of_a_vit_are_compared_with_its_defaults():
    parameters = inspect.signature(vit.vit(192)(16)).parameters
    assert naming.VIT_DEFAULTS.keys() == {"gelu", "norm_eps"}
    for name, value in naming.VIT_DEFAULTS.items():
        assert parameters[name].default == value


def test_positions_are_interpolated():
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(1, 1 + 16, 4)).astype(np.float32)
    same = naming.resized(positions, (4, 4))
    np.testing.assert_allclose(same, positions, atol=1e-6)
    larger = naming.resized(positions, (8, 6))
    assert larger.shape == (1, 1 + 48, 4)
    np.testing.assert_array_equal(larger[:, 0], positions[:, 0])
    # What is the same along the columns stays so.
    rows = np.repeat(rng.normal(size=(4, 1, 1)), 4, axis=1).reshape(1, 16, 1)
    whole = np.concatenate([np.zeros((1, 1, 1)), rows], 1).astype(np.float32)
    found = naming.resized(whole, (8, 6))[0, 1:].reshape(8, 6)
    np.testing.assert_allclose(found, found[:, :1].repeat(6, 1), atol=1e-6)
    with pytest.raises(errors.UserError, match="12 patches do not form a square"):
        naming.resized(positions[:, :13], (4, 4))
