"""The one train step, for every method, and the evaluation step.

The data's way reads from top to bottom: augment; for each group that shares a
perturbation, loss and gradient at the weights and the method's direction; base
optimizer, update; metrics.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax import loss_scale as loss_scale_lib
from sam_jax import models
from sam_jax.data import mixing
from sam_jax.methods import numerics, observations
from sam_jax.train import averaging, scores
from sam_jax.train.groups import MEAN, ROWS, SAME, narrowed, widened
from sam_jax.train.losses import Measure, logits_of
from sam_jax.train.optimizer import Optimizer, OptState
from sam_jax.train.passes import Examples, Passes, method_keywords
from sam_jax.train.state import TrainState, is_finite

# image uint8 [B,H,W,C]; label, true_label int32 [B]; weight float32 [B]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]  # float32 scalars

# Of the step's key, after those of augmentation and dropout.
METHOD_STREAM, MIX_STREAM = 2, 3
SHARE = "perturbation_share/"  # of a layer in the squared norm, in the metrics
GROUP_STREAM = 2**31  # of a group's key, after those of its chunks


class Recipe(NamedTuple):
    """What a step is made of.

    Attributes:
        passes: through the network.
        optimizer: method and base optimizer.
        augment: ``(key, uint8 images) -> float images``.
        mix: ``(key, images, labels) -> (images, data.mixing.Mixed)``, or None.
        num_examples: of the training set.
        class_shares: of its classes, float32 [classes].
        averaging: share of the averages that stays; None where none are kept.
        skip_nonfinite: whether an update that is not finite is left out.
        mesh: of the run; None is a single device.
        reduce_dtype: in which the directions of groups are averaged.
    """

    passes: Passes
    optimizer: Optimizer
    augment: Callable[[jax.Array, jax.Array], jax.Array]
    num_examples: int
    class_shares: np.ndarray
    mix: mixing.Mix | None = None
    averaging: optax.Schedule | None = None
    skip_nonfinite: bool = False
    mesh: jax.sharding.Mesh | None = None
    reduce_dtype: str = "float32"


class Kept(NamedTuple):
    """What all groups of a batch are given alike.

    Attributes:
        model_state: running statistics before the update.
        method_state: that of the method.
        method_key: of what the method draws once for all groups.
        loss_scale: of all gradients, where the network computes in float16.
        frozen: weights that are not trained, or None.
    """

    model_state: Any
    method_state: optax.OptState
    method_key: jax.Array
    loss_scale: loss_scale_lib.LossScale | None
    frozen: Any


class GroupResult(NamedTuple):
    """What a group gives; the batch is the mean of its groups.

    Attributes:
        loss: at the weights.
        direction: of the method.
        model_state: the new running statistics.
        outputs: of the network at the weights, of each example.
        method_state: the new one, the same of all groups.
    """

    loss: Any
    direction: Any
    model_state: Any
    outputs: Any
    method_state: Any


OF_GROUPS = GroupResult(MEAN, MEAN, MEAN, ROWS, SAME)


def train_step(
    recipe: Recipe, state: TrainState, batch: Batch
) -> tuple[TrainState, Metrics]:
    """One update, to be read from top to bottom; jit it for a recipe, state donated.

    Args:
        recipe: what the step is made of.
        state: before the update.
        batch: to train on.

    Returns:
        The state after it, and metrics of the weights before it: ``loss`` (what is
        minimized), ``accuracy`` on the labels trained on, ``true_accuracy``,
        ``learning_rate``, ``update_norm``, ``finite`` (1 or 0), the method's
        diagnostics, and ``perturbation_share/LAYER``.
    """
    # ── Randomness is a function of the seed and the step, so that a resumed run
    #    repeats it; all gradients see the same augmentation and dropout.
    step_key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    augment_key, dropout_key = jax.random.split(step_key)
    method_key = jax.random.fold_in(step_key, METHOD_STREAM)

    # ── Data.
    images, mixed = recipe.augment(augment_key, batch["image"]), ()
    if recipe.mix is not None:
        mix_key = jax.random.fold_in(step_key, MIX_STREAM)
        images, mixed = recipe.mix(mix_key, images, batch["label"])
    examples = Examples(images, batch["label"], batch["weight"], mixed)

    # ── Passes and method: of each group, then of the batch.
    of_batch = recipe.passes.groups.average(
        functools.partial(group_step, recipe), OF_GROUPS, recipe.mesh
    )
    kept = Kept(
        *(state.model_state, state.opt_state.method, method_key),
        *(state.loss_scale, state.frozen),
    )
    found = of_batch(state.params, kept, examples, dropout_key)

    # ── Base optimizer. Scopes name what a compiled program spends its time on.
    with jax.named_scope("base_optimizer"):
        updates, base_state = recipe.optimizer.base.update(
            widened(found.direction, state.params, recipe.reduce_dtype),
            state.opt_state.base,
            state.params,
            value=found.loss,
            key=method_key,
            num_examples=recipe.num_examples,
        )
    params = optax.apply_updates(state.params, updates)
    opt_state = OptState(found.method_state, base_state)

    # ── New state.
    evaluated = recipe.optimizer.eval_params(opt_state, params), found.model_state
    new = state._replace(
        params=params,
        model_state=found.model_state,
        opt_state=opt_state,
        average=averaging.averaged(recipe.averaging, state, evaluated),
    )
    seen = {
        "loss": found.loss,
        "update_norm": numerics.norm(updates),
        **observations.diagnostics(opt_state),
    }
    shares = observations.perturbation_shares(opt_state, params)
    finite = all_finite(seen)
    if recipe.skip_nonfinite:
        finite &= is_finite(new)
        # What is frozen is not a new array, and is not copied.
        new = jax.tree.map(
            lambda a, b: a if a is b else jnp.where(finite, a, b), new, state
        )
    if state.loss_scale is not None:
        new = new._replace(loss_scale=state.loss_scale.adjusted(finite))

    # ── Metrics.
    with jax.named_scope("metrics"):
        logits = logits_of(found.outputs)
        metrics = seen | {f"{SHARE}{layer}": x for layer, x in shares.items()}
        metrics |= {
            "accuracy": accuracy(logits, batch["label"]),
            "true_accuracy": accuracy(logits, batch["true_label"]),
            "learning_rate": recipe.optimizer.learning_rate(state.step),
            "finite": finite,
        }
    return (
        new._replace(step=state.step + 1),
        {name: jnp.asarray(x, jnp.float32) for name, x in metrics.items()},
    )


def group_step(
    recipe: Recipe,
    params: optax.Params,
    kept: Kept,
    examples: Examples,
    dropout_key: jax.Array,
) -> GroupResult:
    """Loss and gradient at the weights, and the method, of a group.

    Args:
        recipe: what the step is made of.
        params: the weights.
        kept: what all groups are given alike.
        examples: of the group.
        dropout_key: of all its passes.

    Returns:
        What the group gives. The pass at the weights owns the running statistics.
    """
    passes = recipe.passes.given(kept.loss_scale, kept.frozen)
    with jax.named_scope("first_pass"):
        clean = passes.value_and_grad(params, kept.model_state, examples, dropout_key)
    with jax.named_scope("second_pass"):
        direction, method_state = recipe.optimizer.method.update(
            clean.grads,
            kept.method_state,
            params,
            **method_keywords(
                *(passes, kept.model_state, examples, dropout_key, clean),
                recipe.class_shares,
            ),
            group_key=jax.random.fold_in(dropout_key, GROUP_STREAM),
            key=kept.method_key,
            num_examples=recipe.num_examples,
        )
    direction = narrowed(direction, recipe.reduce_dtype)
    return GroupResult(
        clean.loss, direction, clean.model_state, clean.outputs, method_state
    )


def make_eval_step(
    model: models.Model, measure: Measure, normalize: Callable[[jax.Array], jax.Array]
) -> Callable[[optax.Params, Any, Batch], tuple[Metrics, scores.OfEach]]:
    """Builds the evaluation of one batch, on the true labels.

    Args:
        model: the network.
        measure: what is measured of each example.
        normalize: ``uint8 images -> float images``.

    Returns:
        ``(params, model_state, batch) -> sums, predictions``: sums over the examples
        whose ``mask`` is true, of ``loss``, ``accuracy`` and other measures, and
        ``examples``; `scores.predictions` of each, masked or not.
    """

    def eval_step(
        params: optax.Params, model_state: Any, batch: Batch
    ) -> tuple[Metrics, scores.OfEach]:
        images = normalize(batch["image"])
        outputs, _ = model.apply(params, model_state, images, train=False, key=None)
        seen = {"image": images, "label": batch["true_label"], "mask": batch["mask"]}
        sums = {
            name: jnp.sum(of_each, where=batch["mask"], dtype=jnp.float32)
            for name, of_each in measure(outputs, seen).items()
        }
        sums |= {"examples": jnp.sum(batch["mask"], dtype=jnp.float32)}
        logits = logits_of(outputs).astype(jnp.float32)
        return sums, scores.predictions(logits, batch["true_label"], jnp)

    return eval_step


def all_finite(seen: Metrics) -> jax.Array:
    """Whether loss, update and gradient are finite.

    The gradient's norm as well: a method may keep one that it does not use yet.
    """
    names = [name for name in ("loss", "update_norm", "grad_norm") if name in seen]
    return jnp.all(jnp.isfinite(jnp.stack([seen[name] for name in names])))


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of examples whose largest logit is the label's."""
    return jnp.mean(logits.argmax(-1) == labels, dtype=jnp.float32)
