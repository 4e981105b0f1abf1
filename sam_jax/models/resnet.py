"""Residual networks with BatchNorm and ReLU after the convolutions (ResNet).

The CIFAR-style networks of the sharpness-aware papers keep the four stages of the
ImageNet ones, but begin with a 3x3 convolution and no pooling, for images of 32x32.
ResNet-20 and ResNet-32 are the narrower CIFAR networks of He et al., Section 4.2.

References:
    He, Zhang, Ren and Sun, Deep residual learning for image recognition, 2015,
    arXiv:1512.03385.
    Goyal et al., Accurate, large minibatch SGD, 2017, arXiv:1706.02677 (last scales of
    blocks start at zero, so that a block starts as the identity).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sam_jax.models import layers


class Convolution(NamedTuple):
    """Shape of one convolution of a block."""

    kernel: int
    features: int
    stride: int = 1


BlockPlan = Callable[[int, int], tuple[Convolution, ...]]
Shortcut = Callable[[jax.Array, int, int, layers.Layers, bool], jax.Array]


def basic(features: int, stride: int) -> tuple[Convolution, ...]:
    """The two convolutions of a basic block (He et al., Figure 5 left)."""
    return Convolution(3, features, stride), Convolution(3, features)


def bottleneck(features: int, stride: int) -> tuple[Convolution, ...]:
    """The three convolutions of a bottleneck block (He et al., Figure 5 right).

    The stride is that of the 3x3 convolution ("v1.5"), not of the first 1x1 one as in
    the paper: so no pixel is skipped, and today's ResNet-50 numbers have it.
    """
    return (
        Convolution(1, features),
        Convolution(3, features, stride),
        Convolution(1, 4 * features),
    )


def projected(
    x: jax.Array, features: int, stride: int, make: layers.Layers, train: bool
) -> jax.Array:
    """1x1 convolution to the shape of a block's result (He et al., option B)."""
    return make.batch_norm(train=train)(make.conv(features, 1, stride)(x))


def padded(
    x: jax.Array, features: int, stride: int, make: layers.Layers, train: bool
) -> jax.Array:
    """Every ``stride``-th pixel, then channels of zeros (He et al., option A)."""
    del make, train  # it has no layers
    more = features - x.shape[-1]
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, more)))


class Block(nn.Module):
    """Convolutions with a shortcut around them.

    Attributes:
        convolutions: first to last; BatchNorm follows each, ReLU all but the last.
        stride: of the whole block.
        make: of the layers.
        last_scale: initial scale of the last BatchNorm.
        shortcut: where the block changes the shape.
    """

    convolutions: tuple[Convolution, ...]
    stride: int
    make: layers.Layers
    last_scale: nn.initializers.Initializer
    shortcut: Shortcut = projected

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Features ``[batch, height, width, channels]`` to features."""
        *inner, last = self.convolutions
        shortcut = x
        for kernel, features, stride in inner:
            x = self.make.conv(features, kernel, stride)(x)
            x = nn.relu(self.make.batch_norm(train=train)(x))
        x = self.make.conv(last.features, last.kernel, last.stride)(x)
        x = self.make.batch_norm(train=train, scale_init=self.last_scale)(x)
        if self.stride != 1 or shortcut.shape[-1] != last.features:
            shape = last.features, self.stride
            shortcut = self.shortcut(shortcut, *shape, self.make, train)
        return nn.relu(x + shortcut)


class CifarStem(nn.Module):
    """3x3 convolution: keeps all pixels of a small image, with a stride of 1."""

    features: int
    make: layers.Layers
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images to features of the same height and width, or half of them."""
        x = self.make.conv(self.features, 3, self.stride)(x)
        return nn.relu(self.make.batch_norm(train=train)(x))


class ImageNetStem(nn.Module):
    """7x7 convolution of stride 2, then 3x3 max-pool of stride 2."""

    features: int
    make: layers.Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images to features of a quarter of the height and width."""
        x = self.make.conv(self.features, 7, 2)(x)
        x = nn.relu(self.make.batch_norm(train=train)(x))
        # Padded with -inf, not zeros, so that the border is exact for any input.
        return nn.pool(x, -jnp.inf, jax.lax.max, (3, 3), (2, 2), ((1, 1), (1, 1)))


class ResNet(nn.Module):
    """Stem, stages of blocks, mean over the pixels, linear head.

    Attributes:
        blocks: number of blocks of each stage.
        num_classes: number of logits.
        width: channels of the first stage.
        make: of the layers.
        plan: convolutions of a block from its features and stride.
        stem: what makes ``width`` channels of the image.
        last_scale: initial scale of the last BatchNorm of each block.
        shortcut: of the blocks that change the shape.
    """

    blocks: tuple[int, ...]
    num_classes: int
    width: int
    make: layers.Layers
    plan: BlockPlan = basic
    stem: Callable[..., nn.Module] = CifarStem
    last_scale: nn.initializers.Initializer = nn.initializers.ones
    shortcut: Shortcut = projected

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Images ``[batch, height, width, channels]`` to float32 logits."""
        x = self.stem(self.width, self.make)(images, train)
        block = self.make.block(Block)
        shapes = layers.stages(self.blocks, self.width)
        for n, (features, stride) in enumerate(shapes):
            convolutions = self.plan(features, stride)
            settings = convolutions, stride, self.make, self.last_scale, self.shortcut
            x = block(*settings, name=f"Block_{n}")(x, train)
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return layers.head(self.num_classes)(x)


def resnet18(num_classes: int, width: int | None, make: layers.Layers) -> nn.Module:
    """CIFAR-style ResNet-18, 64 channels wide."""
    return ResNet((2, 2, 2, 2), num_classes, width or 64, make)


def resnet34(num_classes: int, width: int | None, make: layers.Layers) -> nn.Module:
    """CIFAR-style ResNet-34, 64 channels wide."""
    return ResNet((3, 4, 6, 3), num_classes, width or 64, make)


def resnet50(num_classes: int, width: int | None, make: layers.Layers) -> nn.Module:
    """CIFAR-style ResNet-50, 64 channels wide (256 after the first stage)."""
    return ResNet((3, 4, 6, 3), num_classes, width or 64, make, bottleneck)


def narrow(blocks: int) -> Callable[..., nn.Module]:
    """ResNet-(6 n + 2) of He et al., Section 4.2: three stages of n basic blocks.

    16 channels wide, shortcuts without parameters.
    """

    def factory(num_classes: int, width: int | None, make: layers.Layers) -> nn.Module:
        return ResNet((blocks,) * 3, num_classes, width or 16, make, shortcut=padded)

    return factory


def imagenet(*blocks: int, plan: BlockPlan = bottleneck) -> Callable[..., nn.Module]:
    """Networks for images of 224x224, as published (He et al., Table 1), v1.5."""

    def factory(num_classes: int, width: int | None, make: layers.Layers) -> nn.Module:
        return ResNet(
            blocks,
            num_classes,
            width or 64,
            make,
            plan=plan,
            stem=ImageNetStem,
            last_scale=nn.initializers.zeros,
        )

    return factory


def resnet_digits(
    num_classes: int, width: int | None, make: layers.Layers
) -> nn.Module:
    """Three basic blocks, 16 channels wide: for the 8x8 digits, seconds on a CPU."""
    return ResNet((1, 1, 1), num_classes, width or 16, make)


def resnet_small(num_classes: int, width: int | None, make: layers.Layers) -> nn.Module:
    """Three basic blocks behind a stem of stride 2, 16 channels wide.

    For images of 32x32, half a minute of training on a CPU core.
    """
    stem = functools.partial(CifarStem, stride=2)
    return ResNet((1, 1, 1), num_classes, width or 16, make, stem=stem)


MODELS = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet20": narrow(3),
    "resnet32": narrow(5),
    "resnet18_imagenet": imagenet(2, 2, 2, 2, plan=basic),
    "resnet34_imagenet": imagenet(3, 4, 6, 3, plan=basic),
    "resnet50_imagenet": imagenet(3, 4, 6, 3),
    "resnet101_imagenet": imagenet(3, 4, 23, 3),
    "resnet152_imagenet": imagenet(3, 8, 36, 3),
    "resnet_digits": resnet_digits,
    "resnet_small": resnet_small,
}
