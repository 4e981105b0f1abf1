"""What every network promises, and what each one is known for."""

import functools
import itertools
import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sam_jax import errors, models
from sam_jax.models import layers, resnet
from sam_jax.train import environment
from tests import tiers

BATCH_NORM = tuple(
    name for name in models.names() if name != "mlp" and not name.startswith("vit")
)
# Of each kind of block one network that compiles in a second or two.
QUICK = ("mlp", "resnet_digits", "wrn10_1", "vit_ti4")
SMALL = {"vit_ti4": {"depth": 2}}
DEEPEST = ("resnet101_imagenet", "resnet152_imagenet")


def images(batch: int = 4, seed: int = 7) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (batch, 8, 8, 3))


@functools.cache
def initial(name: str):
    """Parameters and state of a small network, the same for every dtype and dropout."""
    model = models.build(name, num_classes=5, width=4, **SMALL.get(name, {}))
    return jax.jit(model.init)(jax.random.key(0), images())


@functools.cache
def quick(name: str, **settings):
    """A small network, compiled once, with its parameters and state."""
    settings = SMALL.get(name, {}) | settings
    model = models.build(name, num_classes=5, width=4, **settings)
    apply = jax.jit(model.apply, static_argnames="train")
    return models.Model(model.init, apply), *initial(name)


def leaves_equal(a, b) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


def dtypes(tree) -> set[str]:
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


# Published counts. ResNet-50, the ImageNet ones and the ViTs are also those of torch
# code in wide use; that of the PreAct ResNet is derived below.
COUNTS = {
    ("resnet18", 10): 11_173_962,
    ("resnet18", 100): 11_220_132,
    ("resnet18", 200): 11_271_432,
    ("resnet34", 10): 21_282_122,
    ("resnet34", 100): 21_328_292,
    ("resnet34", 200): 21_379_592,
    ("resnet50", 10): 23_520_842,
    ("resnet20", 10): 269_722,
    ("resnet32", 10): 464_154,
    ("wrn28_10", 10): 36_479_194,
    ("wrn28_10", 100): 36_536_884,
    ("wrn28_10", 200): 36_600_984,
    ("resnet50_imagenet", 1000): 25_557_032,
    ("resnet101_imagenet", 1000): 44_549_160,
    ("resnet152_imagenet", 1000): 60_192_808,
    ("vit_s16", 1000): 22_050_664,
    ("vit_b16", 1000): 86_567_656,
}


def count(name: str, num_classes: int, channels: int = 3, side: int = 32, **settings):
    model = models.build(name, num_classes=num_classes, **settings)
    image = jax.ShapeDtypeStruct((2, side, side, channels), jnp.float32)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), image)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(("name", "num_classes"), COUNTS)
def test_parameter_count_is_the_published_one(name, num_classes):
    # A ViT has a parameter for each patch.
    side = 224 if num_classes == 1000 else 32
    assert count(name, num_classes, side=side) == COUNTS[name, num_classes]


def test_a_stem_of_stride_two_has_every_second_pixel_of_one_of_stride_one():
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    stems = [resnet.CifarStem(4, layers.Layers("float32"), n) for n in (1, 2)]
    variables = stems[0].init(jax.random.key(1), images, False)
    whole, half = (stem.apply(variables, images, False) for stem in stems)
    np.testing.assert_allclose(half, whole[:, ::2, ::2], rtol=1e-6)
    assert count("resnet_small", 10) == count("resnet_digits", 10)


def test_a_shortcut_without_parameters_keeps_every_second_pixel_and_adds_zeros():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    kept = resnet.padded(x, 7, 2, layers.Layers("float32"), True)
    np.testing.assert_array_equal(kept[..., :3], x[:, ::2, ::2])
    np.testing.assert_array_equal(kept[..., 3:], np.zeros((2, 4, 4, 4)))


def preact_count(blocks, stem, width, num_classes):
    """Counts layer by layer: 3x3 convolutions, 1x1 shortcuts, BatchNorm (2 each)."""
    total, inputs = 27 * stem, stem
    for stage, number in enumerate(blocks):
        features = width * 2**stage
        for block in range(number):
            total += 2 * inputs + 9 * inputs * features
            total += 2 * features + 9 * features**2
            if block == 0 and (stage > 0 or inputs != features):
                total += inputs * features
            inputs = features
    return total + 2 * inputs + (inputs + 1) * num_classes


def test_parameter_count_of_preact_networks_by_arithmetic():
    # ResNet-18 has 11,173,962. Its BatchNorms hold 9,600 parameters, the PreAct
    # ones 6,784 in the blocks and 1,024 after the last one: 1,792 less.
    assert preact_count((2, 2, 2, 2), 64, 64, 10) == 11_173_962 - 1_792
    assert count("preact_resnet18", 10) == 11_173_962 - 1_792
    # The arithmetic is right where the number is published ...
    assert preact_count((4, 4, 4), 16, 160, 10) == COUNTS["wrn28_10", 10]
    # ... and names and widths outside the list follow it.
    assert count("wrn16_8", 10) == preact_count((2, 2, 2), 16, 128, 10) == 10_961_370
    assert count("wrn40_4", 10) == preact_count((6, 6, 6), 16, 64, 10)
    assert count("wrn10_3", 7, width=5) == preact_count((1, 1, 1), 5, 15, 7)


def test_parameter_count_of_the_mlp_by_arithmetic():
    hidden = (64 + 1) * 512 + (512 + 1) * 512
    assert count("mlp", 10, channels=1, side=8) == hidden + (512 + 1) * 10
    assert count("mlp", 10, channels=1, side=8, depth=0) == (64 + 1) * 10


@pytest.mark.parametrize(
    ("name", "dtype"),
    tiers.cases(
        [
            (name, dtype)
            for name in models.names()
            for dtype in (models.DTYPES if name in QUICK else ["float32"])
            if name not in DEEPEST
        ],
        itertools.product(models.names(), models.DTYPES),
        "traces up to 152 layers, five times",
    ),
)
def test_shapes_and_dtypes(name, dtype):
    model = models.build(name, num_classes=5, width=2, dtype=dtype)
    image = jax.ShapeDtypeStruct((3, 16, 16, 1), jnp.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), image)
    assert dtypes((params, state)) == {"float32"}
    assert list(state) == (["batch_stats"] if name in BATCH_NORM else [])

    def both(params, state, images):
        trained = model.apply(params, state, images, train=True, key=jax.random.key(0))
        return trained, model.apply(params, state, images, train=False)

    for logits, new_state in jax.eval_shape(both, params, state, image):
        assert (logits.shape, logits.dtype) == ((3, 5), jnp.float32)
        assert new_state == state


@pytest.mark.parametrize("name", BATCH_NORM)
def test_width_is_that_of_the_first_stage(name):
    model = models.build(name, num_classes=5, width=6)
    image = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), image)
    stem = params.get("Conv_0") or next(
        params[stem]["Conv_0"] for stem in params if stem.endswith("Stem_0")
    )
    assert stem["kernel"].shape[-1] == 6


def test_compute_dtype_is_that_asked_for():
    model = models.build("resnet_digits", num_classes=5, width=2, dtype="bfloat16")
    image = jax.ShapeDtypeStruct((3, 8, 8, 1), jnp.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), image)
    apply = jax.jit(lambda *args: model.apply(*args, train=True))
    lowered = apply.lower(params, state, image).as_text()
    results = re.findall(r"stablehlo\.convolution.* -> tensor<[\dx]+x(\w+)>", lowered)
    assert results == ["bf16"] * 9


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "float32") for name in QUICK]
    + [("resnet_digits", "bfloat16"), ("resnet_digits", "float16")],
)
def test_gradient_is_finite_and_reaches_every_parameter(name, dtype):
    model, params, state = quick(name, dtype=dtype)

    def loss(params):
        logits, _ = model.apply(params, state, images(), train=True)
        return -jax.nn.log_softmax(logits)[:, 0].mean()

    gradient = jax.jit(jax.grad(loss))(params)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert leaf.dtype == jnp.float32, path
        assert jnp.isfinite(leaf).all(), path
        assert jnp.abs(leaf).max() > 0, path


def test_bfloat16_is_near_float32():
    model, params, state = quick("resnet_digits")
    half, _, _ = quick("resnet_digits", dtype="bfloat16")
    logits, _ = model.apply(params, state, images(), train=False)
    approximate, _ = half.apply(params, state, images(), train=False)
    np.testing.assert_allclose(
        approximate, logits, atol=0.03 * float(jnp.abs(logits).max())
    )
    assert (approximate != logits).any()


@pytest.mark.parametrize("name", ["resnet_digits", "wrn10_1"])
def test_training_moves_the_running_statistics_by_a_tenth(name):
    model, params, state = quick(name)
    _, new_state = model.apply(params, state, images(), train=True)
    # The first BatchNorm follows (ResNet) or is fed by (PreAct) the first convolution.
    first = {
        "resnet_digits": ("CifarStem_0", "BatchNorm_0"),
        "wrn10_1": ("PreActBlock_0", "BatchNorm_0"),
    }[name]
    stats = new_state["batch_stats"][first[0]][first[1]]
    kernel = (params if name == "wrn10_1" else params[first[0]])["Conv_0"]["kernel"]
    features = jax.lax.conv_general_dilated(
        images(), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    mean, var = features.mean((0, 1, 2)), features.var((0, 1, 2))
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-4)
    changed = jax.tree.map(lambda old, new: bool((old != new).any()), state, new_state)
    assert jax.tree.all(changed)


@pytest.mark.parametrize("name", QUICK)
def test_evaluation_keeps_the_state_and_looks_at_each_example_alone(name):
    model, params, state = quick(name)
    _, state = model.apply(params, state, images(seed=1), train=True)
    logits, new_state = model.apply(params, state, images(), train=False)
    assert leaves_equal(state, new_state)
    others = images(seed=2).at[0].set(images()[0])
    logits_of_others, _ = model.apply(params, state, others, train=False)
    np.testing.assert_allclose(logits_of_others[0], logits[0], rtol=1e-5)
    assert (logits_of_others[1:] != logits[1:]).all()


def test_training_normalises_by_the_whole_batch():
    model, params, state = quick("resnet_digits")
    others = images(seed=2).at[0].set(images()[0])
    logits, _ = model.apply(params, state, images(), train=True)
    logits_of_others, _ = model.apply(params, state, others, train=True)
    assert jnp.abs(logits_of_others[0] - logits[0]).max() > 1e-3


@pytest.mark.parametrize("name", ["wrn10_1", "vit_ti4"])
def test_dropout_follows_its_key_in_training_only(name):
    model, params, state = quick(name, dropout=0.5)

    def train(seed):
        key = jax.random.key(seed)
        return model.apply(params, state, images(), train=True, key=key)[0]

    assert leaves_equal(train(0), train(0))
    assert not leaves_equal(train(0), train(1))
    plain, _, _ = quick(name)
    evaluated, _ = model.apply(params, state, images(), train=False)
    assert leaves_equal(evaluated, plain.apply(params, state, images(), train=False)[0])


def test_without_dropout_the_key_changes_nothing():
    model, params, state = quick("wrn10_1")
    keyed = model.apply(params, state, images(), train=True, key=jax.random.key(3))
    assert leaves_equal(keyed, model.apply(params, state, images(), train=True))


def test_initialisation_depends_on_the_key_and_the_shape_of_the_images_alone():
    model, params, state = quick("resnet_digits")
    shape = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    init = jax.jit(lambda key: model.init(key, shape))
    assert leaves_equal(init(jax.random.key(0)), (params, state))
    assert not leaves_equal(init(jax.random.key(1)), (params, state))


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (6, 4)])
def test_flat_draws_are_those_of_variance_scaling(mode, shape):
    ours = layers.scaled_normal(2.0, mode)(jax.random.key(3), shape, jnp.float32)
    made = nn.initializers.variance_scaling(2.0, mode, "normal")
    theirs = made(jax.random.key(3), shape, jnp.float32)
    # To the bit with jax 0.10; others round two products differently.
    np.testing.assert_array_max_ulp(ours, theirs, 0 if environment.is_tested() else 2)


def test_convolutions_start_he_normal_over_their_outputs_and_biases_zero():
    model = models.build("resnet_digits", num_classes=5, width=32)
    shape = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)

    @jax.jit
    def init(key):
        params, _ = model.init(key, shape)
        # 3 x 3, 32 -> 64
        return params["Block_1"]["Conv_0"]["kernel"], params["Dense_0"]["bias"]

    kernel, bias = init(jax.random.key(0))
    # 18,432 draws: the standard deviation is known to 0.5 % (one sigma).
    np.testing.assert_allclose(kernel.std(), math.sqrt(2 / (9 * 64)), rtol=0.03)
    assert (bias == 0).all()


def test_imagenet_blocks_start_with_a_last_scale_of_zero():
    model = models.build("resnet50_imagenet", num_classes=5, width=2)
    shape = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)

    @jax.jit
    def scales(key):
        params, _ = model.init(key, shape)
        blocks = [params[name] for name in params if name.startswith("Block")]
        return [
            [block[f"BatchNorm_{i}"]["scale"] for i in range(3)] for block in blocks
        ]

    blocks = scales(jax.random.key(0))
    assert len(blocks) == 16
    for first, second, last in blocks:
        assert (first == 1).all()
        assert (second == 1).all()
        assert (last == 0).all()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet81", {}, "unknown model 'resnet81': did you mean 'resnet18'?"),
        ("wrn28", {}, "wrn{depth}_{widen}"),
        ("wrn27_10", {}, "depth of a wide ResNet is 27: give 6 n + 4"),
        ("wrn4_1", {}, "depth of a wide ResNet is 4"),
        ("resnet18", {"dropout": 0.1}, "unknown option of model 'resnet18' 'dropout'"),
        ("wrn10_1", {"droput": 0.1}, "did you mean 'dropout'?"),
        ("wrn10_1", {"dropout": 1}, "dropout is 1: give a number in [0, 1)"),
        ("wrn10_1", {"dropout": "a"}, "dropout is 'a'"),
        ("vit_s16", {"dropout": 1}, "dropout is 1: give a number in [0, 1)"),
        ("vit_s16", {"depth": 0}, "depth is 0: give an integer in [1, 1000]"),
        ("vit_s16", {"width": 100}, "width of a ViT is 100: give a multiple of 64"),
        ("mlp", {"depth": -1}, "depth is -1: give an integer in [0, 1000]"),
        ("mlp", {"width": 0}, "width is 0: give an integer in [1, 65536]"),
        ("mlp", {"width": 1.5}, "width is 1.5"),
        ("mlp", {"num_classes": 0}, "num_classes is 0"),
        ("mlp", {"dtype": "bfloat15"}, "did you mean 'bfloat16'?"),
        ("mlp", {"dtype": "float64"}, "unknown dtype 'float64'"),
    ],
)
def test_mistakes_are_answered_in_one_line(name, settings, message):
    with pytest.raises(errors.UserError) as error:
        models.build(name, **{"num_classes": 10, **settings})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_vit_refuses_images_that_do_not_divide_into_patches():
    model = models.build("vit_ti5", num_classes=3, width=4)
    with pytest.raises(errors.UserError, match="8x8 pixels do not divide into patches"):
        model.init(jax.random.key(0), images())


def test_vit_sees_where_a_patch_is():
    model, params, state = quick("vit_ti4")
    other = images().at[:, :4].set(images()[:, 4:]).at[:, 4:].set(images()[:, :4])
    logits, swapped = (
        model.apply(params, state, x, train=False)[0] for x in (images(), other)
    )
    assert jnp.abs(logits - swapped).max() > 1e-4
    alike = {**params, "positions": jnp.zeros_like(params["positions"])}
    logits, swapped = (
        model.apply(alike, state, x, train=False)[0] for x in (images(), other)
    )
    np.testing.assert_allclose(swapped, logits, rtol=1e-5, atol=1e-6)


def test_a_new_file_is_a_new_family(tmp_path, monkeypatch):
    (tmp_path / "family_of_test.py").write_text(
        "import jax.numpy as jnp\n"
        "from flax import linen as nn\n"
        "class Constant(nn.Module):\n"
        "    num_classes: int\n"
        "    @nn.compact\n"
        "    def __call__(self, images, train):\n"
        "        bias = self.param('bias', nn.initializers.ones, [self.num_classes])\n"
        "        return jnp.tile(bias, [len(images), 1])\n"
        "def constant(num_classes, width, make, times=1):\n"
        "    return Constant(num_classes * times)\n"
        "MODELS = {'constant': constant}\n"
        "PATTERNS = {'constant{n}x': lambda n:\n"
        "    lambda num_classes, width, make: Constant(num_classes * n)}\n"
    )
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    assert "constant" in models.names()
    for name, options in [("constant", {"times": 3}), ("constant3x", {})]:
        model = models.build(name, num_classes=2, **options)
        params, state = model.init(jax.random.key(0), images())
        logits, _ = model.apply(params, state, images(), train=True)
        assert logits.shape == (4, 6)
    with pytest.raises(errors.UserError, match="did you mean 'times'"):
        models.build("constant", num_classes=2, time=3)
    del sys.modules["sam_jax.models.family_of_test"]
