"""Loss-equated SAM (Wang et al., 2026)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import ascent, core, masks, numerics


def le_sam(
    rho: optax.ScalarOrSchedule = 0.3,
    *,
    sigma: optax.ScalarOrSchedule = 0.35,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Loss-equated SAM: the rise of the loss is fixed instead of the radius.

    .. math::

        d = \nabla L\left(w + \rho_t\, \frac{g}{\|g\|}\right), \qquad
        \rho_t = \min\left(\frac{\sigma}{\|g\|}, \rho\right), \quad g = \nabla L(w)

    To first order the loss rises by :math:`\sigma` along the perturbation.

    Two gradients per update; no state but counters and diagnostics.

    Use it where a radius is hard to choose: a rise of the loss is easier to choose,
    because the scale of the loss is known. Near a minimum, where the gradient is small,
    the largest radius applies.

    Args:
        rho: largest radius; a number >= 0 or a schedule of the update count (from 0).
        sigma: rise of the loss, in its units; a number >= 0 or a schedule. The authors'
            warms up for 10 of 200 epochs, and falls to 0 along a cosine in the last 40.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho``, ``sigma`` or ``eps`` is negative, infinite or NaN.

    Example:
        >>> import jax, jax.numpy as jnp, sam_jax
        >>> grad_fn, tx = jax.grad(lambda w: jnp.sum(w**2) / 2), sam_jax.le_sam(10.0)
        >>> w = jnp.array([0.0, 2.0])
        >>> d, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
        >>> print(d)  # 2 + 0.35 / 2
        [0.    2.175]

    References:
        Wang, Liu, Xie, Gao, "Fix the Loss, Not the Radius: Rethinking the Adversarial
        Perturbation of Sharpness-Aware Minimization", ICML 2026, `2605.10183
        <https://arxiv.org/abs/2605.10183>`_

    Differences from the authors' code:
        smithgun2005/LE-SAM-ICML2026 adds 1e-12 under the root of the norm and to it.
        Its option for an adaptive perturbation, ``|w| g``, and the choice of the
        examples with the largest losses are not part of this method.
    """
    checks.nonnegative("rho", rho, schedule=True)
    checks.nonnegative("sigma", sigma, schedule=True)
    checks.nonnegative("eps", eps)

    def climb(
        updates: optax.Updates, count: jax.Array, params: Any, **unused: Any
    ) -> optax.Updates:
        del params, unused
        norm = numerics.norm(updates)
        rise, largest = (
            core.value_at(x, count).astype(norm.dtype) for x in (sigma, rho)
        )
        # A quotient beyond the range is infinite, and the largest radius is taken.
        length = jnp.minimum(rise / jnp.maximum(norm, eps), largest)
        length = jnp.where(rise > 0, length, 0)
        return numerics.multiply(updates, *numerics.quotient(length, norm, eps))

    return core.sharpness_aware(ascent.counted(climb), mask=mask)
