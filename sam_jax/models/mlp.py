"""Multilayer perceptron: the smallest network, without BatchNorm or blocks."""

import jax
from flax import linen as nn

from sam_jax.models import checks, layers


class MLP(nn.Module):
    """Hidden layers with ReLU on the flattened image, then a linear head.

    Hidden layers start He normal over their inputs, the head LeCun normal; biases zero.

    Attributes:
        depth: number of hidden layers; 0 is logistic regression.
        num_classes: number of logits.
        width: units of a hidden layer.
        make: of the layers; only its dtype is used.
    """

    depth: int
    num_classes: int
    width: int
    make: layers.Layers

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Images ``[batch, ...]`` to float32 logits ``[batch, num_classes]``."""
        del train
        x = images.reshape(images.shape[0], -1)
        he_normal = layers.scaled_normal(2.0, "fan_in")
        for _ in range(self.depth):
            x = nn.Dense(self.width, kernel_init=he_normal, dtype=self.make.dtype)(x)
            x = nn.relu(x)
        return layers.head(self.num_classes)(x)


def mlp(
    num_classes: int, width: int | None, make: layers.Layers, depth: int = 2
) -> nn.Module:
    """MLP of ``depth`` hidden layers, 512 units each."""
    checks.count("depth", depth, least=0, most=1000)
    return MLP(depth, num_classes, width or 512, make)


MODELS = {"mlp": mlp}
