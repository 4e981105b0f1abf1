"""Building blocks that keep an average of gradients: state of one copy of the weights.

The average starts at the first gradient, so there is no bias to correct. On several
devices it is kept in agreement; see `devices.agree`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import core, devices, numerics


class AverageState(NamedTuple):
    """State of a block that averages.

    Attributes:
        count: updates done so far. Scalar, int32.
        started: whether there is an average yet. Scalar, bool; not the same as
            ``count > 0`` where updates were skipped.
        average: of the gradients so far; a tree like them.
    """

    count: core.Count
    started: jax.Array
    average: optax.Updates


def ema(theta: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    r"""Exponential moving average: :math:`e_t = (1 - \theta) e_{t-1} + \theta g_t`.

    It starts at the first gradient, :math:`e_0 = g_0`.

    Args:
        theta: weight of the *new* gradient: a number in [0, 1] or a schedule of the
            update count (from 0); 1 means no averaging.

    Returns:
        A transformation with an `AverageState`.

    Raises:
        ValueError: if ``theta`` is outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> block = ema(0.25)
        >>> state = block.init(jnp.zeros(1))
        >>> for g in (4.0, 8.0):
        ...     e, state = block.update(jnp.array([g]), state)
        ...     print(e)
        [4.]
        [5.]
    """
    checks.between("theta", theta, 0, 1, schedule=True)

    def update_fn(
        updates: optax.Updates,
        state: AverageState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AverageState]:
        del params, extra_args
        average = _average(state, updates, core.value_at(theta, state.count))
        return average, _next(state, average)

    return core.transformation(_init, update_fn)


def subtract_ema(
    sigma: optax.ScalarOrSchedule,
    lam: optax.ScalarOrSchedule,
    *,
    include_current: bool = False,
) -> optax.GradientTransformation:
    r"""The gradient minus a multiple of its average: :math:`u = g_t - \sigma m`.

    :math:`m_t = \lambda m_{t-1} + (1 - \lambda) g_t` is the average of the gradients
    themselves, and starts at the first one; the first output is the first gradient.

    Args:
        sigma: share of the average that is subtracted; a number >= 0 or a schedule of
            the update count (from 0).
        lam: weight of the *old* average: a number in [0, 1] or a schedule.
        include_current: subtract :math:`m_t`, not :math:`m_{t-1}`.

    Returns:
        A transformation with an `AverageState`.

    Raises:
        ValueError: if ``sigma`` is negative, infinite or NaN, or ``lam`` is outside
            [0, 1].
    """
    checks.nonnegative("sigma", sigma, schedule=True)
    checks.between("lam", lam, 0, 1, schedule=True)

    def update_fn(
        updates: optax.Updates,
        state: AverageState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AverageState]:
        del params, extra_args
        average = _average(state, updates, 1 - core.value_at(lam, state.count))
        subtracted = average if include_current else state.average
        share = core.value_at(sigma, state.count)
        share = jnp.where(state.started, share, jnp.zeros_like(share))
        rest = numerics.combine((1.0, updates), (-share, subtracted))
        return rest, _next(state, average)

    return core.transformation(_init, update_fn)


def _init(params: optax.Params) -> AverageState:
    return AverageState(
        count=jnp.zeros([], jnp.int32),
        started=jnp.zeros([], bool),
        average=jax.tree.map(jnp.zeros_like, params),
    )


def _average(state: AverageState, updates: optax.Updates, weight: jax.Array) -> Any:
    weight = jnp.where(state.started, weight, jnp.ones_like(weight))
    # Not rounded to the updates' dtype: the average may be of a wider one.
    wide = numerics.wide_tree(updates)
    return numerics.combine((weight, wide), (1 - weight, state.average))


def _next(state: AverageState, average: optax.Updates) -> AverageState:
    return AverageState(
        count=core.next_count(state.count),
        started=jnp.ones([], bool),
        average=optax.tree.cast_like(devices.agree(average), state.average),
    )
