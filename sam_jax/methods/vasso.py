"""VaSSO (Li and Giannakis, 2023), also in the form of Unified SAM."""

import optax

from sam_jax.methods import ascent, averages, core, masks


def vasso(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    theta: optax.ScalarOrSchedule = 0.9,
    lam: optax.ScalarOrSchedule | str = 1.0,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Variance-suppressed SAM: the perturbation follows an average of the gradients.

    .. math::

        e_t = (1 - \theta)\, e_{t-1} + \theta\, g, \qquad
        d = \nabla L\left(w + \rho \left(1 - \lambda + \frac{\lambda}{\|e_t\|}\right)
        e_t\right), \qquad g = \nabla L(w)

    Two gradients per update; state: one copy of the parameters.

    Use it where batches are small: gradient noise turns SAM's perturbation away from
    the worst direction, and the average reduces that noise.

    Args:
        rho: radius of the perturbation, in units of the weights' global 2-norm; a
            number >= 0 or a schedule of the update count (from 0).
        theta: weight of the *new* gradient, so that a smaller one smooths more; a
            number in [0, 1] or a schedule. 1 is SAM. The average starts at the first
            gradient.
        lam: how much of the average is normalized, as in `unified_sam`; a number in
            [0, 1], a schedule, ``'1/t'`` or ``'1-1/t'``. 1 is VaSSO.
        eps: floor of the average's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho`` or ``eps`` is negative, infinite or NaN, or ``theta`` or
            ``lam`` is outside [0, 1] or another string.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**2) / 2
        >>> tx = optax.chain(sam_jax.vasso(rho=0.5, theta=0.5), optax.sgd(0.1))
        >>> w = jnp.array([0.0, 2.0])
        >>> updates, _ = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(optax.apply_updates(w, updates))  # 2 - 0.1 * 2.5
        [0.   1.75]

    References:
        Li, Giannakis, "Enhancing Sharpness-Aware Optimization Through Variance
        Suppression", NeurIPS 2023, `2309.15639 <https://arxiv.org/abs/2309.15639>`_

        Oikonomou, Loizou, "Sharpness-Aware Minimization: General Analysis and Improved
        Rates", ICLR 2025, `2503.02225 <https://arxiv.org/abs/2503.02225>`_, section 4,
        for ``lam`` (Unified VaSSO)

    Differences from the authors' code:
        BingcongLi/VaSSO adds 1e-7 to the norm instead of flooring it, takes the running
        statistics of BatchNorm from both passes, and restores the weights by
        subtraction, so that they drift by rounding.
    """
    return core.sharpness_aware(
        optax.chain(
            averages.ema(theta),
            ascent.partially_normalize(lam, eps),
            ascent.scale(rho),
        ),
        mask=mask,
    )
