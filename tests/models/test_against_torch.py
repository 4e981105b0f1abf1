"""The networks against the same ones written with torch's own functions."""

import jax
import numpy as np
import pytest

from sam_jax import models

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.peers, pytest.mark.slow("compiles large networks")]


def to_torch(tree):
    """Flax leaves as float64 tensors, the exact side; kernels from HWIO to OIHW.

    No other leaf has four dimensions.
    """

    def convert(leaf):
        leaf = np.asarray(leaf, np.float64)
        leaf = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf
        return torch.tensor(leaf, requires_grad=True)

    return jax.tree.map(convert, tree)


class Torch:
    """Layers with copied weights; collects what BatchNorm's statistics become."""

    def __init__(self, params, stats, train):
        self.params, self.train = params, train
        self.stats = jax.tree.map(lambda leaf: leaf.detach().clone(), stats)

    def conv(self, x, *path, stride=1):
        kernel = self.at(self.params, *path)["kernel"]
        padding = kernel.shape[-1] // 2
        return torch.nn.functional.conv2d(x, kernel, stride=stride, padding=padding)

    def norm(self, x, *path):
        stats, params = self.at(self.stats, *path), self.at(self.params, *path)
        before = stats["var"].clone()
        x = torch.nn.functional.batch_norm(
            *(x, stats["mean"], stats["var"], params["scale"], params["bias"]),
            *(self.train, 0.1, 1e-5),
        )
        if self.train:  # torch collects the variance divided by n - 1, not by n
            n = x.numel() / x.shape[1]
            stats["var"] = 0.9 * before + (stats["var"] - 0.9 * before) * (n - 1) / n
        return x

    def head(self, x):
        return self.linear(x.mean((2, 3)))

    def linear(self, x):
        dense = self.params["Dense_0"]
        return x @ dense["kernel"] + dense["bias"]

    @staticmethod
    def at(tree, *path):
        for name in path:
            tree = tree[name]
        return tree


def resnet18(net, x):
    x = torch.relu(
        net.norm(net.conv(x, "CifarStem_0", "Conv_0"), "CifarStem_0", "BatchNorm_0")
    )
    for block in range(8):
        name, stride = f"Block_{block}", 2 if block in (2, 4, 6) else 1
        y = net.norm(net.conv(x, name, "Conv_0", stride=stride), name, "BatchNorm_0")
        y = net.norm(net.conv(torch.relu(y), name, "Conv_1"), name, "BatchNorm_1")
        if stride == 2:
            x = net.norm(net.conv(x, name, "Conv_2", stride=2), name, "BatchNorm_2")
        x = torch.relu(x + y)
    return net.head(x)


def resnet50_imagenet(net, x):
    x = net.conv(x, "ImageNetStem_0", "Conv_0", stride=2)
    x = torch.relu(net.norm(x, "ImageNetStem_0", "BatchNorm_0"))
    x = torch.nn.functional.max_pool2d(x, 3, 2, 1)
    for block in range(16):
        name, stride = f"Block_{block}", 2 if block in (3, 7, 13) else 1
        y = torch.relu(net.norm(net.conv(x, name, "Conv_0"), name, "BatchNorm_0"))
        y = net.norm(net.conv(y, name, "Conv_1", stride=stride), name, "BatchNorm_1")
        y = net.norm(net.conv(torch.relu(y), name, "Conv_2"), name, "BatchNorm_2")
        if block in (0, 3, 7, 13):
            x = net.norm(
                net.conv(x, name, "Conv_3", stride=stride), name, "BatchNorm_3"
            )
        x = torch.relu(x + y)
    return net.head(x)


def wrn16_2(net, x):
    x = net.conv(x, "Conv_0")
    for block in range(6):
        name, stride = f"PreActBlock_{block}", 2 if block in (2, 4) else 1
        y = torch.relu(net.norm(x, name, "BatchNorm_0"))
        if block in (0, 2, 4):  # the shortcut's convolution is the first one made
            x = net.conv(y, name, "Conv_0", stride=stride)
            first, second = "Conv_1", "Conv_2"
        else:
            first, second = "Conv_0", "Conv_1"
        y = net.norm(net.conv(y, name, first, stride=stride), name, "BatchNorm_1")
        x = x + net.conv(torch.relu(y), name, second)
    return net.head(torch.relu(net.norm(x, "BatchNorm_0")))


def vit_s8(net, x):
    def normed(x, *path):
        params = net.at(net.params, *path)
        scale, bias = params["scale"], params["bias"]
        return torch.nn.functional.layer_norm(x, scale.shape, scale, bias, 1e-6)

    def attention(x, params):
        query, key, value = (
            torch.einsum("btc,chd->bhtd", x, params[name]["kernel"])
            + params[name]["bias"][:, None]
            for name in ("query", "key", "value")
        )
        y = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        y = torch.einsum("bhtd,hdc->btc", y, params["out"]["kernel"])
        return y + params["out"]["bias"]

    patches = net.params["Conv_0"]
    x = torch.nn.functional.conv2d(x, patches["kernel"], patches["bias"], stride=8)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([net.params["token"].expand(len(x), 1, -1), x], 1)
    x = x + net.params["positions"]
    for block in range(2):
        name = f"EncoderBlock_{block}"
        params = net.params[name]
        y = normed(x, name, "LayerNorm_0")
        x = x + attention(y, params["MultiHeadDotProductAttention_0"])
        y = normed(x, name, "LayerNorm_1") @ params["Dense_0"]["kernel"]
        y = torch.nn.functional.gelu(y + params["Dense_0"]["bias"])
        x = x + y @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
    return net.linear(normed(x[:, 0], "LayerNorm_0"))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("peer", "side"),
    [(resnet18, 16), (wrn16_2, 12), (resnet50_imagenet, 64), (vit_s8, 16)],
)
def test_logits_statistics_and_gradient_are_those_of_torch(peer, side, train):
    # 128: two heads of a ViT.
    settings = {"width": 128, "depth": 2} if peer is vit_s8 else {"width": 4}
    model = models.build(peer.__name__, num_classes=3, **settings)
    images = np.random.default_rng(0).normal(size=(4, side, side, 3)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    params, state = jax.tree.map(random_like(np.random.default_rng(1)), shapes)

    def loss(params):
        logits, new_state = model.apply(params, state, images, train=train)
        return logits[:, 0].sum(), (logits, new_state)

    grads, (logits, new_state) = jax.jit(jax.grad(loss, has_aux=True))(params)

    net = Torch(to_torch(params), to_torch(state.get("batch_stats", {})), train)
    expected = peer(
        net, torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float64)
    )
    expected[:, 0].sum().backward()
    expected_grads = jax.tree.map(lambda leaf: leaf.grad, net.params)

    close(logits, expected)
    jax.tree.map(close, new_state.get("batch_stats", {}), net.stats)
    jax.tree.map(close, grads, expected_grads)


def random_like(rng):
    """Positive values for one-dimensional leaves: scales, variances and the rest."""

    def draw(leaf):
        if len(leaf.shape) == 1:
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1])
        return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    return draw


def close(ours, theirs):
    theirs = theirs.detach().numpy()
    theirs = theirs.transpose(2, 3, 1, 0) if theirs.ndim == 4 else theirs
    scale = np.abs(theirs).max()
    # Some gradients are zero in exact numbers, hence the floor.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * scale + 1e-5)
