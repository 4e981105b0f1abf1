"""A fast recipe for CIFAR-10 after airbench96, with SGD or SAM, for one GPU.

    python -m sam_jax.main --config=configs/cifar10_fast.py:sgd \
        --config.model.dtype=bfloat16 --config.steps_per_dispatch=48

After airbench96 of Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024,
arXiv:2404.00498: frozen whitening, a start as the identity, BatchNorm without scales
whose biases have 64 times the rate, Nesterov momentum with decay tied to the rate,
label smoothing, alternating flip, shifts, cutout, and mirrored and shifted copies of
the test images. Instead of its lookahead a moving average is evaluated, the warm-up
begins at zero, shifts have black borders; it has no dropping of easy examples and no
half-precision weights. Network and optimizer are in this file.

Published, on an A100: 96.0 % in 27 s with dropping of easy examples
(airbench96_faster), in 35 s without (airbench96). All 50,000 images are trained on.
This card has not been run to its end; `experiments/gpu/fast_recipe.py` will run it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from sam_jax.train.config import default_config, load_method

EPOCHS, WARMUP = 37, 0.23  # share of the epochs
MOMENTUM = 0.85
SETTINGS = {
    "data": {
        "name": "cifar10",
        "validation": 0,
        "crop": 4,
        "alternate_flip": True,
        "cutout": 12,
    },
    "model": {"name": f"{__file__}:FastNet"},
    "optimizer": {"name": f"{__file__}:sgd"},
    "epochs": EPOCHS,
    "batch_size": 1024,
    # 9 for the sum of 1024 losses, in units of 1 + 1 / (1 - momentum) steps.
    "learning_rate": 9 * (1 - MOMENTUM) / (2 - MOMENTUM),
    "schedule": {
        "name": "linear",
        "warmup_epochs": WARMUP * EPOCHS,
        "final_fraction": 0.07,
    },
    "weight_decay": {"value": 0.0},  # the optimizer has its own
    "label_smoothing": 0.2,
    "ema_decay": 0.99,
}


def get_config(method: str = "sam"):
    config = default_config()
    config.update(SETTINGS)
    config.method = load_method(method, card=__file__)
    return config


# ── Optimizer ────────────────────────────────────────────────────────────────────────


def sgd(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float = MOMENTUM,
    weight_decay: float = 0.012 / 9,
    bias_factor: float = 64.0,
) -> optax.GradientTransformation:
    """Nesterov momentum; BatchNorm's biases have another rate, and the same decay."""

    def norms(params: Any) -> Any:  # none in another network
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "BatchNorm" in jax.tree_util.keystr(path), params
        )

    return optax.chain(
        optax.masked(optax.scale(bias_factor), norms),
        optax.add_decayed_weights(weight_decay),
        optax.sgd(learning_rate, momentum, nesterov=True),
    )


# ── Network ──────────────────────────────────────────────────────────────────────────

# Mean products of the channels of two pixels of a normalized training image, the second
# that many rows below and columns beside the first.
PRODUCTS = {
    (0, 0): (1.0035, 0.9138, 0.7858, 0.9138, 1.0042, 0.9111, 0.7858, 0.9111, 1.0044),
    (0, 1): (0.9304, 0.8442, 0.7252, 0.8443, 0.9308, 0.8468, 0.7253, 0.8467, 0.9413),
    (1, 0): (0.9162, 0.8290, 0.7125, 0.8329, 0.9172, 0.8349, 0.7138, 0.8327, 0.9282),
    (1, 1): (0.8602, 0.7761, 0.6665, 0.7799, 0.8613, 0.7860, 0.6677, 0.7836, 0.8799),
    (1, -1): (0.8609, 0.7769, 0.6672, 0.7804, 0.8618, 0.7864, 0.6682, 0.7842, 0.8804),
}
FLOOR = 5e-4  # of the variances


def whitening() -> np.ndarray:
    """Filters [2, 2, 3, 24] after which patches of images have unit covariance.

    They are the eigenvectors of the covariance of 2x2 patches over the roots of their
    variances, with both signs.
    """
    pixels = [(row, column) for row in range(2) for column in range(2)]
    covariance = np.zeros((12, 12))
    for i, (a, b) in enumerate(pixels):
        for j, (c, d) in enumerate(pixels):
            offset = c - a, d - b
            mirrored = offset not in PRODUCTS
            key = (a - c, b - d) if mirrored else offset
            block = np.reshape(PRODUCTS[key], (3, 3))
            where = slice(3 * i, 3 * i + 3), slice(3 * j, 3 * j + 3)
            covariance[where] = block.T if mirrored else block
    values, vectors = np.linalg.eigh(covariance)
    filters = (vectors / np.sqrt(values + FLOOR)).reshape(2, 2, 3, 12)
    return np.concatenate([filters, -filters], axis=-1)


def identity(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """A kernel [3, 3, I, O] whose first outputs are its inputs, the others drawn."""
    inputs, outputs = shape[2:]
    bound = (9 * inputs) ** -0.5
    kernel = jax.random.uniform(key, shape, dtype, -bound, bound)
    same = jnp.arange(min(inputs, outputs))
    return kernel.at[..., same].set(0).at[1, 1, same, same].set(1)


class Trunk(nn.Module):
    """Images [B, 32, 32, 3] to logits: three groups of three convolutions."""

    num_classes: int
    widths: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Logits, float32 [B, classes]."""
        filters = jnp.asarray(whitening(), self.dtype)
        x = jax.lax.conv_general_dilated(
            *(images.astype(self.dtype), filters, (1, 1), "VALID"),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        bias = self.param("whitening_bias", nn.initializers.zeros, (x.shape[-1],))
        x = nn.gelu(x + bias.astype(self.dtype), approximate=False)
        for width in self.widths:
            x = nn.max_pool(self.convolved(x, width), (2, 2), (2, 2))
            x = shortcut = nn.gelu(self.normalized(x, train), approximate=False)
            x = self.normalized(self.convolved(x, width), train)
            x = self.convolved(nn.gelu(x, approximate=False), width)
            x = nn.gelu(self.normalized(x, train) + shortcut, approximate=False)
        x = nn.max_pool(x, (3, 3), (3, 3)).reshape(len(images), -1)
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        head = nn.Dense(
            self.num_classes, use_bias=False, kernel_init=uniform, dtype=self.dtype
        )
        return head(x).astype(jnp.float32) / 9

    def convolved(self, x: jax.Array, width: int) -> jax.Array:
        """A convolution of 3x3 pixels."""
        layer = nn.Conv(
            width, (3, 3), use_bias=False, kernel_init=identity, dtype=self.dtype
        )
        return layer(x)

    def normalized(self, x: jax.Array, train: bool) -> jax.Array:
        """BatchNorm with biases alone."""
        layer = nn.BatchNorm(
            not train, momentum=0.6, epsilon=1e-12, use_scale=False, dtype=self.dtype
        )
        return layer(x)


class FastNet(nn.Module):
    """The network; in evaluation a mean over mirrored and shifted images.

    Attributes:
        num_classes: number of logits.
        widths: channels of each group.
        views: whether evaluation sees each image six times.
        dtype: of the activations.
    """

    num_classes: int = 10
    widths: tuple[int, ...] = (128, 384, 512)
    views: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Logits, float32 [B, classes]."""
        trunk = Trunk(self.num_classes, tuple(self.widths), self.dtype)
        if train or not self.views:
            return trunk(images, train)

        def both(x: jax.Array) -> jax.Array:
            return (trunk(x, train) + trunk(x[:, :, ::-1], train)) / 2

        side = images.shape[1]
        padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        shifted = (both(padded[:, :side, :side]) + both(padded[:, 2:, 2:])) / 2
        return (both(images) + shifted) / 2
