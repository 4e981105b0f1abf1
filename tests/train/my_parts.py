"""What a user may bring in a file."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import nnx

import sam_jax


class Net(nn.Module):
    """Convolution, BatchNorm and dropout, of Linen."""

    num_classes: int
    features: int = 4

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(self.features, (3, 3), strides=2)(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


class WithoutFlag(nn.Module):
    """With `setup`, and the same in training and evaluation."""

    num_classes: int
    dtype: str = "float32"

    def setup(self):
        self.head = nn.Dense(self.num_classes, dtype=self.dtype)

    def __call__(self, images):
        return self.head(images.reshape(len(images), -1))


class NnxNet(nnx.Module):
    """The same as `Net`, of NNX, with a list of layers."""

    def __init__(self, num_classes, features=4, *, rngs):
        self.conv = nnx.Conv(1, features, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(features, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(16 * features, num_classes, rngs=rngs)])

    def __call__(self, images):
        x = self.dropout(nnx.relu(self.norm(self.conv(images))))
        x = x.reshape(len(x), -1)
        for layer in self.layers:
            x = layer(x)
        return {"logits": x, "features": images}


class TokenNet(nn.Module):
    """Sequences of tokens: their mean embedding, and what follows."""

    num_classes: int

    @nn.compact
    def __call__(self, tokens, deterministic):
        x = nn.Embed(20, 8)(tokens).mean(axis=1)
        x = nn.Dropout(0.1)(x, deterministic=deterministic)
        return nn.Dense(self.num_classes)(x)


class TableNet(nnx.Module):
    """Rows of a table."""

    def __init__(self, num_classes, *, rngs):
        self.first = nnx.Linear(5, 16, rngs=rngs)
        self.last = nnx.Linear(16, num_classes, rngs=rngs)

    def __call__(self, rows):
        return self.last(jnp.tanh(self.first(rows)))


def brier(outputs, batch):
    """Squared error of the probabilities, of each example."""
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs
    truth = jax.nn.one_hot(batch["label"], logits.shape[-1])
    return jnp.sum((jax.nn.softmax(logits) - truth) ** 2, axis=-1)


def zeros(outputs, batch):
    """A loss that does not look at the outputs."""
    return jnp.zeros(len(batch["label"]))


def mean(outputs, batch):
    """A mistake: one number for the batch."""
    return brier(outputs, batch).mean()


def fails(outputs, batch):
    """A mistake of the user's own."""
    raise ZeroDivisionError("of the user")


def fails_anyhow(*inputs):
    """A mistake of the user's own."""
    raise ZeroDivisionError("of the user")


def my_sam(radius, twist=1.0):
    """SAM under another name."""
    ascent = optax.chain(sam_jax.normalize(), sam_jax.scale(radius * twist))
    return sam_jax.sharpness_aware(ascent)


def my_sgd(learning_rate, momentum=0.9):
    """SGD under another name."""
    return optax.sgd(learning_rate, momentum)


def triangle(step, *, peak, total_steps, top=0.5):
    """Up to the peak at a share of the run, and down again."""
    share = step / total_steps
    return peak * jnp.minimum(share / top, (1 - share) / (1 - top))


def brighter(key, images, by=10):
    """A number of grey levels brighter, some more than others."""
    more = jax.random.randint(key, (len(images), 1, 1, 1), by, by + 3)
    return jnp.minimum(images.astype("float32") + more, 255.0)


def margins(outputs, batch, over=0.0):
    """Of each example, and of the batch, which knows where there is no example."""
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs
    best, second = jax.lax.top_k(logits, 2)[0].T
    return {
        "margin": best - second,
        "sure": best - second > over,
        "first_label": jnp.max(batch["label"], where=batch["mask"], initial=0),
    }
