"""Unified SAM (Oikonomou and Loizou, 2025)."""

import optax

from sam_jax.methods import ascent, core, masks


def unified_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    lam: optax.ScalarOrSchedule | str = "1-1/t",
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Unified SAM: from USAM (lam 0) to SAM (lam 1).

    .. math::

        d = \nabla L\left(w + \rho \left(1 - \lambda_t + \frac{\lambda_t}{\|g\|}\right)
        g\right), \qquad g = \nabla L(w)

    Two gradients per update; no state but counters and diagnostics.

    Use it as a compromise between SAM's strong perturbation far from a minimum and
    USAM's convergence near it.

    Args:
        rho: radius of the perturbation; a number >= 0 or a schedule of the update count
            (from 0).
        lam: how much of the gradient is normalized: a number in [0, 1], a schedule of
            the update count (from 0), or the paper's ``'1/t'`` or ``'1-1/t'``, in which
            t counts the updates from 1. The default is the paper's steady best.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho`` or ``eps`` is negative, infinite or NaN, or ``lam`` is
            outside [0, 1] or another string.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**2) / 2
        >>> tx = optax.chain(sam_jax.unified_sam(rho=0.5, lam=0.5), optax.sgd(0.1))
        >>> w = jnp.array([0.0, 2.0])
        >>> updates, _ = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(optax.apply_updates(w, updates))  # 2 - 0.1 * (2 + 0.5 * (1 + 0.5))
        [0.    1.725]

    References:
        Oikonomou, Loizou, "Sharpness-Aware Minimization: General Analysis and Improved
        Rates", ICLR 2025, `2503.02225 <https://arxiv.org/abs/2503.02225>`_

    Differences from the authors' code:
        The PyPI package unifiedsam adds 1e-12 to the norm instead of flooring it, and
        does not save its step counter: a resumed run starts ``'1/t'`` again. Here the
        counter is part of the state.
    """
    return core.sharpness_aware(
        optax.chain(ascent.partially_normalize(lam, eps), ascent.scale(rho)), mask=mask
    )
