"""SAM with a stochastic Polyak step size (Oikonomou and Loizou, 2026)."""

from typing import Any

import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import (
    ascent,
    calls,
    core,
    devices,
    masks,
    numerics,
    observations,
    optimizers,
)


def sam_sps(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    rho: optax.ScalarOrSchedule = 0.1,
    *,
    lam: optax.ScalarOrSchedule | str = 1.0,
    f_min: optax.ScalarOrSchedule = 0.0,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SAM or USAM with the stochastic Polyak step size.

    .. math::

        \varepsilon &= \rho \left(1 - \lambda + \frac{\lambda}{\|g\|}\right) g, \qquad
        g = \nabla L(w), \qquad g_p = \nabla L(w + \varepsilon) \\
        \gamma &= \min\left\{ \frac{\left[L(w + \varepsilon) - L_{\min} -
        \langle g_p, \varepsilon \rangle\right]_+}{\|g_p\|^2},\ \gamma_b \right\},
        \qquad w \leftarrow w - \gamma\, (g_p + \delta w)

    Two gradients per update; no state but counters and diagnostics.

    Use it where no step size is known and the loss can be brought near its lower bound
    on every batch (a network that fits its training set). It is a complete
    optimizer, without momentum.

    Args:
        learning_rate: cap :math:`\gamma_b` of the step size; a number >= 0 or a
            schedule of the update count (from 0).
        rho: radius of the perturbation; a number >= 0 or a schedule.
        lam: how much of the gradient is normalized, as in `unified_sam`: 1 is SAM, 0 is
            USAM; a number in [0, 1], a schedule, ``'1/t'`` or ``'1-1/t'``.
        f_min: lower bound :math:`L_{\min}` of a batch's loss; a number or a schedule.
        weight_decay: :math:`\delta`, at the unperturbed weights and not part of the
            step size; a number >= 0 or a schedule.
        eps: floor of the gradients' norms.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        An optimizer. Its update needs ``params`` and
        ``value_and_grad_fn(params) -> (loss, grads)``; see `sharpness_aware`.

    Raises:
        ValueError: if a coefficient is outside its range; by the update, if a keyword
            is missing.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**2) / 2
        >>> tx = sam_jax.sam_sps(1.0, rho=1.0)
        >>> w = jnp.array([0.0, 3.0])
        >>> updates, _ = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w,
        ...     value_and_grad_fn=jax.value_and_grad(loss),
        ... )
        >>> print(optax.apply_updates(w, updates))  # 3 - 4 * (8 - 4 * 1) / 16
        [0. 2.]

    References:
        Oikonomou, Loizou, "SAM-SPS", 2026, `2606.01827
        <https://arxiv.org/abs/2606.01827>`_

    Differences from the authors' code:
        The PyPI package sam-sps decays weights by 5e-4 by default, floors
        the squared norm of the perturbed gradient at 1e-12, and computes the step in
        float32 whatever the dtype of the weights.
    """
    checks.nonnegative("learning_rate", learning_rate, schedule=True)
    checks.finite("f_min", f_min, schedule=True)
    checks.nonnegative("weight_decay", weight_decay, schedule=True)
    perturb = masks.kept_only(
        optax.chain(ascent.partially_normalize(lam, eps), ascent.scale(rho)), mask
    )

    def update_fn(
        updates: optax.Updates,
        state: core.SharpnessAwareState,
        params: optax.Params | None = None,
        *,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, core.SharpnessAwareState]:
        del extra_args
        calls.require(
            "value_and_grad_fn=value_and_grad_fn",
            params=params,
            value_and_grad_fn=value_and_grad_fn,
        )
        gradient_at = core.second_gradient(params, None, value_and_grad_fn)
        cap, lowest, decay = (
            core.value_at(coefficient, state.count)
            for coefficient in (learning_rate, f_min, weight_decay)
        )
        displacement, ascent_state = perturb.update(updates, state.ascent, params)
        loss, grads = gradient_at(displacement)
        seen = observations.observe(updates, params, displacement, loss, grads)

        # The same step on all devices.
        slope = numerics.dot(grads, displacement)
        excess = (
            jnp.asarray(loss).astype(slope.dtype) - lowest.astype(slope.dtype) - slope
        )
        excess, grads = jnp.maximum(devices.agree(excess), 0), devices.agree(grads)
        # Divided twice: the squared norm may overflow. No step without a gradient.
        norm = numerics.norm(grads)
        once = jnp.multiply(*numerics.quotient(excess, norm, eps))
        part, polyak = numerics.quotient(once, norm, eps)
        step = jnp.minimum(polyak, cap.astype(polyak.dtype) / part)
        steps = numerics.combine(
            (-step, numerics.multiply(grads, part)),
            (-step * part * decay.astype(step.dtype), params),
        )
        return steps, core.SharpnessAwareState(
            count=core.next_count(state.count),
            ascent=ascent_state,
            diagnostics=seen,
        )

    return optimizers.full_optimizer(core.init_with(perturb), update_fn)
