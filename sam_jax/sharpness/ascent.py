"""Sharpness as SAM's own step sees it, and the sharpness at which SAM settles."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

from sam_jax import checks
from sam_jax.methods import numerics
from sam_jax.sharpness import products


class AscentStep(NamedTuple):
    """What one step of SAM's ascent finds.

    Attributes:
        value: the loss there minus the loss at the parameters.
        grad_norm: length |g| of the gradient; the value is rho |g| to first order.
        perturbation_norm: length of the step; rho, or 0 where the gradient is.
        cosine: of the angle between the gradients here and there.
        evaluations: how many gradients it took.
    """

    value: float
    grad_norm: float
    perturbation_norm: float
    cosine: float
    evaluations: int


def ascent_step(
    loss: products.Loss,
    params: Any,
    rho: float,
    *,
    batches: Iterable[Any] | None = None,
) -> AscentStep:
    r"""SAM's own sharpness, :math:`L(w + \rho\, g / \|g\|) - L(w)`.

    Args:
        loss: ``loss(params)``, or ``loss(params, batch)`` with ``batches``.
        params: the parameters w.
        rho: length of the step.
        batches: to average over; all of them share the step.

    Returns:
        `AscentStep`.

    Raises:
        ValueError: if ``rho`` is out of its range, or the loss no finite scalar.

    References:
        Foret, Kleiner, Mobahi, Neyshabur, ICLR 2021, `2010.01412
        <https://arxiv.org/abs/2010.01412>`_, equation 2

    Example:
        >>> import jax.numpy as jnp
        >>> loss = lambda w: jnp.sum(w) + jnp.sum(w**2)
        >>> print(ascent_step(loss, jnp.zeros(1), rho=0.5).value)
        0.75
    """
    checks.positive("rho", rho)
    loss = products.checked(loss, params, batches)
    measured = products.mean_over(batches, loss.program(_value_and_grad))
    value, grads = measured(params)
    point, norms = _climbed(params, grads, rho)
    there, other = measured(point)
    rise, cosine = float(there) - float(value), float(_cosine(grads, other))
    return AscentStep(rise, float(norms[0]), float(norms[1]), cosine, evaluations=2)


@jax.jit
def _climbed(params: Any, grads: Any, rho: Any) -> tuple[Any, Any]:
    """The weights behind the step; lengths of the gradient and of the step."""
    step = numerics.combine((rho, numerics.unit(grads)))
    norms = numerics.norm(grads), numerics.norm(step)
    return numerics.moved(params, step), norms


_cosine = jax.jit(numerics.cosine)


def _value_and_grad(loss: products.Loss, params: Any, *batch: Any) -> Any:
    return jax.value_and_grad(loss)(params, *batch)


def sam_edge(grad_norm: float, learning_rate: float, rho: float) -> float:
    r"""The largest eigenvalue that SAM with gradient descent is stable at.

    .. math::

        \lambda = \frac{\|g\|}{2 \rho} \left(
            \sqrt{1 + \frac{8 \rho}{\eta \|g\|}} - 1 \right)

    Its limit for a radius of zero, the edge of gradient descent, is 2 / learning rate.
    Derived for whole-batch updates without momentum; a momentum b widens it as the
    learning rate divided by 1 + b would. For unnormalized SAM, whose step has the
    length :math:`\rho \|g\|`, take a gradient of length 1.

    Args:
        grad_norm: length of the gradient.
        learning_rate: the step size.
        rho: radius of the perturbation, at least zero.

    Returns:
        The eigenvalue.

    References:
        Long, Bartlett, "Sharpness-Aware Minimization and the Edge of Stability", JMLR
        2024, `2309.12488 <https://arxiv.org/abs/2309.12488>`_

    Example:
        >>> sam_edge(1.0, 0.1, 0.0), round(sam_edge(1.0, 0.1, 0.1), 6)
        (20.0, 10.0)
    """
    checks.nonnegative("grad_norm", grad_norm)
    checks.positive("learning_rate", learning_rate)
    checks.nonnegative("rho", rho)
    if rho and not grad_norm:
        return 0.0
    # The same without the difference, which is all rounding for a small radius.
    ratio = 8 * rho / (learning_rate * grad_norm) if rho else 0.0
    return 4 / learning_rate / (math.sqrt(1 + ratio) + 1)
