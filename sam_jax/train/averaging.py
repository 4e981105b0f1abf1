"""Averages of the weights, which are evaluated in their place."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax import errors
from sam_jax.train import settings
from sam_jax.train.state import TrainState


def share(config: settings.Settings, total_steps: int) -> optax.Schedule | None:
    """How much of the averages of weights and statistics stays at an update.

    Of a moving average the decay; in the first updates ``(1 + step) / (10 + step)`` if
    that is smaller, so that the initial weights are forgotten. With ``swa_start`` the
    averages are means over all updates from there on (stochastic weight averaging,
    Izmailov et al. 2018, arXiv:1803.05407). The running statistics are averaged as the
    weights are, where the paper computes them again.

    Returns:
        ``step -> share in [0, 1)``, or None if no averages are kept.

    Raises:
        UserError: if both kinds are asked for.

    Example:
        >>> stays = share(settings.Settings(swa_start=0.5), total_steps=100)
        >>> [float(stays(jnp.int32(step))) for step in (20, 50, 51)]
        [0.0, 0.0, 0.5]
    """
    if config.swa_start is None:
        decay = config.ema_decay
        return _moving(decay) if decay else None
    if config.ema_decay:
        raise errors.UserError(
            f"config.ema_decay={config.ema_decay} and config.swa_start="
            f"{config.swa_start} are two averages: leave one of them out"
        )
    start = round(config.swa_start * total_steps)

    def mean(step: jax.typing.ArrayLike) -> jax.Array:
        averaged = jnp.maximum(step - start, 0)
        return averaged / (averaged + 1)

    return mean


def _moving(decay: float) -> optax.Schedule:
    return lambda step: jnp.minimum(decay, (1 + step) / (10 + step))


def averaged(
    stays: optax.Schedule | None, state: TrainState, new: tuple[optax.Params, Any]
) -> tuple[optax.Params, Any] | None:
    """The next averages of weights and statistics."""
    if stays is None:
        return None
    rate = stays(state.step)
    return jax.tree.map(
        lambda old, new: (
            (rate * old + (1 - rate) * new).astype(old.dtype)
            if jnp.issubdtype(old.dtype, jnp.inexact)
            else new  # such as a count
        ),
        state.average,
        new,
    )
