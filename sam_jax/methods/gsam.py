"""GSAM (Zhuang et al., 2022)."""

import jax
import optax

from sam_jax import checks
from sam_jax.methods import ascent, core, masks, numerics


def gsam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    alpha: optax.ScalarOrSchedule = 0.4,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Surrogate-gap guided SAM: it also closes the gap to the perturbed loss.

    .. math::

        d = g_p - \alpha \left(g - \langle g, \hat g_p \rangle\, \hat g_p\right),
        \qquad g_p = \nabla L\left(w + \rho\, \frac{g}{\|g\|}\right), \quad
        \hat g_p = \frac{g_p}{\|g_p\|}, \quad g = \nabla L(w)

    Two gradients per update; no state but counters and diagnostics.

    Use it for networks without BatchNorm, such as vision transformers, the authors'
    main case, and where you can afford to search a second coefficient.

    Args:
        rho: radius of the perturbation; a number >= 0 or a schedule of the update count
            (from 0). The paper's radius follows the learning rate; see
            `schedules.tied_to`.
        alpha: how strongly the direction ascends along the part of the gradient that is
            orthogonal to the perturbed one, which leaves the perturbed loss as it is to
            first order; a number >= 0 or a schedule. 0 is SAM.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`. The orthogonal part
            is always taken over all of them.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho``, ``alpha`` or ``eps`` is negative, infinite or NaN.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: w[0] * w[1]
        >>> tx = optax.chain(sam_jax.gsam(rho=5.0, alpha=0.5), optax.sgd(1.0))
        >>> w = jnp.array([4.0, 3.0])
        >>> updates, _ = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(updates)  # g = (3, 4), g_p = (7, 7): -(7, 7) + (-1/2, 1/2) / 2
        [-7.25 -6.75]

    References:
        Zhuang, Gong, Yuan, Cui, Adam, Dvornek, Tatikonda, Duncan, Liu, "Surrogate Gap
        Minimization Improves Sharpness-Aware Training", ICLR 2022, `2203.08065
        <https://arxiv.org/abs/2203.08065>`_

    Differences from the authors' code:
        juntang-zhuang/GSAM and big_vision extrapolate the radius below its minimum
        while the learning rate warms up; `schedules.tied_to` stays at the minimum.
        big_vision's ``minimize_fp=False``, another combination of the two gradients, is
        not offered, nor its element-wise adaptive radius.
    """
    checks.nonnegative("alpha", alpha, schedule=True)

    def combine(
        grads: optax.Updates, perturbed_grads: optax.Updates, count: jax.Array
    ) -> optax.Updates:
        orthogonal = numerics.orthogonal(grads, perturbed_grads)
        return numerics.combine(
            (1.0, perturbed_grads), (-core.value_at(alpha, count), orthogonal)
        )

    return core.sharpness_aware(ascent.on_sphere(rho, eps), combine, mask=mask)
