"""What is measured of each example: the loss, the accuracy, metrics of the user's."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax import checks, errors, plugins
from sam_jax.train import settings

# (outputs, batch) -> losses [B], one for each example: outputs of the network, and the
# batch that it saw: "image", augmented, and "label". The trainer weights and averages
# them, adds the decay, and gives each method what it needs.
Loss = Callable[[Any, Mapping[str, jax.Array]], jax.Array]

# (outputs, batch) -> {name: numbers [B]}; the batch has "mask" as well, which is false
# where there is no example.
Measure = Callable[[Any, Mapping[str, jax.Array]], dict[str, jax.Array]]

CROSS_ENTROPY = "cross_entropy"


class Losses(NamedTuple):
    """What is computed of the outputs of a network.

    Attributes:
        train: what is minimized.
        measure: what is reported of validation and test sets: ``loss``, ``accuracy``
            and the user's metrics.
    """

    train: Loss
    measure: Measure


def make_losses(
    config: settings.Settings, num_classes: int, own: Loss | None = None
) -> Losses:
    """The losses of a run.

    Returns:
        Functions that give float32 [B].

    Raises:
        UserError: if there is no such loss, or it has no use for a setting. The
            functions: if the network gives no logits of these classes, or the user's
            loss anything but a number for each example.
    """
    if own is None and config.loss == CROSS_ENTROPY:

        def built_in(smoothing: float) -> Loss:
            return lambda outputs, batch: cross_entropy(
                _fitting(outputs, batch, num_classes), batch["label"], smoothing
            )

        return Losses(built_in(config.label_smoothing), _measure(config, built_in(0.0)))
    name = "loss"
    if own is None:
        name = f"config.loss ({config.loss})"
        if not plugins.is_reference(config.loss):
            known = [CROSS_ENTROPY, "my_loss.py:fn"]
            raise errors.UserError(errors.unknown("config.loss", config.loss, known))
        own = plugins.load_function(config.loss, "config.loss")
    if config.label_smoothing:
        raise errors.UserError(
            f"config.label_smoothing is for {CROSS_ENTROPY} and has no effect on "
            f"{name}: set config.label_smoothing=0"
        )
    of_each = _checked(own, name, num_classes)
    return Losses(of_each, _measure(config, of_each))


def _measure(config: settings.Settings, loss: Loss) -> Measure:
    own = config.metrics.function("config.metrics", "outputs", "batch")

    def measure(outputs: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        found = {"loss": loss(outputs, batch)}  # which refuses what does not fit
        found["accuracy"] = logits_of(outputs).argmax(-1) == batch["label"]
        if own is None:
            return found
        where = f"config.metrics.name ({config.metrics.name})"
        return found | _of_each(own(outputs, batch), where, len(batch["label"]))

    return measure


def _of_each(found: Any, where: str, count: int) -> dict[str, jax.Array]:
    """The user's metrics; a number for the batch is one for each example."""
    fits = isinstance(found, Mapping) and all(
        isinstance(name, str) and checks.is_real(x) and np.shape(x) in ((), (count,))
        for name, x in found.items()
    )
    if not fits:
        raise errors.UserError(
            f"{where} must give a dict of names and numbers, one for the batch or one "
            f"for each of {count} examples, [{count}]; got {described(found)}"
        )
    if taken := sorted(found.keys() & _TAKEN):
        raise errors.UserError(
            f"{where} gives {taken[0]!r}, a name that the trainer uses: take another"
        )
    return {
        name: jnp.broadcast_to(jnp.asarray(x, jnp.float32), (count,))
        for name, x in found.items()
    }


# What stands beside the metrics of a split, and in ``scores.json``.
_TAKEN = {
    *("loss", "accuracy", "examples", "epoch", "step", "split", "wall_time"),
    *("top_5", "ece", "nll", "classes", "class_names", "confusion", "bins"),
    *("mistakes", "format"),
}


def _checked(own: Any, name: str, num_classes: int) -> Loss:
    def losses(outputs: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        _fitting(outputs, batch, num_classes)  # for the accuracy
        found, count = own(outputs, batch), len(batch["label"])
        shape = getattr(found, "shape", None)
        if shape != (count,) or not jnp.issubdtype(found.dtype, jnp.floating):
            raise errors.UserError(
                f"{name} must give a number for each of {count} examples, float "
                f"[{count}], and leave means and weights to the trainer; got "
                f"{described(found)}"
            )
        return found.astype(jnp.float32)

    return losses


def _fitting(
    outputs: Any, batch: Mapping[str, jax.Array], num_classes: int
) -> jax.Array:
    """The logits, if there is one of each class, and all outputs, for each example."""
    logits, shape = logits_of(outputs), (len(batch["label"]), num_classes)
    if logits.shape != shape:
        raise errors.UserError(
            f"the network must return logits of shape {shape}, one of each class for "
            f"each example, got {logits.shape}"
        )
    if any(np.shape(x)[:1] != shape[:1] for x in jax.tree.leaves(outputs)):
        raise errors.UserError(
            "what the network returns beside the logits must have a row for each of "
            f"{shape[0]} examples, as parts of a batch are put together; got "
            f"{described(outputs)}"
        )
    return logits


def described(tree: Any) -> Any:
    """Types and shapes, for messages."""
    return jax.tree.map(
        lambda x: jax.typeof(x) if hasattr(x, "shape") else type(x).__name__, tree
    )


def logits_of(outputs: Any) -> jax.Array:
    """What the accuracy is measured by: the outputs, those named so, or the first.

    Raises:
        UserError: if the outputs of a network hold nothing of the kind.

    Example:
        >>> logits_of({"logits": jnp.zeros((2, 10)), "mean": jnp.ones(2)}).shape
        (2, 10)
    """
    found = outputs
    if isinstance(outputs, Mapping):
        found = outputs.get("logits")
    elif isinstance(outputs, tuple):
        found = getattr(outputs, "logits", next(iter(outputs), None))
    if (
        not isinstance(found, jax.Array | np.ndarray)
        or found.ndim != 2
        or not jnp.issubdtype(found.dtype, jnp.floating)
    ):
        raise errors.UserError(
            "the outputs of the network must be logits, float [B, classes], or have "
            "them as 'logits' or as the first of a tuple; got "
            f"{described(outputs)}"
        )
    return jnp.asarray(found)


def cross_entropy(
    logits: jax.Array, labels: jax.Array, smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy with smoothed labels, per example.

    Args:
        logits: [B, classes].
        labels: int [B].
        smoothing: share of the label that is spread over all classes.

    Returns:
        Float [B].

    Example:
        >>> print(cross_entropy(jnp.zeros((1, 4)), jnp.array([2])))  # log 4
        [1.3862944]
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    if smoothing:
        targets = optax.smooth_labels(targets, smoothing)
    return optax.softmax_cross_entropy(logits, targets)
