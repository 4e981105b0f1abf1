"""Focal-SAM (Li et al., 2025)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import ascent, calls, core, devices, masks, numerics


def focal_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    gamma: optax.ScalarOrSchedule = 1.5,
    lam: optax.ScalarOrSchedule = 0.7,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Focal-SAM: the rarer a class, the more of its sharpness is minimized.

    .. math::

        d = \nabla L(w) - \lambda\, \nabla L^\gamma(w)
        + \lambda\, \nabla L^\gamma(w + \varepsilon), \qquad
        \varepsilon = \rho\, \frac{\nabla L^\gamma(w)}{\|\nabla L^\gamma(w)\|}

        L^\gamma = \frac{1}{B} \sum_i (1 - \pi_{y_i})^\gamma\, \ell_i

    with :math:`\pi_y` the share of class y in the training set.

    Three gradients per update; no state but counters and diagnostics. Their angle is
    between gradients of :math:`L^\gamma`; their perturbed loss is ``value``, which is
    the loss at the weights, and the rise of :math:`L^\gamma`.

    Use it where some classes have far fewer examples than others. With ``gamma`` 0 and
    ``lam`` 1 it is SAM.

    Args:
        rho: radius of the perturbation, in units of the weights' global 2-norm; a
            number >= 0 or a schedule of the update count (from 0).
        gamma: how far frequent classes are left out; a number >= 0 or a schedule. 0
            counts all alike.
        lam: :math:`\lambda`, weight of the sharpness; a number >= 0 or a schedule. 0
            leaves the gradient as it is.
        eps: floor of the norm of the focal gradient.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params``, ``class_shares`` [B], the share in [0, 1] of each
        example's class in the training set, and ``weighted_value_and_grad_fn(params,
        factors) -> (loss, grads)``, of the batch's mean of ``factors`` [B] times the
        losses of the examples.

    Raises:
        ValueError: if a coefficient is negative, infinite or NaN; by the update, if a
            keyword is missing.

    Example:
        >>> import jax, jax.numpy as jnp, sam_jax
        >>> batch, shares = jnp.array([1.0, 3.0]), jnp.array([0.75, 0.25])
        >>> def loss(w, factors):
        ...     return jnp.mean(factors * batch * w**2 / 2)
        >>> tx, w = sam_jax.focal_sam(rho=0.5, gamma=1.0, lam=1.0), jnp.array(1.0)
        >>> d, _ = tx.update(
        ...     jax.grad(loss)(w, jnp.ones(2)), tx.init(w), w, class_shares=shares,
        ...     weighted_value_and_grad_fn=jax.value_and_grad(loss),
        ... )
        >>> print(d)  # 2 * 1, and (0.25 * 1 + 0.75 * 3) / 2 * 0.5
        2.625

    References:
        Li, Xu, Yang, Wang, Zhang, Cao, Huang, "Focal-SAM: Focal Sharpness-Aware
        Minimization for Long-Tailed Classification", ICML 2025, `2505.01660
        <https://arxiv.org/abs/2505.01660>`_

    Differences from the authors' code:
        scongl/Focal-SAM puts lambda into the factors, which the normalization cancels
        in the perturbation, and adds 1e-12 to the norm. Its cross-entropy adjusts the
        logits by the shares of the classes; here the loss is the caller's.
    """
    for name, value in {"gamma": gamma, "lam": lam}.items():
        checks.nonnegative(name, value, schedule=True)
    method = core.sharpness_aware(ascent.on_sphere(rho, eps), mask=mask)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        weighted_value_and_grad_fn: calls.WeightedValueAndGradFn | None = None,
        class_shares: jax.Array | None = None,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        calls.require(
            "class_shares=class_shares, "
            "weighted_value_and_grad_fn=weighted_value_and_grad_fn",
            params=params,
            class_shares=class_shares,
            weighted_value_and_grad_fn=weighted_value_and_grad_fn,
        )
        assert class_shares is not None and weighted_value_and_grad_fn is not None
        shares = jnp.asarray(class_shares)
        rest = 1 - numerics.wide(shares)
        power = core.value_at(gamma, state.count).astype(rest.dtype)
        factors = (rest**power).astype(shares.dtype)

        def focal(params: optax.Params) -> tuple[jax.Array, optax.Updates]:
            return weighted_value_and_grad_fn(params, factors)

        assert params is not None
        below, grads = calls.value_and_gradient(focal, params)

        def risen(params: optax.Params) -> tuple[jax.Array, optax.Updates]:
            loss, grads = calls.value_and_gradient(focal, params)
            above, start, known = map(numerics.wide, (loss, below, value))
            return known + above - start, grads

        given = (
            {"value_and_grad_fn": None, "grad_fn": lambda params: focal(params)[1]}
            if value is None
            else {"value_and_grad_fn": risen}
        )
        weight = core.value_at(lam, state.count)
        perturbed, state = method.update(grads, state, params, **(extra_args | given))
        direction = numerics.combine(
            (1.0, updates), (-weight, grads), (weight, perturbed)
        )
        # The gradient that the caller has given tells whether it is the right one.
        length = devices.agree(numerics.norm(updates)).astype(jnp.float32)
        seen = state.diagnostics._replace(grad_norm=length)
        return direction, state._replace(diagnostics=seen)

    return core.transformation(method.init, update_fn)
