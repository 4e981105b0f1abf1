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

from sam_jax import checks, schedules
from sam_jax.methods import core, numerics

_NAMED_LAMBDAS = {
    "1/t": schedules.one_over_t,
    "1-1/t": schedules.one_minus_one_over_t,
}


class ScheduledState(NamedTuple):
    """State of a block whose coefficient follows a schedule.

    Attributes:
        count: updates done so far. Scalar, int32.
    """

    count: core.Count


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


def on_sphere(rho: optax.ScalarOrSchedule, eps: float) -> optax.GradientTransformation:
    """SAM's own ascent: `normalize`, then `scale`."""
    return optax.chain(normalize(eps), scale(rho))


def partially_normalize(
    lam: optax.ScalarOrSchedule | str, eps: float = 1e-12
) -> optax.GradientTransformation:
    r"""Multiplies by :math:`1 - \lambda + \lambda / \max(\|g\|, \mathrm{eps})`.

    Args:
        lam: 0 leaves the gradient as it is, 1 normalizes it; a number in [0, 1], a
            schedule of the update count (from 0), ``'1/t'`` or ``'1-1/t'``.
        eps: floor of the norm, >= 0.

    Returns:
        A transformation; it counts its updates if ``lam`` is a schedule.

    Raises:
        ValueError: if ``lam`` is outside [0, 1] or another string, or ``eps`` negative,
            infinite or NaN.

    References:
        Oikonomou, Loizou, "Sharpness-Aware Minimization: General Analysis and Improved
        Rates", ICLR 2025, `2503.02225 <https://arxiv.org/abs/2503.02225>`_
    """
    if isinstance(lam, str):
        if lam not in _NAMED_LAMBDAS:
            allowed = ", ".join(map(repr, _NAMED_LAMBDAS))
            raise checks.BadValue(
                f"lam must be a number in [0, 1], a schedule, or one of {allowed}, "
                f"got {lam!r}"
            )
        lam = _NAMED_LAMBDAS[lam]()
    checks.between("lam", lam, 0, 1, schedule=True)
    checks.nonnegative("eps", eps)

    def mix(updates: Any, lam: jax.Array) -> Any:
        part, inverse = numerics.quotient(1.0, numerics.norm(updates), eps)
        lam = jnp.asarray(lam).astype(inverse.dtype)
        return numerics.multiply(updates, part, (1 - lam) / part + lam * inverse)

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
    checks.nonnegative("rho", rho, schedule=True)
    return with_coefficient(rho, numerics.multiply)


def scale_by_weights(
    eta: float = 0.01, *, layerwise: bool = False, biases: bool = False
) -> optax.GradientTransformation:
    r"""Multiplies by the sizes of the weights: :math:`T g`, :math:`T = |w| + \eta`.

    Leaves of less than two dimensions, the biases, are left as they are.

    Args:
        eta: added to the sizes; a finite number >= 0.
        layerwise: the size of a weight is the 2-norm of its leaf, :math:`\|w_l\|+\eta`.
        biases: scale these as well.

    Returns:
        A stateless transformation that needs ``params``.

    Raises:
        ValueError: if ``eta`` is negative, infinite or NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> block, w = scale_by_weights(eta=0.5), jnp.array([[2.0, -3.0]])
        >>> print(block.update(jnp.ones((1, 2)), block.init(w), w)[0])
        [[2.5 3.5]]
    """
    checks.nonnegative("eta", eta)

    def scale_all(updates: Any, params: Any) -> Any:
        sizes = _sizes(params, eta, layerwise, biases)
        return jax.tree.map(
            lambda g, size: (numerics.wide(g) * size).astype(g.dtype), updates, sizes
        )

    return optax.stateless(scale_all)


def normalize_by_weights(
    eta: float = 0.01,
    *,
    layerwise: bool = False,
    biases: bool = False,
    eps: float = 1e-12,
) -> optax.GradientTransformation:
    r"""The steepest ascent relative to the weights' sizes: :math:`T^2 g / \|T g\|`.

    Args:
        eta: as in `scale_by_weights`, which is :math:`T`.
        layerwise: as there.
        biases: as there.
        eps: floor of the norm, >= 0.

    Returns:
        A stateless transformation that needs ``params``.

    Raises:
        ValueError: if ``eta`` or ``eps`` is negative, infinite or NaN.
    """
    checks.nonnegative("eta", eta)
    checks.nonnegative("eps", eps)
    return optax.stateless(
        lambda updates, params: steepest(
            updates, _sizes(params, eta, layerwise, biases), eps
        )
    )


def steepest(updates: Any, axes: Any, eps: float = 1e-12) -> Any:
    r"""The highest point of an ellipsoid, to first order: :math:`T^2 g / \|T g\|`.

    It maximizes :math:`\langle g, x \rangle` over :math:`\|T^{-1} x\| \le 1`, with the
    half axes on the diagonal of :math:`T`. Nothing is rounded or overflows before the
    result.

    Args:
        updates: the gradient, arrays.
        axes: half axes, arrays of the same shapes, float32 or wider.
        eps: floor of the norm, >= 0.

    Returns:
        Arrays of the dtypes of ``updates``.

    Example:
        >>> import jax.numpy as jnp
        >>> print(steepest(jnp.array([3.0, 2.0]), jnp.array([1.0, 2.0])))
        [0.6 1.6]
    """
    # Axes that are longer than one may take the largest gradients out of the range.
    length = numerics.norm(updates)
    shrink = jnp.where(length > 2.0**64, 2.0**-64, 1).astype(length.dtype)
    scaled = jax.tree.map(
        lambda g, axis: numerics.wide(g) * shrink.astype(axis.dtype) * axis,
        *(updates, axes),
    )
    unit = numerics.unit(scaled, eps * shrink)
    return jax.tree.map(
        lambda g, axis, x: (axis * x).astype(g.dtype), updates, axes, unit
    )


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
    return counted(
        lambda updates, count, params, **_: apply(
            updates, core.value_at(coefficient, count)
        )
    )


def counted(
    apply: Callable[..., optax.Updates],
) -> optax.GradientTransformationExtraArgs:
    """A transformation whose only state is its update count.

    Args:
        apply: ``(updates, count, params, **keywords of the update) -> updates``.

    Returns:
        A transformation with a `ScheduledState`.
    """

    def init_fn(params: optax.Params) -> ScheduledState:
        del params
        return ScheduledState(count=jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: ScheduledState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScheduledState]:
        updates = apply(updates, state.count, params, **extra_args)
        return updates, ScheduledState(count=core.next_count(state.count))

    return core.transformation(init_fn, update_fn)


def _sizes(params: Any, eta: float, layerwise: bool, biases: bool) -> Any:
    """The diagonal of T in `scale_by_weights`, float32 or wider."""

    def size(w: jax.Array) -> jax.Array:
        wide = numerics.wide(w)
        if wide.ndim < 2 and not biases:
            return jnp.ones_like(wide)
        own = jnp.full_like(wide, numerics.norm(w)) if layerwise else jnp.abs(wide)
        return own + jnp.asarray(eta).astype(wide.dtype)

    return jax.tree.map(size, params)
