"""Extragradient (Korpelevich, 1976), as a method of the SAM family."""

import optax

from sam_jax import checks
from sam_jax.methods import ascent, core, masks


def extragradient(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Extragradient: the gradient one step ahead, down instead of up.

    .. math::

        d = \nabla L(w - \rho\, g), \qquad g = \nabla L(w)

    Two gradients per update; no state but counters and diagnostics.

    Use it as a control: it is `usam` with the opposite sign, so what the two have in
    common is not due to the ascent. It does not look for flat minima.

    Args:
        rho: the look-ahead is ``rho`` times the gradient; a number >= 0 or a schedule
            of the update count (from 0). In units of weights per gradient, as a
            learning rate.
        eps: accepted as by every method; there is no norm to floor here.
        mask: displace only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho`` or ``eps`` is negative, infinite or NaN.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**2) / 2
        >>> tx = optax.chain(sam_jax.extragradient(rho=0.5), optax.sgd(0.1))
        >>> w = jnp.array([1.0, 2.0])
        >>> updates, _ = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(optax.apply_updates(w, updates))  # w - 0.1 * 0.5 * w
        [0.95 1.9 ]

    References:
        Korpelevich, "The extragradient method for finding saddle points and other
        problems", Matecon 1976

        Khanh, Luong, Mordukhovich, Tran, "Fundamental Convergence Analysis of
        Sharpness-Aware Minimization", NeurIPS 2024, `2401.08060
        <https://arxiv.org/abs/2401.08060>`_, Theorem 4.2, for convergence with constant
        ``rho`` and step size

    Differences from the authors' code:
        None known; there is no public code. ``rho`` and the learning rate are two
        choices here.
    """
    checks.nonnegative("eps", eps)
    return core.sharpness_aware(
        optax.chain(ascent.scale(rho), optax.scale(-1.0)), mask=mask
    )
