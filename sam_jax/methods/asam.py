"""ASAM (Kwon et al., 2021)."""

import math

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import ascent, core, masks


def asam(
    rho: optax.ScalarOrSchedule = 0.5,
    *,
    eta: float = 0.01,
    p: float = 2,
    layerwise: bool = False,
    biases: bool = False,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adaptive SAM: every weight is perturbed in proportion to its size.

    .. math::

        d = \nabla L(w + \varepsilon), \qquad
        \varepsilon = \rho \frac{T^2 g}{\|T g\|} \ (p = 2) \quad \text{or} \quad
        \varepsilon = \rho\, T \operatorname{sign} g \ (p = \infty), \qquad
        T = |w| + \eta, \qquad g = \nabla L(w)

    Scaling one layer up and the next one down by the same factor, which does not change
    a rectifier network, does not change the perturbed network either (``eta`` 0).

    Two gradients per update; no state but counters and diagnostics.

    Use it where layers differ much in the size of their weights, as in networks without
    normalization layers. Its radius is about ten times that of SAM.

    Args:
        rho: radius of the perturbation relative to the weights: with ``p`` 2 the
            2-norm of :math:`T^{-1} \varepsilon`, with ``p`` inf its largest entry; a
            number >= 0 or a schedule of the update count (from 0).
        eta: added to the weights' sizes, so that small weights move as well; a finite
            number >= 0.
        p: norm of the ball, 2 or ``math.inf``. For inf the radius is per weight and has
            to be much smaller.
        layerwise: the size of a weight is the 2-norm of its array,
            :math:`T = \|w_l\| + \eta`, not its own.
        biases: arrays of less than two dimensions (biases, normalization) are scaled as
            well; else T is 1 there.
        eps: floor of the norm; not used for ``p`` inf.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho``, ``eta`` or ``eps`` is negative, infinite or NaN, or
            ``p`` is neither 2 nor inf.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**2) / 2
        >>> tx = optax.chain(sam_jax.asam(rho=0.5, eta=0.0), optax.sgd(0.1))
        >>> w = jnp.array([[0.0, 2.0]])  # the perturbation is 0.5 * 2
        >>> updates, _ = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(optax.apply_updates(w, updates))  # 2 - 0.1 * 3
        [[0.  1.7]]

    References:
        Kwon, Kim, Park, Choi, "ASAM: Adaptive Sharpness-Aware Minimization for
        Scale-Invariant Learning of Deep Neural Networks", ICML 2021, `2102.11600
        <https://arxiv.org/abs/2102.11600>`_

    Differences from the authors' code:
        SamsungLabs/ASAM takes arrays named "weight", also those of normalization
        layers, for weights, and has p = 2 elementwise only. The ``adaptive`` flag of
        davda54/sam is ``eta=0, biases=True`` (with a radius of 2).
    """
    checks.one_of("p", p, (2, math.inf))
    checks.nonnegative("eps", eps)
    if p == 2:
        climb = ascent.normalize_by_weights(
            eta, layerwise=layerwise, biases=biases, eps=eps
        )
    else:
        climb = optax.chain(
            optax.stateless(lambda updates, _: jax.tree.map(jnp.sign, updates)),
            ascent.scale_by_weights(eta, layerwise=layerwise, biases=biases),
        )
    return core.sharpness_aware(optax.chain(climb, ascent.scale(rho)), mask=mask)
