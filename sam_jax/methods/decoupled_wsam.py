"""WSAM in its decoupled form (Yue et al., 2023)."""

from typing import Any

import optax

from sam_jax import checks
from sam_jax.methods import ascent as blocks
from sam_jax.methods import (
    calls,
    core,
    devices,
    masks,
    numerics,
    observations,
    optimizers,
    wsam,
)


def decoupled_wsam(
    learning_rate: optax.ScalarOrSchedule,
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    gamma: optax.ScalarOrSchedule = 0.9,
    base: optimizers.Base = optimizers.momentum_sgd,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Weighted SAM, decoupled: the sharpness bypasses the base optimizer.

    .. math::

        \Delta w = \mathrm{base}_\eta(g) - \eta\, a\, (g_p - g), \qquad
        a = \frac{\gamma}{1 - \gamma}, \quad
        g_p = \nabla L\left(w + \rho\, \frac{g}{\|g\|}\right), \quad g = \nabla L(w)

    Two gradients per update; no state but counters and diagnostics beside the base's.

    Use it to weigh sharpness against loss over a base with momentum or preconditioner,
    such as AdamW. The base sees only the plain gradient: the sharpness is decoupled, as
    AdamW's weight decay is. It is a complete optimizer: no other follows it in a chain.

    Args:
        learning_rate: step size of the base and of the sharpness; a number >= 0 or a
            schedule of the update count (from 0).
        rho: radius of the perturbation; a number >= 0 or a schedule.
        gamma: weight of the sharpness; a number in [0, 1) or a schedule. 0 is the base
            optimizer.
        base: an optimizer as a function of its learning rate, such as ``optax.adamw``;
            the default is SGD with momentum 0.9.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        An optimizer: its update returns what is added to the parameters, and needs
        ``params`` and ``grad_fn`` as in `sharpness_aware`. Other keywords are passed to
        the base.

    Raises:
        ValueError: if ``learning_rate``, ``rho`` or ``eps`` is negative, infinite or
            NaN, ``gamma`` is outside [0, 1), or ``base`` no function that makes an
            optimizer.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**2) / 2
        >>> tx = sam_jax.decoupled_wsam(0.1, rho=0.5, gamma=0.75, base=optax.sgd)
        >>> w = jnp.array([0.0, 2.0])
        >>> updates, _ = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(optax.apply_updates(w, updates))  # 2 - 0.1 * 2 - 0.1 * 3 * 0.5
        [0.   1.65]

    References:
        Yue, Jiang, Ye, Gao, Liu, Zhang, "Sharpness-Aware Minimization Revisited:
        Weighted Sharpness as a Regularization Term", KDD 2023, `2305.15817
        <https://arxiv.org/abs/2305.15817>`_

    Differences from the authors' code:
        intelligent-machine-learning/atorch adds its eps to the norm instead of flooring
        it, and keeps copies of both gradients in its state.
    """
    checks.nonnegative("learning_rate", learning_rate, schedule=True)
    checks.below_one("gamma", gamma, schedule=True)
    ascent = masks.kept_only(blocks.on_sphere(rho, eps), mask)
    optimizer = optimizers.make_base(base, learning_rate)

    def update_fn(
        updates: optax.Updates,
        state: optimizers.WithBaseState,
        params: optax.Params | None = None,
        *,
        grad_fn: calls.GradFn | None = None,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optimizers.WithBaseState]:
        gradient_at = core.second_gradient(params, grad_fn, value_and_grad_fn)
        grads = updates
        displacement, ascent_state = ascent.update(grads, state.ascent, params)
        perturbed_loss, perturbed_grads = gradient_at(displacement)
        step, base_state = optimizer.update(
            devices.agree(grads),
            state.base,
            params,
            grad_fn=grad_fn,
            value_and_grad_fn=value_and_grad_fn,
            **extra_args,
        )
        # The difference first: it is exactly zero where nothing was perturbed.
        sharpness = numerics.combine((1.0, perturbed_grads), (-1.0, grads))
        rate = core.value_at(learning_rate, state.count)
        weight = wsam.sharpness_weight(gamma, state.count)
        updates = numerics.combine(
            (1.0, step), (-rate * weight, devices.agree(sharpness))
        )
        return updates, optimizers.WithBaseState(
            count=core.next_count(state.count),
            ascent=ascent_state,
            base=base_state,
            diagnostics=observations.observe(
                grads, params, displacement, perturbed_loss, perturbed_grads
            ),
        )

    return optimizers.full_optimizer(
        optimizers.init_with_base(ascent, optimizer), update_fn
    )
