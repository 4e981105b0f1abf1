"""WSAM in its coupled form (Yue et al., 2023)."""

import jax
import optax

from sam_jax import checks
from sam_jax.methods import ascent, core, masks, numerics


def wsam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    gamma: optax.ScalarOrSchedule = 0.9,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Weighted SAM: the sharpness is a penalty with its own weight.

    .. math::

        d = g + a\, (g_p - g), \qquad a = \frac{\gamma}{1 - \gamma}, \quad
        g_p = \nabla L\left(w + \rho\, \frac{g}{\|g\|}\right), \quad g = \nabla L(w)

    Two gradients per update; no state but counters and diagnostics.

    Use it to weigh sharpness against loss, over any base optimizer. The penalty goes
    through the base's momentum and preconditioner; `decoupled_wsam`, the
    default of the authors' code, keeps it out of them.

    Args:
        rho: radius of the perturbation; a number >= 0 or a schedule of the update count
            (from 0).
        gamma: weight of the sharpness; a number in [0, 1) or a schedule. 0 is the base
            optimizer, 1/2 is SAM, and 0.9 counts the sharpness nine times. To first
            order a radius a times as large has the same effect.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho`` or ``eps`` is negative, infinite or NaN, or ``gamma`` is
            outside [0, 1).

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**2) / 2
        >>> tx = optax.chain(sam_jax.wsam(rho=0.5, gamma=0.75), optax.sgd(0.1))
        >>> w = jnp.array([0.0, 2.0])
        >>> updates, _ = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(optax.apply_updates(w, updates))  # 2 - 0.1 * (2 + 3 * 0.5)
        [0.   1.65]

    References:
        Yue, Jiang, Ye, Gao, Liu, Zhang, "Sharpness-Aware Minimization Revisited:
        Weighted Sharpness as a Regularization Term", KDD 2023, `2305.15817
        <https://arxiv.org/abs/2305.15817>`_

    Differences from the authors' code:
        intelligent-machine-learning/atorch adds its eps to the norm instead of flooring
        it, and defaults to the decoupled form.
    """
    checks.below_one("gamma", gamma, schedule=True)

    def combine(
        grads: optax.Updates, perturbed_grads: optax.Updates, count: jax.Array
    ) -> optax.Updates:
        weight = sharpness_weight(gamma, count)
        return numerics.combine((1 - weight, grads), (weight, perturbed_grads))

    return core.sharpness_aware(ascent.on_sphere(rho, eps), combine, mask=mask)


def sharpness_weight(gamma: optax.ScalarOrSchedule, count: jax.Array) -> jax.Array:
    r"""The weight :math:`a = \gamma / (1 - \gamma)` after ``count`` updates."""
    share = core.value_at(gamma, count)
    return share / (1 - share)
