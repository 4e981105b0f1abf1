"""Residual networks with BatchNorm and ReLU before the convolutions.

Differences from widespread code: some PreAct ResNets lack the BatchNorm and ReLU after
the last block (1,024 parameters less at width 64). He et al., Section 3, ask for them,
since nothing else normalises the last sum; they are here.

References:
    He, Zhang, Ren and Sun, Identity mappings in deep residual networks, 2016,
    arXiv:1603.05027.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from sam_jax.models import layers


class PreActBlock(nn.Module):
    """BatchNorm, ReLU and 3x3 convolution, twice, with a shortcut around them.

    Attributes:
        features: output channels.
        stride: of the first convolution.
        make: of the layers.
        dropout: rate of dropping before the second convolution.
    """

    features: int
    stride: int
    make: layers.Layers
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Features ``[batch, height, width, channels]`` to features."""
        shortcut = x
        x = nn.relu(self.make.batch_norm(train=train)(x))
        if self.stride != 1 or shortcut.shape[-1] != self.features:
            # The projection sees the normalised input; the identity, the raw one.
            shortcut = self.make.conv(self.features, 1, self.stride)(x)
        x = self.make.conv(self.features, 3, self.stride)(x)
        x = nn.relu(self.make.batch_norm(train=train)(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = self.make.conv(self.features, 3)(x)
        return x + shortcut


class PreActResNet(nn.Module):
    """3x3 convolution, stages of blocks, BatchNorm, ReLU, mean, linear head.

    Attributes:
        blocks: number of blocks of each stage.
        num_classes: number of logits.
        stem: channels of the first convolution.
        width: channels of the first stage.
        make: of the layers.
        dropout: rate inside the blocks.
    """

    blocks: tuple[int, ...]
    num_classes: int
    stem: int
    width: int
    make: layers.Layers
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Images ``[batch, height, width, channels]`` to float32 logits."""
        x = self.make.conv(self.stem, 3)(images)
        block = self.make.block(PreActBlock)
        shapes = layers.stages(self.blocks, self.width)
        for n, (features, stride) in enumerate(shapes):
            x = block(
                *(features, stride, self.make, self.dropout), name=f"PreActBlock_{n}"
            )(x, train)
        x = nn.relu(self.make.batch_norm(train=train)(x))
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return layers.head(self.num_classes)(x)


def preact_resnet18(
    num_classes: int, width: int | None, make: layers.Layers
) -> nn.Module:
    """CIFAR-style PreAct ResNet-18, 64 channels wide."""
    width = width or 64
    return PreActResNet((2, 2, 2, 2), num_classes, width, width, make)


MODELS = {"preact_resnet18": preact_resnet18}
