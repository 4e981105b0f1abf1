"""USAM, SAM without normalization (Andriushchenko and Flammarion, 2022)."""

import optax

from sam_jax import checks
from sam_jax.methods import ascent, core, masks


def usam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Unnormalized SAM: the perturbation shrinks with the gradient.

    .. math::

        d = \nabla L(w + \rho\, g), \qquad g = \nabla L(w)

    Two gradients per update; no state but counters and diagnostics. Unlike SAM it
    converges with constant ``rho`` and step size (Khanh et al. 2024, Theorem 4.2).

    Use it for its theory, or where SAM's constant radius stalls: near a minimum the
    perturbation vanishes.

    Args:
        rho: the perturbation is ``rho`` times the gradient; a number >= 0 or a schedule
            of the update count (from 0). In units of weights per gradient, so values
            for SAM do not carry over.
        eps: accepted as by every method; there is no norm to floor here.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho`` or ``eps`` is negative, infinite or NaN.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**2) / 2
        >>> tx = optax.chain(sam_jax.usam(rho=0.5), optax.sgd(0.1))
        >>> w = jnp.array([1.0, 2.0])
        >>> updates, _ = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(optax.apply_updates(w, updates))  # w - 0.1 * 1.5 * w
        [0.85 1.7 ]

    References:
        Andriushchenko, Flammarion, "Towards Understanding Sharpness-Aware
        Minimization", ICML 2022, `2206.06232 <https://arxiv.org/abs/2206.06232>`_

    Differences from the authors' code:
        None known: it is ``sam_no_grad_norm`` of tml-epfl/understanding-sam.
    """
    checks.nonnegative("eps", eps)
    return core.sharpness_aware(ascent.scale(rho), mask=mask)
