"""SAM (Foret et al., 2021)."""

import optax

from sam_jax.methods import ascent, core, masks


def sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Sharpness-aware minimization: the gradient at the worst point of a ball.

    .. math::

        d = \nabla L\left(w + \rho \frac{g}{\|g\|}\right), \qquad g = \nabla L(w)

    Two gradients per update; no state but counters and diagnostics.

    Use it as the first choice: the best studied variant, with one coefficient, which is
    worth a search (0.05 to 0.5).

    Args:
        rho: radius of the perturbation, in units of the weights' global 2-norm; a
            number >= 0 or a schedule of the update count (from 0).
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho`` or ``eps`` is negative, infinite or NaN.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(jnp.array([1.0, 10.0]) * w**2)
        >>> tx = optax.chain(sam_jax.sam(rho=0.05), optax.sgd(0.04))
        >>> w = jnp.array([1.0, 1.0])
        >>> state = tx.init(w)
        >>> for _ in range(5):
        ...     updates, state = tx.update(
        ...         jax.grad(loss)(w), state, w, grad_fn=jax.grad(loss)
        ...     )
        ...     w = optax.apply_updates(w, updates)
        ...     print(f"{loss(w):.4f}")
        1.1023
        0.7125
        0.5968
        0.4995
        0.4176

    References:
        Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-Aware Minimization for Efficiently
        Improving Generalization", ICLR 2021, `2010.01412
        <https://arxiv.org/abs/2010.01412>`_

    Differences from the authors' code:
        google-research/sam has no floor of the norm (NaN at a zero gradient), puts the
        weight decay into the loss, hence into the perturbation, and takes one
        perturbation per device. Here decay belongs to the chain and the group that
        shares a perturbation is the caller's choice; see `pmean`.
    """
    return core.sharpness_aware(ascent.on_sphere(rho, eps), mask=mask)
