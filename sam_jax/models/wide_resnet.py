"""Wide residual networks (WRN): few blocks with many channels.

References:
    Zagoruyko and Komodakis, Wide residual networks, 2016, arXiv:1605.07146.
"""

from collections.abc import Callable

from flax import linen as nn

from sam_jax import errors
from sam_jax.models import checks, layers, preact


def wide_resnet(depth: int, widen: int) -> Callable[..., nn.Module]:
    """Factory of WRN-depth-widen.

    Args:
        depth: number of 3x3 convolutions plus the shortcuts that change the shape:
            6 n + 4 for three stages of n blocks, n at least 1.
        widen: factor of the channels of every stage.

    Returns:
        A factory whose option ``dropout`` is the rate of dropping between the two
        convolutions of a block, 0 <= dropout < 1. Its width, 16 if None, is the number
        of channels before widening.

    Raises:
        UserError: if no network has this depth.
    """
    checks.count("depth of a wide ResNet", depth, most=10_000)
    checks.count("widening of a wide ResNet", widen, most=1000)
    blocks, rest = divmod(depth - 4, 6)
    if blocks < 1 or rest:
        message = f"depth of a wide ResNet is {depth}: give 6 n + 4, n at least 1"
        raise errors.UserError(message)

    def factory(
        num_classes: int, width: int | None, make: layers.Layers, dropout: float = 0.0
    ) -> nn.Module:
        checks.rate("dropout", dropout)
        stem = width or 16
        return preact.PreActResNet(
            (blocks,) * 3, num_classes, stem, stem * widen, make, dropout
        )

    return factory


MODELS = {"wrn16_8": wide_resnet(16, 8), "wrn28_10": wide_resnet(28, 10)}
PATTERNS = {"wrn{depth}_{widen}": wide_resnet}
