"""Files of timm, torchvision, transformers and the ImageNet ViTs: the same logits."""

import types
from unittest import mock

import jax
import numpy as np
import pytest

from sam_jax.train import build, export, settings, start
from tests.train import runs

pytestmark = [pytest.mark.peers, pytest.mark.slow("imports other libraries")]

CLASSES = 7


@pytest.fixture(scope="module")
def torch():
    found = pytest.importorskip("torch", reason="pip install -r requirements-peers.txt")
    # Of a torchvision for GPUs the operators cannot be loaded; no network needs them.
    nothing = mock.patch.object(found.library, "register_fake", lambda _: lambda f: f)
    with nothing:
        pytest.importorskip(
            "torchvision", reason="pip install -r requirements-peers.txt"
        )
    return found


@pytest.fixture
def peer(torch):
    """``peer(library, name, side)``: a network of theirs with random weights."""

    def make(library, name, side):
        torch.manual_seed(0)
        reason = "pip install -r requirements-peers.txt"
        if library in ("timm", "vision_transformer"):
            timm = pytest.importorskip("timm", reason=reason)
            sized = {"img_size": side} if name.startswith("vit") else {}
            net = timm.create_model(name, num_classes=CLASSES, **sized)
        elif library == "torchvision":
            torchvision = pytest.importorskip("torchvision")
            sized = {"image_size": side} if name.startswith("vit") else {}
            net = torchvision.models.get_model(name, num_classes=CLASSES, **sized)
        else:
            hf = pytest.importorskip("transformers", reason=reason)
            kind, options = HF[name]
            sized = {"image_size": side} if kind == "ViT" else {}
            config = getattr(hf, f"{kind}Config")(
                num_labels=CLASSES, **options, **sized
            )
            net = getattr(hf, f"{kind}ForImageClassification")(config)
        with torch.no_grad():
            for key, x in net.state_dict().items():
                if x.ndim == 1 and x.is_floating_point():  # statistics among them
                    x.uniform_(0.7, 1.3) if "bias" not in key else x.uniform_(-1, 1)
                elif x.ndim == 3:  # the token, the positions
                    x.normal_()
        return net.eval()

    return make


HF = {
    "resnet-18": ("ResNet", {"layer_type": "basic", "depths": [2, 2, 2, 2]}),
    "resnet-50": ("ResNet", {}),
    "vit-base": ("ViT", {}),
}
HF["resnet-18"][1]["hidden_sizes"] = [64, 128, 256, 512]


def begun(init_from, network, side, **options):
    """The network, and its weights, from a file."""
    config = settings.read(
        {
            "init_from": init_from,
            "model": {"name": network, "options": options},
            "data": {"name": "digits"},
            "mesh": {"data": 1},
        }
    )
    made = build.steps(config, build.DataSpec((side, side, 3), CLASSES, 100, 5))
    dataset = types.SimpleNamespace(class_names=("a",) * CLASSES)
    found = start.of(build.Run(**vars(made), dataset=dataset))
    return config, found


def logits(config, found, images):
    from sam_jax.train import network

    model = network.network(config, CLASSES)
    apply = jax.jit(lambda *weights: model.apply(*weights, images, train=False)[0])
    return np.asarray(apply(*found.given))


def images(side):
    return np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)


def theirs(torch, net, images):
    with torch.no_grad():
        found = net(torch.tensor(images.transpose(0, 3, 1, 2)))
    return getattr(found, "logits", found).numpy()


def close(found, expected):
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


SMALL = "vit_small_patch16_224"


@pytest.mark.parametrize(
    ("library", "name", "network", "options"),
    [
        ("timm", "resnet18", "resnet18_imagenet", {}),
        ("timm", "resnet50", "resnet50_imagenet", {}),
        ("timm", SMALL, "vit_s16", {}),
        ("torchvision", "resnet18", "resnet18_imagenet", {}),
        ("torchvision", "resnet50", "resnet50_imagenet", {}),
        ("torchvision", "vit_b_16", "vit_b16", {}),
        ("hf", "resnet-18", "resnet18_imagenet", {}),
        ("hf", "resnet-50", "resnet50_imagenet", {}),
        ("hf", "vit-base", "vit_b16", {"norm_eps": 1e-12}),
    ],
)
def test_the_logits_are_theirs(torch, peer, tmp_path, library, name, network, options):
    save = pytest.importorskip("safetensors.torch").save_file
    side = 48 if name.startswith("vit") else 64
    net = peer(library, name, side)
    path = tmp_path / "model.safetensors"
    if library == "hf":
        net.save_pretrained(tmp_path)
    else:
        save(net.state_dict(), path)
    known = "" if "base" in name and library == "hf" else f"{name}@"
    config, found = begun(f"{library}:{known}{path}", network, side, **options)
    assert found.fresh == {} and found.left == [] and found.remarks == []
    close(logits(config, found, images(side)), theirs(torch, net, images(side)))


@pytest.mark.parametrize("network", ["resnet18_imagenet", "vit_s16"])
def test_timm_reads_what_is_exported_to_it(torch, peer, tmp_path, network):
    load = pytest.importorskip("safetensors.torch").load_file
    side = 48 if network == "vit_s16" else 64
    options = {"model": {"name": network}, "data": {"name": "digits"}}
    rng = np.random.default_rng(0)

    def draw(leaf):
        if len(leaf.shape) == 1:
            return rng.uniform(0.7, 1.3, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1])
        return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    run = runs.untrained(
        *(settings.read(options), tmp_path, (side, side, 3)),
        names=tuple("abcdefg"),
        draw=draw,
    )
    path = export.export(run, "timm", tmp_path / "x.safetensors")
    net = peer("timm", {"vit_s16": SMALL}.get(network, "resnet18"), side)
    net.load_state_dict(load(path))
    apply = jax.jit(
        lambda x: run.model.apply(run.params, run.model_state, x, train=False)
    )
    close(apply(images(side))[0], theirs(torch, net, images(side)))


@pytest.mark.parametrize("side", [48, 80])
def test_the_npz_of_the_imagenet_vits(torch, peer, tmp_path, side):
    """timm has a reader of these files, and interpolates the positions of its own."""
    vision_transformer = pytest.importorskip("timm.models.vision_transformer")
    rng = np.random.default_rng(0)

    def drawn(*shape):
        return (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)

    width, heads, blocks = 384, 6, "Transformer/encoderblock_{}/"
    arrays = {
        "cls": drawn(1, 1, width),
        "Transformer/posembed_input/pos_embedding": drawn(1, 1 + 9, width),
        "embedding/kernel": drawn(16, 16, 3, width) / 9,
        "embedding/bias": drawn(width),
        "head/kernel": drawn(width, CLASSES),
        "head/bias": drawn(CLASSES),
    }
    norms = ["Transformer/encoder_norm"]
    for block in map(blocks.format, range(12)):
        attention = f"{block}MultiHeadDotProductAttention_1/"
        for name in ("query", "key", "value"):
            arrays[f"{attention}{name}/kernel"] = drawn(width, heads, 64)
            arrays[f"{attention}{name}/bias"] = drawn(heads, 64)
        arrays[f"{attention}out/kernel"] = drawn(heads, 64, width) / 8
        arrays[f"{attention}out/bias"] = drawn(width)
        for n, (inputs, outputs) in enumerate([(width, 1536), (1536, width)]):
            arrays[f"{block}MlpBlock_3/Dense_{n}/kernel"] = drawn(inputs, outputs)
            arrays[f"{block}MlpBlock_3/Dense_{n}/bias"] = drawn(outputs)
        norms += [f"{block}LayerNorm_0", f"{block}LayerNorm_2"]
    for norm in norms:
        arrays[f"{norm}/scale"], arrays[f"{norm}/bias"] = 1 + drawn(width), drawn(width)
    path = tmp_path / "S_16.npz"
    np.savez(path, **arrays)

    net = peer("vision_transformer", SMALL, 48)
    net.load_pretrained(str(path))
    if side != 48:
        arrays, net = net.state_dict(), peer("vision_transformer", SMALL, side)
        net.load_state_dict(vision_transformer.checkpoint_filter_fn(arrays, net))
    init_from = f"vision_transformer:{path}"
    config, found = begun(init_from, "vit_s16", side)
    assert found.fresh == {} and found.left == []
    assert found.resized == ["params.positions"] * (side != 48)
    assert "config.model.options.gelu=tanh computes" in found.remarks[0]
    exact = logits(config, found, images(side))
    close(exact, theirs(torch, net, images(side)))
    # The published networks have the tanh.
    for layer in net.modules():
        if isinstance(layer, torch.nn.GELU):
            layer.approximate = "tanh"
    config, found = begun(init_from, "vit_s16", side, gelu="tanh")
    assert found.remarks == []
    approximate = logits(config, found, images(side))
    close(approximate, theirs(torch, net, images(side)))
    assert np.abs(exact - approximate).max() > 1e-4
