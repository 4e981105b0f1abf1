"""The layers that the families share, with their settings written once.

Convolutions have no bias and start He normal over their *outputs*: weights of variance
2 / (kernel area * output channels), which keeps the variance of the gradient through a
ReLU layer as it flows back (He et al. 2015, Section 2.2), the usual start of ResNets.
The linear head starts LeCun normal, variance 1 / inputs, with a zero bias: no ReLU
follows it.

Padding is the same on both sides, also at a stride of 2, where ``"SAME"`` would pad the
far side only: this is the padding of the published networks.

References:
    He, Zhang, Ren and Sun, Delving deep into rectifiers, 2015, arXiv:1502.01852.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sam_jax.models import convolution, remat


def scaled_normal(scale: float, mode: str) -> nn.initializers.Initializer:
    """Normal weights of variance ``scale / fan``.

    The numbers are those of ``jax.nn.initializers.variance_scaling(scale, mode,
    "normal")``, but drawn flat and then given their shape: XLA compiles a draw of four
    dimensions much slower on CPUs, and a network has dozens of them.

    Args:
        scale: 2 before a ReLU, 1 before none.
        mode: ``"fan_in"`` or ``"fan_out"``: whether fan counts inputs or outputs.

    Returns:
        An initializer of kernels ``[*window, inputs, outputs]``.

    Example:
        >>> init = scaled_normal(2.0, "fan_in")
        >>> init(jax.random.key(0), (3, 3, 4, 5), jnp.float32).shape
        (3, 3, 4, 5)
    """

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        *window, inputs, outputs = shape
        channels = {"fan_in": inputs, "fan_out": outputs}[mode]
        deviation = math.sqrt(scale / (math.prod(window) * channels))
        draws = jax.random.normal(key, [math.prod(shape)], dtype)
        return deviation * draws.reshape(shape)

    return init


MOMENTUM, EPSILON = 0.9, 1e-5  # of BatchNorm


class BatchNorm(nn.Module):
    """BatchNorm in training, by the statistics of that many consecutive examples each.

    Parameters and state are those of ``flax.linen.BatchNorm``. Where a device has whole
    such groups, no device waits for another.

    Attributes:
        examples: of a group; a larger batch divides by it.
        dtype: of the result; statistics are float32.
        scale_init: initial scale.
    """

    examples: int
    dtype: str
    scale_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features ``[batch, ..., channels]`` to features."""
        shape = x.shape[-1:]
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running = {
            "mean": self.variable("batch_stats", "mean", jnp.zeros, shape),
            "var": self.variable("batch_stats", "var", jnp.ones, shape),
        }
        examples = min(self.examples, len(x))
        grouped = x.reshape(-1, examples, *x.shape[1:]).astype(jnp.float32)
        axes = tuple(range(1, grouped.ndim - 1))
        mean = grouped.mean(axes, keepdims=True)
        var = jnp.maximum(0, (grouped**2).mean(axes, keepdims=True) - mean**2)
        if not self.is_initializing():
            for name, found in (("mean", mean), ("var", var)):
                new = found.reshape(-1, *shape).mean(0)
                kept = running[name].value
                running[name].value = MOMENTUM * kept + (1 - MOMENTUM) * new
        normal = (grouped - mean) * (jax.lax.rsqrt(var + EPSILON) * scale) + bias
        return normal.reshape(x.shape).astype(self.dtype)


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes the layers of a network.

    Attributes:
        dtype: what activations are computed in.
        norm_axis: a named axis, such as that of a ``jax.vmap`` over groups of examples,
            over which BatchNorm takes its statistics in training besides the batch.
        remat: whether residual blocks keep their input alone for the gradient.
        norm_examples: consecutive examples by whose statistics BatchNorm normalizes in
            training; None for all that pass through the network.

    Example:
        >>> Layers("bfloat16").conv(64, 3).dtype
        'bfloat16'
    """

    dtype: str
    norm_axis: str | None = None
    remat: bool = False
    norm_examples: int | None = None

    def conv(self, features: int, kernel: int, stride: int = 1) -> nn.Conv:
        """Square convolution without bias."""
        return nn.Conv(
            features,
            (kernel, kernel),
            strides=stride,
            padding=kernel // 2,
            use_bias=False,
            kernel_init=scaled_normal(2.0, "fan_out"),
            dtype=self.dtype,
            conv_general_dilated=convolution.conv_general_dilated,
        )

    def batch_norm(
        self,
        *,
        train: bool,
        scale_init: nn.initializers.Initializer = nn.initializers.ones,
    ) -> nn.Module:
        """BatchNorm over all but the channels, its statistics in float32.

        The running statistics keep 0.9 of themselves at a step. The variance that they
        gather is the one that normalises the batch (divided by n, not n - 1).

        Args:
            train: normalise by the batch and move the running statistics.
            scale_init: initial scale.
        """
        if train and self.norm_examples is not None:
            return BatchNorm(self.norm_examples, self.dtype, scale_init)
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=MOMENTUM,
            epsilon=EPSILON,
            scale_init=scale_init,
            dtype=self.dtype,
            axis_name=self.norm_axis,
        )

    def block(self, block: type[nn.Module]) -> type[nn.Module]:
        """A residual block as it is, or rematerialized.

        Args:
            block: a module called as ``block(x, train)``. Give it a name.
        """
        return remat.lifted(block) if self.remat else block


def stages(
    blocks: tuple[int, ...], width: int, stride: int = 2
) -> Iterator[tuple[int, int]]:
    """Features and stride of every block of a ResNet, first to last.

    Args:
        blocks: number of blocks of each stage.
        width: features of the first stage; each next one has twice as many.
        stride: of the first block of every stage but the first.

    Yields:
        ``(features, stride)`` of a block.

    Example:
        >>> list(stages((1, 2), width=16))
        [(16, 1), (32, 2), (32, 1)]
    """
    for stage, count in enumerate(blocks):
        for block in range(count):
            yield width * 2**stage, stride if stage > 0 and block == 0 else 1


def head(num_classes: int) -> nn.Dense:
    """Linear layer from features of any float dtype to float32 logits."""
    return nn.Dense(num_classes, kernel_init=scaled_normal(1.0, "fan_in"))
