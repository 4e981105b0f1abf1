"""The one train step, for every method, and the evaluation step.

The data's way reads from top to bottom: augment, loss and gradient at the weights,
method and optimizer, update.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import models
from sam_jax.methods import core, functional_sam, numerics
from sam_jax.train import config as config_lib
from sam_jax.train import optimizer as optimizer_lib
from sam_jax.train.state import TrainState

# image uint8 [B,H,W,C]; label, true_label int32 [B]; weight float32 [B]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]  # float32 scalars

Outputs = tuple[jax.Array, jax.Array]  # logits [B, classes], decay in the loss []
LossAndLosses = tuple[jax.Array, jax.Array]  # mean [] and that of each example [B]

METHOD_STREAM = 2  # of the step's key, after those of augmentation and dropout


class Targets(NamedTuple):
    """What the loss compares the outputs with.

    Attributes:
        labels: int32 [B].
        weights: factor of each example's loss, float32 [B]; ones unless some examples
            are drawn more often than others.
    """

    labels: jax.Array
    weights: jax.Array


class Forward(NamedTuple):
    """What a pass in training mode gives besides its loss.

    Attributes:
        losses: of each example, not weighted, [B].
        outputs: what the loss is a function of.
        model_state: the new running statistics.
    """

    losses: jax.Array
    outputs: Outputs
    model_state: Any


# (params, images, targets) -> (loss, Forward); targets are a pytree over the examples.
LossFn = Callable[[optax.Params, jax.Array, Any], tuple[jax.Array, Forward]]


def make_train_step(
    config: config_lib.Config,
    model: models.Model,
    optimizer: optimizer_lib.Optimizer,
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    num_examples: int,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Builds the step; jit it with the state donated.

    Args:
        config: of the run.
        model: the network.
        optimizer: method and optimizer.
        augment: ``(key, uint8 images) -> float images``.
        num_examples: of the training set.

    Returns:
        ``(state, batch) -> (state, metrics)``. The metrics belong to the weights before
        the update: ``loss`` (what is minimized), ``accuracy`` on the labels trained on,
        ``true_accuracy``, ``learning_rate``, ``update_norm``, ``finite`` (1 or 0) and
        the method's diagnostics.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        # ── Randomness is a function of the seed and the step, so that a resumed run
        #    repeats it; all gradients see the same augmentation and dropout.
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        augment_key, dropout_key = jax.random.split(key)
        images = augment(augment_key, batch["image"])

        # ── Loss and gradient at the weights. This pass owns the running statistics.
        def outputs_loss(outputs: Outputs, targets: Targets) -> LossAndLosses:
            logits, decay = outputs
            losses = cross_entropy(logits, targets.labels, config.label_smoothing)
            return jnp.mean(targets.weights * losses) + decay, losses

        def loss_fn(
            params: optax.Params, images: jax.Array, targets: Targets
        ) -> tuple[jax.Array, Forward]:
            logits, model_state = model.apply(
                params, state.model_state, images, train=True, key=dropout_key
            )
            outputs = logits, optimizer.loss_decay(params)
            loss, losses = outputs_loss(outputs, targets)
            return loss, Forward(losses, outputs, model_state)

        examples = images, Targets(batch["label"], batch["weight"])
        value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, clean), grads = value_and_grad(state.params, *examples)

        # ── Method and optimizer.
        updates, opt_state = optimizer.tx.update(
            grads,
            state.opt_state,
            state.params,
            **method_keywords(loss_fn, outputs_loss, examples, loss, clean),
            key=jax.random.fold_in(key, METHOD_STREAM),
            num_examples=num_examples,
        )
        params = optax.apply_updates(state.params, updates)

        # ── New state.
        update_norm, seen = numerics.norm(updates), core.diagnostics(opt_state)
        # The gradient's norm as well: a method may keep one that it does not use yet.
        judged = [loss, update_norm, seen.get("grad_norm", update_norm)]
        finite = jnp.all(jnp.isfinite(jnp.stack(judged)))
        new = state._replace(
            params=params,
            model_state=clean.model_state,
            opt_state=opt_state,
            average=moving_average(
                state,
                optimizer.eval_params(opt_state, params),
                clean.model_state,
                config.ema_decay,
            ),
        )
        if config.on_nonfinite == "skip":
            new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        logits, _ = clean.outputs
        metrics = {
            "loss": loss,
            "accuracy": accuracy(logits, batch["label"]),
            "true_accuracy": accuracy(logits, batch["true_label"]),
            "learning_rate": optimizer.learning_rate(state.step),
            "update_norm": update_norm,
            "finite": finite,
            **seen,
        }
        return (
            new._replace(step=state.step + 1),
            {name: jnp.asarray(x, jnp.float32) for name, x in metrics.items()},
        )

    return train_step


def method_keywords(
    loss_fn: LossFn,
    outputs_loss: Callable[[Outputs, Any], LossAndLosses],
    examples: tuple[jax.Array, Any],
    loss: jax.Array,
    clean: Forward,
) -> dict[str, Any]:
    """What a method may ask for, offered to every one; what it leaves is not computed.

    A perturbed pass normalizes with its own batch statistics; the running ones that it
    computes are dropped.

    Args:
        loss_fn: ``(params, images, targets) -> (loss, Forward)``, for the batch or a
            part of it.
        outputs_loss: ``(outputs, targets) -> (loss, losses)``.
        examples: images and targets of the batch, the latter a pytree.
        loss: at the weights.
        clean: the rest of the pass at the weights.

    Returns:
        Keywords of an update.
    """
    images, targets = examples
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

    def value_and_grad_fn(params: optax.Params) -> tuple[jax.Array, optax.Updates]:
        (loss, _), grads = value_and_grad(params, images, targets)
        return loss, grads

    return {
        "value": loss,
        "grad_fn": lambda params: value_and_grad_fn(params)[1],
        "value_and_grad_fn": value_and_grad_fn,
        "example_losses": clean.losses,
        "example_losses_fn": lambda params: loss_fn(params, images, targets)[1].losses,
        "subset_grad_fn": lambda params, rows: value_and_grad(
            params, images[rows], jax.tree.map(lambda x: x[rows], targets)
        )[1],
        "functional_value_and_grad_fn": functional_sam.functional_value_and_grad(
            lambda params: loss_fn(params, images, targets)[1].outputs,
            lambda outputs: outputs_loss(outputs, targets)[0],
            clean.outputs,
        ),
    }


def make_eval_step(
    model: models.Model, normalize: Callable[[jax.Array], jax.Array]
) -> Callable[[optax.Params, Any, Batch], Metrics]:
    """Builds the evaluation of one batch, on the true labels.

    Args:
        model: the network.
        normalize: ``uint8 images -> float images``.

    Returns:
        ``(params, model_state, batch) -> sums`` over the examples whose ``mask`` is
        true: ``loss`` (cross-entropy), ``accuracy`` (correct ones) and ``examples``.
    """

    def eval_step(params: optax.Params, model_state: Any, batch: Batch) -> Metrics:
        images = normalize(batch["image"])
        logits, _ = model.apply(params, model_state, images, train=False, key=None)
        labels, mask = batch["true_label"], batch["mask"]
        losses = cross_entropy(logits, labels)
        correct = logits.argmax(-1) == labels
        return {
            "loss": jnp.sum(losses, where=mask),
            "accuracy": jnp.sum(correct, where=mask, dtype=jnp.float32),
            "examples": jnp.sum(mask, dtype=jnp.float32),
        }

    return eval_step


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
        >>> import jax.numpy as jnp
        >>> print(cross_entropy(jnp.zeros((1, 4)), jnp.array([2])))  # log 4
        [1.3862944]
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    if smoothing:
        targets = optax.smooth_labels(targets, smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of examples whose largest logit is the label's."""
    return jnp.mean(logits.argmax(-1) == labels, dtype=jnp.float32)


def moving_average(
    state: TrainState, params: optax.Params, model_state: Any, decay: float
) -> tuple[optax.Params, Any] | None:
    """The next averages of weights and statistics.

    In the first steps the decay is ``(1 + step) / (10 + step)`` if that is smaller, so
    that the initial weights are forgotten.

    Args:
        state: with the averages so far, or None.
        params: the new weights, those to evaluate.
        model_state: the new statistics.
        decay: in [0, 1).

    Returns:
        The averages, or None if none are kept.
    """
    if state.average is None:
        return None
    rate = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    return jax.tree.map(
        lambda old, new: (rate * old + (1 - rate) * new).astype(old.dtype),
        state.average,
        (params, model_state),
    )
