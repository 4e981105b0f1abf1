"""Gradient norm penalty (Zhao et al., 2022)."""

import jax
import optax

from sam_jax import checks
from sam_jax.methods import ascent, core, masks, numerics


def gnp(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    alpha: optax.ScalarOrSchedule = 0.8,
    normalize_clean: bool = False,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient norm penalty: between the plain gradient (alpha 0) and SAM's (alpha 1).

    .. math::

        d = (1 - \alpha)\, g + \alpha\, \nabla L\left(w + \rho \frac{g}{\|g\|}\right),
        \qquad g = \nabla L(w)

    To first order it is the gradient of :math:`L + \alpha \rho \|\nabla L\|`.

    Two gradients per update; no state but counters and diagnostics.

    Use it where SAM needs a large radius to matter, and its direction is then too far
    from the gradient's. An ``alpha`` below 1 keeps part of the gradient.

    Args:
        rho: radius of the perturbation (the paper's r), in units of the weights' global
            2-norm; a number >= 0 or a schedule of the update count (from 0).
        alpha: weight of the perturbed gradient; a number in [0, 1] or a schedule, such
            as a warm-up of the penalty. 1 is SAM. The penalty's coefficient is
            ``alpha * rho``.
        normalize_clean: mix in :math:`g / \|g\|` instead of g, as the authors' code
            does by default. It is then no plain gradient descent at ``rho`` 0.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho`` or ``eps`` is negative, infinite or NaN, or ``alpha`` is
            outside [0, 1].

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**2) / 2
        >>> tx = optax.chain(sam_jax.gnp(rho=0.5, alpha=0.8), optax.sgd(0.1))
        >>> w = jnp.array([0.0, 2.0])
        >>> updates, _ = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(optax.apply_updates(w, updates))  # 2 - 0.1 * (0.2 * 2 + 0.8 * 2.5)
        [0.   1.76]

    References:
        Zhao, Zhang, Hu, "Penalizing Gradient Norm for Efficiently Improving
        Generalization in Deep Learning", ICML 2022, `2202.03599
        <https://arxiv.org/abs/2202.03599>`_

    Differences from the authors' code:
        zhaoyang-0204/gnp mixes in the normalized clean gradient by default, unlike the
        paper's formula; that is ``normalize_clean=True`` here.
    """
    checks.between("alpha", alpha, 0, 1, schedule=True)

    def combine(
        grads: optax.Updates, perturbed_grads: optax.Updates, count: jax.Array
    ) -> optax.Updates:
        share = core.value_at(alpha, count)
        if normalize_clean:
            grads = numerics.unit(grads, eps)
        return numerics.combine((1 - share, grads), (share, perturbed_grads))

    return core.sharpness_aware(ascent.on_sphere(rho, eps), combine, mask=mask)
