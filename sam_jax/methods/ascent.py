"""Building blocks: transformations that turn a gradient into a displacement.

An ascent is an ordinary Optax transformation, gradient -> displacement of the weights,
for `sharpness_aware`. Most variants are a chain of these and of Optax's own::

    sam_jax.sharpness_aware(optax.chain(sam_jax.normalize(), sam_jax.scale(0.05)))
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax.methods import checks, numerics


class ScheduledState(NamedTuple):
    """State of a block whose coefficient follows a schedule.

    Attributes:
        count: updates done so far. Scalar, int32.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


def normalize(eps: float = 1e-12) -> optax.GradientTransformation:
    r"""Divides by the global 2-norm: :math:`g / \max(\|g\|, \mathrm{eps})`.

    The norm is taken in float32 or wider and neither overflows nor underflows; a zero
    gradient gives zero.

    Args:
        eps: floor of the norm, >= 0. Below, the result shrinks with the gradient.

    Returns:
        A stateless transformation.

    Raises:
        ValueError: if ``eps`` is negative, infinite or NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> block = normalize()
        >>> print(block.update(jnp.array([3.0, 4.0]), block.init(None))[0])
        [0.6 0.8]
    """
    return partially_normalize(1.0, eps)


def partially_normalize(
    lam: optax.ScalarOrSchedule, eps: float = 1e-12
) -> optax.GradientTransformation:
    r"""Multiplies by :math:`1 - \lambda + \lambda / \max(\|g\|, \mathrm{eps})`.

    Args:
        lam: 0 leaves the gradient as it is, 1 normalizes it; a number in [0, 1] or a
            schedule of the update count (from 0).
        eps: floor of the norm, >= 0.

    Returns:
        A transformation; it counts its updates if ``lam`` is a schedule.

    Raises:
        ValueError: if ``lam`` is outside [0, 1], or ``eps`` negative, infinite or NaN.

    References:
        Oikonomou, Loizou, "Sharpness-Aware Minimization: General Analysis and Improved
        Rates", ICLR 2025, `2503.02225 <https://arxiv.org/abs/2503.02225>`_
    """
    checks.between("lam", lam, 0, 1)
    checks.floor("eps", eps)

    def mix(updates: Any, lam: jax.Array) -> Any:
        inverse = numerics.safe_inverse(numerics.norm(updates), eps)
        lam = jnp.asarray(lam).astype(inverse.dtype)
        return numerics.multiply(updates, 1 - lam + lam * inverse)

    return with_coefficient(lam, mix)


def scale(rho: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    r"""Multiplies by the radius :math:`\rho`.

    Args:
        rho: a finite number >= 0, or a schedule of the update count (from 0).

    Returns:
        A transformation; it counts its updates if ``rho`` is a schedule.

    Raises:
        ValueError: if ``rho`` is negative, infinite or NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> block = scale(0.5)
        >>> print(block.update(jnp.array([3.0, 4.0]), block.init(None))[0])
        [1.5 2. ]
    """
    checks.nonnegative("rho", rho)
    return with_coefficient(rho, numerics.multiply)


def with_coefficient(
    coefficient: optax.ScalarOrSchedule, apply: Callable[[Any, Any], Any]
) -> optax.GradientTransformation:
    """A transformation with one coefficient, a number or a schedule.

    Args:
        coefficient: a number, or a schedule of the update count (from 0).
        apply: ``(updates, value of the coefficient) -> updates``.

    Returns:
        A stateless transformation for a number, one with a `ScheduledState` for a
        schedule.
    """
    if not callable(coefficient):
        return optax.stateless(lambda updates, _: apply(updates, coefficient))

    def init_fn(params: optax.Params) -> ScheduledState:
        del params
        return ScheduledState(count=jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: ScheduledState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, ScheduledState]:
        del params
        updates = apply(updates, coefficient(state.count))
        return updates, ScheduledState(
            count=jnp.asarray(optax.safe_increment(state.count))
        )

    return optax.GradientTransformation(init_fn, update_fn)  # pyright: ignore[reportArgumentType]
