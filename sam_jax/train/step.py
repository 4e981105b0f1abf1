"""The one train step, for every method, and the evaluation step.

The data's way reads from top to bottom: augment; for each group that shares a
perturbation, loss and gradient at the weights and the method's direction; base
optimizer, update.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import models
from sam_jax.methods import functional_sam, numerics, observations
from sam_jax.train import groups as groups_lib
from sam_jax.train import optimizer as optimizer_lib
from sam_jax.train import settings
from sam_jax.train.groups import Parts
from sam_jax.train.state import TrainState

# image uint8 [B,H,W,C]; label, true_label int32 [B]; weight float32 [B]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]  # float32 scalars

METHOD_STREAM = 2  # of the step's key, after those of augmentation and dropout
GROUP_STREAM = 2**31  # of a group's key, after those of its chunks


class Examples(NamedTuple):
    """Examples of a batch, of a group or of a chunk.

    Attributes:
        images: augmented, float [B, H, W, C].
        labels: int32 [B].
        weights: factor of each example's loss, float32 [B]; ones unless some examples
            are drawn more often than others.
    """

    images: jax.Array
    labels: jax.Array
    weights: jax.Array


class Pass(NamedTuple):
    """What a pass through the network and back gives as means over the examples.

    Attributes:
        loss: what is minimized, with the decay.
        grads: its gradient.
        decay: of the weights, where that is in the loss.
        model_state: the new running statistics.
    """

    loss: jax.Array
    grads: optax.Updates
    decay: jax.Array
    model_state: Any


class Rows(NamedTuple):
    """What it gives of each example.

    Attributes:
        losses: not weighted, [B].
        logits: [B, classes].
    """

    losses: jax.Array
    logits: jax.Array


class Passes(NamedTuple):
    """Passes through the network in training mode, of the examples of a group.

    Attributes:
        value_and_grad: ``(params, model_state, examples, key) -> Parts``, the mean a
            `Pass`, the rows `Rows`.
        losses: ``(params, model_state, examples, key) -> Parts`` whose rows are the
            losses; forward only.
        functional: ``(params, (model_state, decay), (examples, logits), key) -> Parts``
            whose mean are the loss, and the gradient with the loss's derivative at
            these logits; see `sam_jax.functional_value_and_grad`.
        chunks: in which they go through the network; subsets divide by it.
    """

    value_and_grad: Callable[..., Parts]
    losses: Callable[..., Parts]
    functional: Callable[..., Parts]
    chunks: int


def make_train_step(
    config: settings.Settings,
    model: models.Model,
    optimizer: optimizer_lib.Optimizer,
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    num_examples: int,
    groups: groups_lib.Groups = groups_lib.WHOLE,
    mesh: jax.sharding.Mesh | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Builds the step; jit it with the state donated.

    Args:
        config: of the run.
        model: the network.
        optimizer: method and base optimizer.
        augment: ``(key, uint8 images) -> float images``.
        num_examples: of the training set.
        groups: who shares a perturbation; the whole batch by default.
        mesh: of the run; None is a single device.

    Returns:
        ``(state, batch) -> (state, metrics)``. The metrics belong to the weights before
        the update: ``loss`` (what is minimized), ``accuracy`` on the labels trained on,
        ``true_accuracy``, ``learning_rate``, ``update_norm``, ``finite`` (1 or 0) and
        the method's diagnostics.
    """
    passes = make_passes(config, model, optimizer.loss_decay, groups)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        # ── Randomness is a function of the seed and the step, so that a resumed run
        #    repeats it; all gradients see the same augmentation and dropout.
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        augment_key, dropout_key = jax.random.split(key)
        constants = {
            "key": jax.random.fold_in(key, METHOD_STREAM),
            "num_examples": num_examples,
        }
        images = augment(augment_key, batch["image"])
        examples = Examples(images, batch["label"], batch["weight"])

        # ── Of each group: loss and gradient at the weights, and the method. This pass
        #    owns the running statistics.
        def of_group(
            params: optax.Params, kept: Any, examples: Examples, key: jax.Array
        ) -> Parts:
            model_state, method_state = kept
            clean = passes.value_and_grad(params, model_state, examples, key)
            direction, method_state = optimizer.method.update(
                clean.mean.grads,
                method_state,
                params,
                **method_keywords(passes, model_state, examples, key, clean),
                group_key=jax.random.fold_in(key, GROUP_STREAM),
                **constants,
            )
            means = clean.mean.loss, direction, clean.mean.model_state
            return Parts(means, clean.rows.logits, method_state)

        whole = groups.average(of_group, mesh)(
            state.params,
            (state.model_state, state.opt_state.method),
            examples,
            dropout_key,
        )
        (loss, direction, model_state), logits = whole.mean, whole.rows

        # ── Base optimizer.
        updates, base_state = optimizer.base.update(
            direction, state.opt_state.base, state.params, value=loss, **constants
        )
        params = optax.apply_updates(state.params, updates)
        opt_state = optimizer_lib.OptState(whole.same, base_state)

        # ── New state.
        update_norm, seen = numerics.norm(updates), observations.diagnostics(opt_state)
        # The gradient's norm as well: a method may keep one that it does not use yet.
        judged = [loss, update_norm, seen.get("grad_norm", update_norm)]
        finite = jnp.all(jnp.isfinite(jnp.stack(judged)))
        new = state._replace(
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            average=moving_average(
                state,
                optimizer.eval_params(opt_state, params),
                model_state,
                config.ema_decay,
            ),
        )
        if config.on_nonfinite == "skip":
            new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
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


def make_passes(
    config: settings.Settings,
    model: models.Model,
    loss_decay: Callable[[optax.Params], jax.Array],
    groups: groups_lib.Groups = groups_lib.WHOLE,
) -> Passes:
    """Builds the passes through the network that a method may ask for.

    A perturbed pass normalizes with its own batch statistics; the running ones that it
    computes are dropped.

    Args:
        config: of the run.
        model: the network.
        loss_decay: ``params -> scalar`` to add to the loss.
        groups: how a group's examples pass through the network.

    Returns:
        Functions of a group.
    """

    def outputs_loss(
        outputs: tuple[jax.Array, jax.Array], examples: Examples
    ) -> tuple[jax.Array, jax.Array]:
        logits, decay = outputs
        losses = cross_entropy(logits, examples.labels, config.label_smoothing)
        return jnp.mean(examples.weights * losses) + decay, losses

    def forward(
        params: optax.Params, model_state: Any, examples: Examples, key: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], Any]:
        logits, model_state = model.apply(
            params, model_state, examples.images, train=True, key=key
        )
        return (logits, loss_decay(params)), model_state

    def loss_fn(
        params: optax.Params, model_state: Any, examples: Examples, key: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, Rows, Any]]:
        outputs, model_state = forward(params, model_state, examples, key)
        loss, losses = outputs_loss(outputs, examples)
        logits, decay = outputs
        return loss, (decay, Rows(losses, logits), model_state)

    def value_and_grad(
        params: optax.Params, model_state: Any, examples: Examples, key: jax.Array
    ) -> Parts:
        (loss, (decay, rows, model_state)), grads = jax.value_and_grad(
            loss_fn, has_aux=True
        )(params, model_state, examples, key)
        return Parts(mean=Pass(loss, grads, decay, model_state), rows=rows)

    def losses(
        params: optax.Params, model_state: Any, examples: Examples, key: jax.Array
    ) -> Parts:
        outputs, _ = forward(params, model_state, examples, key)
        return Parts(rows=outputs_loss(outputs, examples)[1])

    def functional(
        params: optax.Params,
        state: tuple[Any, jax.Array],
        examples: tuple[Examples, jax.Array],
        key: jax.Array,
    ) -> Parts:
        model_state, decay = state
        seen, logits = examples
        return Parts(
            mean=functional_sam.functional_value_and_grad(
                lambda params: forward(params, model_state, seen, key)[0],
                lambda outputs: outputs_loss(outputs, seen)[0],
                (logits, decay),
            )(params)
        )

    return Passes(
        value_and_grad=groups.gradient(value_and_grad),
        losses=groups.gradient(losses),
        functional=groups.gradient(functional),
        chunks=groups.chunks,
    )


def method_keywords(
    passes: Passes, model_state: Any, examples: Examples, key: jax.Array, clean: Parts
) -> dict[str, Any]:
    """What a method may ask for, offered to every one; what it leaves is not computed.

    Args:
        passes: through the network.
        model_state: running statistics before the update.
        examples: of the group that shares a perturbation.
        key: of dropout.
        clean: the pass at the weights.

    Returns:
        Keywords of an update.
    """

    def value_and_grad_fn(
        params: optax.Params, examples: Examples = examples
    ) -> tuple[jax.Array, optax.Updates]:
        found = passes.value_and_grad(params, model_state, examples, key).mean
        return found.loss, found.grads

    return {
        "value": clean.mean.loss,
        "grad_fn": lambda params: value_and_grad_fn(params)[1],
        "value_and_grad_fn": lambda params: value_and_grad_fn(params),
        "example_losses": clean.rows.losses,
        "example_losses_fn": lambda params: (
            passes.losses(params, model_state, examples, key).rows
        ),
        "subset_grad_fn": lambda params, rows: value_and_grad_fn(
            params, subset(examples, rows, passes.chunks)
        )[1],
        "functional_value_and_grad_fn": lambda params: (
            passes.functional(
                params,
                (model_state, clean.mean.decay),
                (examples, clean.rows.logits),
                key,
            ).mean
        ),
    }


def subset(examples: Examples, rows: jax.Array, chunks: int) -> Examples:
    """Some of the examples, filled up to a multiple of the chunks.

    Args:
        examples: of a group.
        rows: which; int [R].
        chunks: that their number must divide by.

    Returns:
        At least R examples. Those that fill up have the weight zero, and the others are
        scaled so that the mean over all is the mean over R. BatchNorm sees them all.

    Example:
        >>> three = Examples(*[jnp.arange(3.0)] * 2, jnp.ones(3))
        >>> found = subset(three, jnp.array([2]), chunks=2)
        >>> print(found.images, found.weights)
        [2. 2.] [2. 0.]
    """
    missing = -len(rows) % chunks
    filled = jnp.concatenate([rows, jnp.broadcast_to(rows[:1], (missing,))])
    taken = jax.tree.map(lambda x: x[filled], examples)
    scale = len(filled) / len(rows)
    counts = jnp.arange(len(filled)) < len(rows)
    return taken._replace(weights=jnp.where(counts, scale * taken.weights, 0))


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
