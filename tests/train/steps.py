"""A jitted step of a small network, and batches for it."""

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import models
from sam_jax.train import build

SHAPE = (4, 4, 1)
SPEC = build.DataSpec(SHAPE, num_classes=10, num_examples=1000, steps_per_epoch=4)


def net(dropout=0.0, momentum=0.9):
    """Two dense layers with BatchNorm, ReLU and dropout between."""

    def init(key, images):
        first, last = jax.random.split(key)
        pixels = images[0].size
        params = {
            "first": jax.random.normal(first, (pixels, 16)) / 8,
            "scale": jnp.ones(16),
            "bias": jnp.zeros(16),
            "last": jax.random.normal(last, (16, 10)) / 4,
        }
        return params, {"mean": jnp.zeros(16), "var": jnp.ones(16)}

    def apply(params, model_state, images, *, train, key=None):
        x = images.reshape(len(images), -1) @ params["first"]
        used = {"mean": x.mean(0), "var": x.var(0)} if train else model_state
        x = (x - used["mean"]) / jnp.sqrt(used["var"] + 1e-5)
        x = jax.nn.relu(x * params["scale"] + params["bias"])
        if train and dropout:
            x = x * jax.random.bernoulli(key, 1 - dropout, x.shape) / (1 - dropout)
        if train:
            model_state = jax.tree.map(
                lambda old, new: momentum * old + (1 - momentum) * new,
                model_state,
                used,
            )
        return x @ params["last"], model_state

    return models.Model(init, apply)


def plain(key, images):
    """No augmentation."""
    del key
    return images / jnp.float32(255)


def noisy(key, images):
    """An augmentation so strong that no two gradients would agree."""
    return images / 255 + jax.random.normal(key, images.shape)


def broken_by_white(key, images):
    """NaN for a batch with a pixel of 255."""
    del key
    return images / jnp.where(images.max() == 255, jnp.nan, 255.0)


def batches(count, size=32, white=()):
    """Random images whose label is their brightest quarter; ``white`` ones break."""
    generator = np.random.default_rng(0)
    for number in range(count):
        image = generator.integers(0, 255, (size, *SHAPE)).astype(np.uint8)
        label = image.reshape(size, 4, 4).sum(-1).argmax(-1).astype(np.int32)
        if number in white:
            image[0] = 255
        yield {
            "image": image,
            "label": label,
            "true_label": (label + 2) % 4,
            "weight": np.ones(size, np.float32),
        }


class Trainer:
    """A jitted step of the small network and its state."""

    def __init__(self, config, model, augment):
        made = build.steps(config, SPEC, model=lambda dtype: model, augment=augment)
        self.optimizer = made.optimizer
        self.step = jax.jit(made.train_step)  # gives no state away: all are looked at
        self.state = made.init(made.seed)

    def run(self, batches):
        """States and metrics after each batch."""
        history = []
        for batch in batches:
            self.state, metrics = self.step(self.state, batch)
            history.append((self.state, jax.device_get(metrics)))
        return history


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, atol), a, b)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
