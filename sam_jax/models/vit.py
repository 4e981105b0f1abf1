"""Vision transformers (ViT): patches as tokens, attention among them.

The image is cut into square patches; each becomes a token, an extra one before them
gathers what the linear head sees. Blocks normalise before attention and before their
two-layer network (GELU, four times as wide), as published. There is no BatchNorm, so
``norm_axis`` has nothing to do.

References:
    Dosovitskiy et al., An image is worth 16x16 words, 2021, arXiv:2010.11929.
    Touvron et al., Training data-efficient image transformers, 2021, arXiv:2012.12877
    (the sizes Ti and S).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from sam_jax import errors
from sam_jax.models import checks, layers

HEAD = 64  # channels of an attention head, in every published size
_GLOROT = nn.initializers.xavier_uniform()


class EncoderBlock(nn.Module):
    """Attention among the tokens, then a network on each, both with a shortcut.

    Attributes:
        make: of the layers.
        dropout: rate, before each shortcut.
        norm_eps: added to the variance in LayerNorm.
        tanh: whether GELU is its approximation by a tanh.
    """

    make: layers.Layers
    dropout: float
    norm_eps: float
    tanh: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Tokens ``[batch, tokens, width]`` to tokens."""
        dtype, width = self.make.dtype, x.shape[-1]
        drop = nn.Dropout(self.dropout, deterministic=not train)
        y = nn.LayerNorm(self.norm_eps, dtype=dtype)(x)
        y = nn.MultiHeadDotProductAttention(
            max(1, width // HEAD),
            dtype=dtype,
            kernel_init=_GLOROT,
            force_fp32_for_softmax=True,
        )(y)
        x = x + drop(y)
        y = nn.LayerNorm(self.norm_eps, dtype=dtype)(x)
        y = nn.Dense(4 * width, dtype=dtype, kernel_init=_GLOROT)(y)
        y = nn.gelu(y, approximate=self.tanh)
        y = nn.Dense(width, dtype=dtype, kernel_init=_GLOROT)(y)
        return x + drop(y)


class ViT(nn.Module):
    """Patches, learned positions, blocks, linear head on the first token.

    Attributes:
        depth: number of blocks.
        patch: side of a patch in pixels.
        num_classes: number of logits.
        width: channels of a token.
        make: of the layers.
        dropout: rate, after the positions and in the blocks.
        norm_eps: added to the variance in LayerNorm.
        tanh: whether GELU is its approximation by a tanh.
    """

    depth: int
    patch: int
    num_classes: int
    width: int
    make: layers.Layers
    dropout: float = 0.0
    norm_eps: float = 1e-6
    tanh: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Images ``[batch, height, width, channels]`` to float32 logits.

        Raises:
            UserError: if the sides of the images are not multiples of the patch.
        """
        dtype, side = self.make.dtype, self.patch
        batch, height, width, _ = images.shape
        if height % side or width % side:
            raise errors.UserError(
                f"images of {height}x{width} pixels do not divide into patches of "
                f"{side}x{side}: take a vit_..{{patch}} whose patch divides both sides"
            )
        x = nn.Conv(
            *(self.width, (side, side)),
            strides=side,
            padding="VALID",
            kernel_init=layers.scaled_normal(1.0, "fan_in"),
            dtype=dtype,
        )(images)
        x = x.reshape(batch, -1, self.width)
        first = self.param("token", nn.initializers.zeros, (1, 1, self.width))
        first = jnp.broadcast_to(first, (batch, 1, self.width)).astype(x.dtype)
        x = jnp.concatenate([first, x], axis=1)
        normal = nn.initializers.normal(0.02)
        x = x + self.param("positions", normal, (1, *x.shape[1:])).astype(x.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        block = self.make.block(EncoderBlock)
        for n in range(self.depth):
            x = block(
                *(self.make, self.dropout, self.norm_eps, self.tanh),
                name=f"EncoderBlock_{n}",
            )(x, train)
        x = nn.LayerNorm(self.norm_eps, dtype=dtype)(x[:, 0])
        return layers.head(self.num_classes)(x)


def vit(published: int) -> Callable[[int], Callable[..., nn.Module]]:
    """ViTs of one size, for any patch.

    Returns:
        ``patch -> factory``. The options of the factory are ``depth``, the number of
        blocks, ``dropout``, a rate, 0 <= dropout < 1, ``norm_eps``, added to the
        variance in LayerNorm (1e-12 in the ViTs of transformers), and ``gelu``,
        ``"exact"`` or ``"tanh"`` (in those of google-research/vision_transformer); a
        width of the user's is a multiple of `HEAD`, or below it.

    Example:
        >>> network = vit(192)(patch=4)(10, None, layers.Layers("float32"))
        >>> network.width, network.patch
        (192, 4)
    """

    def of_patch(patch: int) -> Callable[..., nn.Module]:
        def factory(
            num_classes: int,
            width: int | None,
            make: layers.Layers,
            depth: int = 12,
            dropout: float = 0.0,
            norm_eps: float = 1e-6,
            gelu: str = "exact",
        ) -> nn.Module:
            checks.count("depth", depth, most=1000)
            checks.rate("dropout", dropout)
            checks.rate("norm_eps", norm_eps)
            if gelu not in ("exact", "tanh"):
                raise errors.UserError(errors.unknown("gelu", gelu, ("exact", "tanh")))
            width = width or published
            if width > HEAD and width % HEAD:
                raise errors.UserError(
                    f"width of a ViT is {width}: give a multiple of {HEAD}, the "
                    "channels of an attention head, or less than that"
                )
            return ViT(
                *(depth, patch, num_classes, width, make),
                *(dropout, norm_eps, gelu == "tanh"),
            )

        return factory

    return of_patch


PATTERNS = {
    "vit_ti{patch}": vit(192),
    "vit_s{patch}": vit(384),
    "vit_b{patch}": vit(768),
}
MODELS = {"vit_s16": vit(384)(16), "vit_b16": vit(768)(16)}
