"""Stable SAM (Tan et al., 2025)."""

import jax
import optax

from sam_jax.methods import ascent, core, masks, numerics


def stable_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Stable SAM: the perturbed gradient, rescaled to the norm of the plain gradient.

    .. math::

        d = \frac{\|g\|}{\|g_p\|}\, g_p, \qquad
        g_p = \nabla L\left(w + \rho\, \frac{g}{\|g\|}\right), \quad g = \nabla L(w)

    Two gradients per update; no state but counters and diagnostics.

    Use it where SAM diverges, or stalls at a saddle point, with the learning rate that
    suits SGD: it has no other coefficient than the radius.

    Args:
        rho: radius of the perturbation; a number >= 0 or a schedule of the update count
            (from 0).
        eps: floor of both gradients' norms.
        mask: perturb only these parameters; see `sharpness_aware`. The lengths are
            always those of the whole gradients.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho`` or ``eps`` is negative, infinite or NaN.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: w[0] * w[1]
        >>> tx = optax.chain(sam_jax.stable_sam(rho=5.0), optax.sgd(2**0.5))
        >>> w = jnp.array([4.0, 3.0])
        >>> updates, _ = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(updates.round(4))  # g = (3, 4), g_p = (7, 7) -> 5 (1, 1) / sqrt(2)
        [-5. -5.]

    References:
        Tan, Zhang, Liu, Wang, Hao, "Stabilizing Sharpness-Aware Minimization Through a
        Simple Renormalization Strategy", JMLR 2025, `2401.07250
        <https://arxiv.org/abs/2401.07250>`_

    Differences from the authors' code:
        There is no public code that we know of.
    """

    def combine(
        grads: optax.Updates, perturbed_grads: optax.Updates, count: jax.Array
    ) -> optax.Updates:
        del count
        length, own = numerics.norm(grads), numerics.norm(perturbed_grads)
        return numerics.multiply(perturbed_grads, *numerics.quotient(length, own, eps))

    return core.sharpness_aware(ascent.on_sphere(rho, eps), combine, mask=mask)
