"""Perturbations that go with the width: the formula, and the fans of our networks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sam_jax
from sam_jax import models
from sam_jax.methods import widths
from tests.methods import problems


def shapes(name, width, **options):
    model = models.build(name, num_classes=10, width=width, **options)
    image = jnp.zeros((1, 8, 8, 3))
    return jax.eval_shape(model.init, jax.random.key(0), image)[0]


@pytest.mark.parametrize(
    "name, options", [("resnet18", {}), ("vit_ti4", {"depth": 1}), ("mlp", {})]
)
def test_fans_of_our_networks_grow_with_the_width(name, options):
    """By kind: kernels of the first layer and vectors, kernels inside, the head's."""
    narrow, wide = (shapes(name, width, **options) for width in (64, 128))
    ratios = widths._ratios(wide, narrow)
    head = max(key for key in ratios if key.startswith("Dense"))
    expected = {"kernel": 0.5, "bias": 1.0}
    assert ratios.pop(head) == expected
    kinds = {2.0: set(), 1.0: set()}
    for path, ratio in jax.tree_util.tree_leaves_with_path(ratios):
        kinds[ratio].add(jax.tree_util.keystr(path, simple=True, separator="/"))
    first = {
        "resnet18": "CifarStem_0/Conv_0/kernel",
        "vit_ti4": "Conv_0/kernel",
        "mlp": "Dense_0/kernel",
    }[name]
    vectors = {x for x in kinds[2.0] if x.endswith(("bias", "scale"))}
    others = {"token", "positions"} if name.startswith("vit") else set()
    assert kinds[2.0] - vectors == {first, *others}
    assert kinds[1.0] and all(x.endswith("kernel") for x in kinds[1.0])


def test_an_embedding_has_one_input():
    assert widths.fans("positions", (1, 17, 64)) == (1, 64)
    for path in ("Embed_0/embedding", "embed/embeddings"):  # of Flax, of Haiku
        assert widths.fans(path, (1000, 64)) == (1, 64)
    assert widths.fans("patch_embedding/kernel", (4, 4, 3, 64)) == (48, 64)


@pytest.mark.usefixtures("float64")
def test_formula():
    generator = np.random.default_rng(0)
    grads = {"a": generator.normal(size=(2, 8)), "bias": generator.normal(size=8)}
    block = sam_jax.normalize_by_fans()
    found, _ = block.update(jax.tree.map(jnp.asarray, grads), block.init(grads))
    t = {"a": 2.0, "bias": 8**0.5}
    length = np.sqrt(sum(np.sum((t[k] * g) ** 2) for k, g in grads.items()))
    for key, g in grads.items():
        np.testing.assert_allclose(found[key], t[key] ** 2 * g / length, rtol=1e-12)
    steps = sam_jax.scale_by_fans()
    scaled, _ = steps.update(jax.tree.map(jnp.asarray, grads), steps.init(grads))
    np.testing.assert_allclose(scaled["bias"], 8 * grads["bias"], rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_at_the_width_of_the_base_it_is_sam():
    grads = {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)}
    plain, scaled = sam_jax.normalize(), sam_jax.normalize_by_fans(grads)
    for key, expected in plain.update(grads, plain.init(grads))[0].items():
        found = scaled.update(grads, scaled.init(grads))[0][key]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    other = sam_jax.normalize_by_fans({"kernel": grads["kernel"]})
    with pytest.raises(sam_jax.checks.BadValue, match=r"network in another.*at 'bias'"):
        other.update(grads, other.init(grads))


def test_a_mask_may_leave_some_arrays_of_the_base_out():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    base = jax.eval_shape(lambda: params)
    block = sam_jax.normalize_by_fans(base)
    tx = sam_jax.sharpness_aware(block, mask=sam_jax.weights_mask)
    found = problems.perturbed_params(tx, params, tx.init(params), params)
    np.testing.assert_allclose(found["kernel"], np.full((2, 3), 1 + 6**-0.5), rtol=1e-6)
    np.testing.assert_array_equal(found["bias"], params["bias"])
    tx = optax.masked(sam_jax.scale_by_fans(base), {"kernel": True, "bias": False})
    scaled, _ = tx.update(params, tx.init(params))
    np.testing.assert_array_equal(scaled["kernel"], params["kernel"])


def test_layers_of_nnx_have_the_fans_of_linen():
    """Paths of an NNX state end in a ``value`` of their own."""
    layers = {
        "embed": nnx.Embed(10, 4, rngs=nnx.Rngs(0)),
        "attention": nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(0), decode=False),
    }
    state = nnx.state(layers, nnx.Param)
    pure = nnx.to_pure_dict(state)
    assert jax.tree.leaves(widths._ratios(state, None)) == jax.tree.leaves(
        widths._ratios(pure, None)
    )
    ratios = widths._ratios(pure, None)
    assert ratios["embed"]["embedding"] == 4
    for name in ("query", "key", "value"):
        assert ratios["attention"][name] == {"kernel": 1.0, "bias": 4.0}
