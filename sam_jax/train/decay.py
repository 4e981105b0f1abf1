"""Weight decay of three kinds: in the loss, in the direction, beside the optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax.methods import masks
from sam_jax.train import settings


class Decay(NamedTuple):
    """One of the three is the decay, the others do nothing.

    Attributes:
        of_loss: ``params -> scalar`` to add to the loss.
        of_direction: before the base optimizer.
        of_updates: after it.
    """

    of_loss: Callable[[optax.Params], jax.Array]
    of_direction: optax.GradientTransformation
    of_updates: optax.GradientTransformation


def make_decay(
    decay: settings.WeightDecay, learning_rate: optax.ScalarOrSchedule
) -> Decay:
    """Weight decay in its place."""
    value = decay.value
    off = Decay(lambda _: jnp.zeros([]), optax.identity(), optax.identity())
    if not value:
        return off
    mask = masks.weights_mask if decay.exclude_bias_and_norm else all_mask
    add = optax.add_decayed_weights(value, mask)
    match decay.kind:
        case "gradient":
            return off._replace(of_direction=add)
        case "decoupled":
            return off._replace(of_updates=_decoupled(add, learning_rate))
        case "loss":
            return off._replace(of_loss=_half_squared_norm(value, mask))


def all_mask(params: optax.Params) -> Any:
    """True for every parameter."""
    return jax.tree.map(lambda _: True, params)


def _decoupled(
    add: optax.GradientTransformation, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """Adds ``-learning_rate * value * w`` to finished updates."""
    decay = optax.chain(
        optax.set_to_zero(), add, optax.scale_by_learning_rate(learning_rate)
    )

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, optax.OptState]:
        decays, state = decay.update(updates, state, params)
        return optax.tree.add(updates, decays), state

    return optax.GradientTransformation(decay.init, update_fn)


def _half_squared_norm(
    value: float, mask: Callable[[optax.Params], Any]
) -> Callable[[optax.Params], jax.Array]:
    def loss(params: optax.Params) -> jax.Array:
        kept = jax.tree.map(
            lambda w, keep: jnp.sum(jnp.square(w)) if keep else 0.0,
            params,
            mask(params),
        )
        return value / 2 * jnp.asarray(optax.tree.sum(kept))

    return loss
