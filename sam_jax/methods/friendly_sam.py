"""Friendly SAM (Li et al., 2024)."""

import optax

from sam_jax.methods import ascent, averages, core, masks


def friendly_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    sigma: optax.ScalarOrSchedule = 1.0,
    lam: optax.ScalarOrSchedule = 0.9,
    include_current: bool = False,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Friendly SAM: perturbs along the batch-specific part of the gradient.

    .. math::

        u_t = g - \sigma\, m_{t-1}, \qquad m_t = \lambda\, m_{t-1} + (1 - \lambda)\, g,
        \qquad d = \nabla L\left(w + \rho \frac{u_t}{\|u_t\|}\right),
        \qquad g = \nabla L(w)

    The average starts at the first gradient, :math:`m_0 = u_0 = g`.

    Two gradients per update; state: one copy of the parameters.

    Use it where SAM helps and batches are small or labels noisy. Do not use it with
    full batches: there is no noise to follow, and the difference tends to zero.

    Args:
        rho: radius of the perturbation, in units of the weights' global 2-norm; a
            number >= 0 or a schedule of the update count (from 0).
        sigma: share of the average that is subtracted, as an estimate of the full
            gradient; a number >= 0 or a schedule. 0 is SAM.
        lam: weight of the *old* average, so that a larger one smooths more; a number in
            [0, 1] or a schedule.
        include_current: the paper's formula, which subtracts :math:`\sigma m_t`, with
            the current gradient in it. For ``sigma`` 1 it gives the same direction;
            else that of a ``sigma`` of :math:`\sigma\lambda / (1-\sigma(1-\lambda))`.
        eps: floor of the difference's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho``, ``sigma`` or ``eps`` is negative, infinite or NaN, or
            ``lam`` is outside [0, 1].

    Example:
        >>> import jax.numpy as jnp, optax, sam_jax
        >>> tx = sam_jax.friendly_sam(rho=0.5)
        >>> w = jnp.zeros(2)
        >>> state = tx.init(w)
        >>> for g in ([3.0, 0.0], [3.0, 4.0]):  # the second one has 4 in addition
        ...     d, state = tx.update(jnp.array(g), state, w, grad_fn=lambda w: w)
        ...     print(d)
        [0.5 0. ]
        [0.  0.5]

    References:
        Li, Zhou, He, Cheng, Huang, "Friendly Sharpness-Aware Minimization", CVPR 2024,
        `2403.12350 <https://arxiv.org/abs/2403.12350>`_

    Differences from the authors' code:
        nblt/F-SAM adds 1e-12 to the norm instead of flooring it. Like it, and unlike
        the paper, the default subtracts the average before the current gradient enters.
    """
    return core.sharpness_aware(
        optax.chain(
            averages.subtract_ema(sigma, lam, include_current=include_current),
            ascent.normalize(eps),
            ascent.scale(rho),
        ),
        mask=mask,
    )
