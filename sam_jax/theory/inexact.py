r"""Gradient descent with any error: IGD and IGDr of Khanh et al. 2024.

Algorithms 1 and 2 of the paper require only a direction near the gradient, with an
absolute or a relative error. Here the size and the direction of the error are
parameters, so a theorem can be tested with the worst errors, not only with those of
SAM's family.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import core

# (gradient, key of the update) -> the error up to its length; zero is none.
Direction = Callable[[optax.Updates, jax.Array], optax.Updates]


class InexactState(NamedTuple):
    """State of `igd` and `igdr`: updates done so far."""

    count: core.Count


def against(grads: optax.Updates, key: jax.Array) -> optax.Updates:
    """The error that shortens the gradient."""
    del key
    return optax.tree.scale(-1.0, grads)


def along(grads: optax.Updates, key: jax.Array) -> optax.Updates:
    """The error that lengthens the gradient."""
    del key
    return grads


def anywhere(grads: optax.Updates, key: jax.Array) -> optax.Updates:
    """A random error with a normal distribution, drawn in every update."""
    return optax.tree.random_like(key, grads, jax.random.normal)


def igd(
    eps: optax.ScalarOrSchedule, direction: Direction = anywhere
) -> optax.GradientTransformationExtraArgs:
    r"""IGD: :math:`g = \nabla f(x) + \varepsilon_k\, d / \|d\|` (Algorithm 1).

    Args:
        eps: length of the error; a number >= 0 or a schedule of the update count.
        direction: d, of the gradient and the update's key.

    Returns:
        A transformation, for `descent.descend`; it needs ``key``.

    Example:
        >>> tx, grads = igd(0.5, against), jnp.array([3.0, 4.0])
        >>> print(tx.update(grads, tx.init(grads), key=jax.random.key(0))[0])
        [2.7 3.6]
    """
    checks.nonnegative("eps", eps, schedule=True)
    return _inexact(lambda count, norm: _value(eps, count), direction)


def igdr(
    nu: optax.ScalarOrSchedule, direction: Direction = anywhere
) -> optax.GradientTransformationExtraArgs:
    r"""IGDr: :math:`g = \nabla f(x) + \nu_k \|\nabla f(x)\|\, d / \|d\|` (Algorithm 2).

    Args:
        nu: share of the gradient's norm; a number in [0, 1) or a schedule.
        direction: as of `igd`.

    Returns:
        A transformation as from `igd`.

    Example:
        >>> tx, grads = igdr(0.5, along), jnp.array([3.0, 4.0])
        >>> print(tx.update(grads, tx.init(grads), key=jax.random.key(0))[0])
        [4.5 6. ]
    """
    checks.below_one("nu", nu, schedule=True)
    return _inexact(lambda count, norm: _value(nu, count) * norm, direction)


def _value(number: optax.ScalarOrSchedule, count: jax.Array) -> Any:
    return number(count) if callable(number) else number


def _inexact(
    size: Callable[[jax.Array, jax.Array], Any], direction: Direction
) -> optax.GradientTransformationExtraArgs:
    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        key: jax.Array,
        **extra_args: Any,
    ) -> tuple[optax.Updates, InexactState]:
        del params, extra_args
        assert isinstance(state, InexactState)
        error = direction(updates, key)
        length = optax.tree.norm(error)
        factor = size(state.count, optax.tree.norm(updates))
        scale = jnp.where(length > 0, factor / jnp.where(length > 0, length, 1.0), 0.0)
        found = optax.tree.add_scale(updates, scale, error)
        return found, InexactState(core.next_count(state.count))

    return optax.GradientTransformationExtraArgs(
        lambda params: InexactState(jnp.zeros([], jnp.int32)),
        update,  # pyright: ignore[reportArgumentType]
    )
