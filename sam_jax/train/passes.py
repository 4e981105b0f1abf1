"""Passes through the network in training mode, and what a method may ask of them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax import loss_scale as loss_scale_lib
from sam_jax import models
from sam_jax.data import mixing
from sam_jax.methods import functional_sam
from sam_jax.train import frozen as frozen_lib
from sam_jax.train import groups as groups_lib
from sam_jax.train import losses as losses_lib
from sam_jax.train.groups import MEAN, ROWS


class Examples(NamedTuple):
    """Examples of a batch, of a group or of a chunk.

    Attributes:
        images: augmented, float [B, H, W, C].
        labels: int32 [B].
        weights: factor of each example's loss, float32 [B]; ones unless some examples
            are drawn more often than others.
        mixed: the second example in each image, or (); None would not pass the second
            derivatives of groups.
    """

    images: jax.Array
    labels: jax.Array
    weights: jax.Array
    mixed: mixing.Mixed | tuple[()] = ()


class Pass(NamedTuple):
    """A pass through the network and back.

    Attributes:
        loss: what is minimized, with the decay; a mean over the examples.
        grads: its gradient.
        model_state: the new running statistics.
        losses: of each example, not weighted, [B].
        outputs: of the network, any tree of arrays of B rows; logits [B, classes].
    """

    loss: Any
    grads: Any
    model_state: Any
    losses: Any
    outputs: Any


class Answered(NamedTuple):
    """Examples, and what an earlier pass returned for each of them."""

    examples: Examples
    outputs: Any


class Passes:
    """Passes through the network in training mode, of the examples of a group.

    A perturbed pass normalizes with its own batch statistics; the running ones that it
    computes are dropped.

    Args:
        model: the network.
        losses: ``(outputs, batch) -> losses [B]``; see `sam_jax.train.losses`.
        loss_decay: ``params -> scalar`` to add to the loss.
        groups: who shares a perturbation, and how they pass through the network.
        loss_scale: factor of the loss inside of a gradient; None is one.
        frozen: weights that are not trained; None for none.

    Attributes:
        groups: those.
        value_and_grad: ``(params, model_state, examples, dropout_key) -> Pass``.
        losses: ``(params, model_state, examples, dropout_key) -> losses [B]``; forward
            only.
        functional: ``(params, model_state, answered, dropout_key) -> (loss, grads)``,
            the gradient with the loss's derivative at the earlier outputs; see
            `sam_jax.functional_value_and_grad`.
    """

    def __init__(
        self,
        model: models.Model,
        losses: losses_lib.Loss,
        loss_decay: Callable[[optax.Params], jax.Array],
        groups: groups_lib.Groups = groups_lib.WHOLE,
        loss_scale: loss_scale_lib.LossScale | None = None,
        frozen: Any = None,
    ) -> None:
        self._model, self._losses, self._loss_decay = model, losses, loss_decay
        self.groups = groups
        self._loss_scale, self._frozen = loss_scale, frozen
        # Each goes through the network in chunks, and for one group after another.
        self.value_and_grad = groups.network_pass(
            self._value_and_grad, Pass(MEAN, MEAN, MEAN, ROWS, ROWS)
        )
        self.losses = groups.network_pass(self._forward_losses, ROWS)
        self.functional = groups.network_pass(self._functional, (MEAN, MEAN))

    def given(
        self, loss_scale: loss_scale_lib.LossScale | None, frozen: Any
    ) -> "Passes":
        """The same passes with another factor of the loss, and other frozen weights."""
        parts = self._model, self._losses, self._loss_decay, self.groups
        return Passes(*parts, loss_scale, frozen)

    def _value_and_grad(
        self, params: optax.Params, model_state: Any, examples: Examples, key: jax.Array
    ) -> Pass:
        def loss_fn(params: optax.Params) -> tuple[jax.Array, Any]:
            found, state = self._forward(params, model_state, examples, key)
            loss, losses = self._loss(found, examples)
            return loss, (state, losses, found[0])

        scale = self._loss_scale
        of_loss = scale.value_and_grad if scale else jax.value_and_grad
        found, grads = of_loss(loss_fn, has_aux=True)(params)
        loss, (model_state, losses, outputs) = found
        return Pass(loss, grads, model_state, losses, outputs)

    def _forward_losses(
        self, params: optax.Params, model_state: Any, examples: Examples, key: jax.Array
    ) -> jax.Array:
        found, _ = self._forward(params, model_state, examples, key)
        return self._loss(found, examples)[1]

    def _functional(
        self, params: optax.Params, model_state: Any, answered: Answered, key: jax.Array
    ) -> tuple[jax.Array, optax.Updates]:
        examples, outputs = answered
        # The loss's derivative with respect to the decay is one, whatever that was.
        no_decay = jnp.zeros_like(self._loss_decay(params))
        scale = self._loss_scale

        def loss_fn(found: tuple[Any, jax.Array]) -> jax.Array:
            loss, _ = self._loss(found, examples)
            return scale.scaled(loss) if scale else loss

        found = functional_sam.functional_value_and_grad(
            lambda params: self._forward(params, model_state, examples, key)[0],
            loss_fn,
            (outputs, no_decay),
        )(params)
        return scale.unscaled(found) if scale else found

    def _forward(
        self, params: optax.Params, model_state: Any, examples: Examples, key: jax.Array
    ) -> tuple[tuple[Any, jax.Array], Any]:
        """``((outputs, decay), model_state)``."""
        whole = frozen_lib.whole(params, self._frozen)
        outputs, model_state = self._model.apply(
            whole, model_state, examples.images, train=True, key=key
        )
        return (outputs, self._loss_decay(params)), model_state

    def _loss(
        self, found: tuple[Any, jax.Array], examples: Examples
    ) -> tuple[jax.Array, jax.Array]:
        """The loss, and the losses of the examples."""
        outputs, decay = found
        batch = {"image": examples.images, "label": examples.labels}
        losses = self._losses(outputs, batch)
        if examples.mixed:
            others, shares = examples.mixed
            second = self._losses(outputs, batch | {"label": others})
            losses = shares * losses + (1 - shares) * second
        return jnp.mean(examples.weights * losses) + decay, losses


def method_keywords(
    passes: Passes,
    model_state: Any,
    examples: Examples,
    dropout_key: jax.Array,
    clean: Pass,
    class_shares: np.ndarray,
) -> dict[str, Any]:
    """What a method may ask for, offered to every one; what it leaves is not computed.

    Args:
        passes: through the network.
        model_state: running statistics before the update.
        examples: of the group that shares a perturbation.
        dropout_key: of all passes.
        clean: the pass at the weights.
        class_shares: of the classes in the training set, [classes].

    Returns:
        Keywords of an update.
    """

    def value_and_grad(
        examples: Examples, params: optax.Params
    ) -> tuple[jax.Array, optax.Updates]:
        found = passes.value_and_grad(params, model_state, examples, dropout_key)
        return found.loss, found.grads

    def subset_grad_fn(params: optax.Params, rows: jax.Array) -> optax.Updates:
        cut = passes.groups
        some = subset(examples, rows, cut.chunks, cut.norm_examples)
        return value_and_grad(some, params)[1]

    def weighted(
        params: optax.Params, factors: jax.Array
    ) -> tuple[jax.Array, optax.Updates]:
        return value_and_grad(
            examples._replace(weights=factors * examples.weights), params
        )

    answered = Answered(examples, clean.outputs)
    of_class = jnp.asarray(class_shares)
    shares = of_class[examples.labels]
    if examples.mixed:
        others, parts = examples.mixed
        shares = parts * shares + (1 - parts) * of_class[others]
    return {
        "value": clean.loss,
        "grad_fn": lambda params: value_and_grad(examples, params)[1],
        "value_and_grad_fn": functools.partial(value_and_grad, examples),
        "example_losses": clean.losses,
        "example_losses_fn": lambda params: passes.losses(
            params, model_state, examples, dropout_key
        ),
        "subset_grad_fn": subset_grad_fn,
        "functional_value_and_grad_fn": lambda params: passes.functional(
            params, model_state, answered, dropout_key
        ),
        "class_shares": shares,
        "weighted_value_and_grad_fn": weighted,
    }


def subset(
    examples: Examples, rows: jax.Array, chunks: int, norm_examples: int = 1
) -> Examples:
    """Some of the examples, filled up to chunks that pass through the network.

    Args:
        examples: of a group.
        rows: which; int [R].
        chunks: that their number must divide by.
        norm_examples: that a chunk must divide by, if it is larger.

    Returns:
        At least R examples. Those that fill up are the same again, of the weight zero,
        and the others are scaled so that the mean over all is the mean over R.
        BatchNorm sees them all.

    Example:
        >>> three = Examples(*[jnp.arange(3.0)] * 2, jnp.ones(3))
        >>> found = subset(three, jnp.array([2]), chunks=2)
        >>> print(found.images, found.weights)
        [2. 2.] [2. 0.]
    """
    of_chunk = -(-len(rows) // chunks)
    of_chunk += -of_chunk % min(norm_examples, of_chunk)
    filled = jnp.resize(rows, (chunks * of_chunk,))
    taken = jax.tree.map(lambda x: x[filled], examples)
    scale = len(filled) / len(rows)
    counts = jnp.arange(len(filled)) < len(rows)
    return taken._replace(weights=jnp.where(counts, scale * taken.weights, 0))
