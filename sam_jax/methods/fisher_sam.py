"""Fisher SAM (Kim et al., 2022)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import ascent, core, masks, numerics


def fisher_sam(
    rho: optax.ScalarOrSchedule = 0.1,
    *,
    eta: optax.ScalarOrSchedule = 1.0,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Fisher SAM: an ellipsoid of the Fisher information instead of SAM's ball.

    .. math::

        d = \nabla L\left(w + \rho \frac{F^{-1} g}{\sqrt{g^\top F^{-1} g}}\right),
        \qquad F = 1 + \eta \operatorname{diag}(g^2), \qquad g = \nabla L(w)

    The squared gradient of the batch stands for the diagonal of the Fisher information.

    Two gradients per update; no state but counters and diagnostics.

    Use it to try a perturbation that moves weights with large gradients less. Its
    effect depends on the scale of the loss: where all :math:`\eta g^2` are far below 1
    it is SAM.

    Args:
        rho: radius of the perturbation in the metric F (the paper's gamma); a number
            >= 0 or a schedule of the update count (from 0).
        eta: weight of the Fisher information; a number >= 0 or a schedule. 0 is SAM.
        eps: floor of the norm :math:`\sqrt{g^\top F^{-1} g}`.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho``, ``eta`` or ``eps`` is negative, infinite or NaN.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**2) / 2
        >>> tx = optax.chain(sam_jax.fisher_sam(rho=0.5, eta=0.75), optax.sgd(0.1))
        >>> w = jnp.array([0.0, 2.0])  # F = 4, the perturbation is 0.5 / 2
        >>> updates, _ = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(optax.apply_updates(w, updates))  # 2 - 0.1 * 2.25
        [0.    1.775]

    References:
        Kim, Li, Hu, Hospedales, "Fisher SAM: Information Geometry and Sharpness Aware
        Minimisation", ICML 2022, `2206.04920 <https://arxiv.org/abs/2206.04920>`_

    Differences from the authors' code:
        None known; there is no public code of the authors.
    """
    checks.nonnegative("eta", eta, schedule=True)
    checks.nonnegative("eps", eps)

    def climb(updates: Any, eta: Any) -> Any:
        return ascent.steepest(updates, _half_axes(updates, eta), eps)

    return core.sharpness_aware(
        optax.chain(ascent.with_coefficient(eta, climb), ascent.scale(rho)), mask=mask
    )


def _half_axes(grads: Any, eta: Any) -> Any:
    """Diagonal of the root of 1/F, whose squares neither over- nor underflow."""

    def half_axis(g: jax.Array) -> jax.Array:
        g = numerics.wide(g)
        root = jnp.sqrt(jnp.asarray(eta).astype(g.dtype))
        return 1 / jnp.hypot(jnp.ones_like(g), root * g)

    return jax.tree.map(half_axis, grads)
