"""CR-SAM (Wu et al., 2024)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import ascent as blocks
from sam_jax.methods import calls, core, masks, numerics, observations


def cr_sam(
    rho: optax.ScalarOrSchedule = 0.1,
    *,
    gamma: optax.ScalarOrSchedule = 0.1,
    beta: optax.ScalarOrSchedule = 0.1,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Curvature-regularized SAM: compares gradients uphill, here and downhill.

    .. math::

        d = g_+ + \gamma\, (g_+ + g_- - 2 g) + \beta\, (g_+ - g_-), \qquad
        g_\pm = \nabla L\left(w \pm \rho\, \frac{g}{\|g\|}\right), \quad g = \nabla L(w)

    Three gradients per update; no state but counters and diagnostics. The two at the
    perturbed weights do not depend on each other.

    Use it where a third gradient is affordable and the radius is large: the difference
    that ``gamma`` weighs vanishes with the square of the radius.

    Args:
        rho: radius of the perturbation; a number >= 0 or a schedule of the update count
            (from 0).
        gamma: weight of the second difference, an estimate of how the curvature along
            the gradient changes; a number >= 0 or a schedule.
        beta: weight of the first difference, an estimate of the curvature itself; a
            number >= 0 or a schedule. With ``gamma`` 0 too it is SAM.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`. Diagnostics
        are of the gradient uphill.

    Raises:
        ValueError: if ``rho``, ``gamma``, ``beta`` or ``eps`` is negative, infinite or
            NaN.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**3) / 3  # the gradient is w**2
        >>> tx = sam_jax.cr_sam(rho=1.0, gamma=0.5, beta=0.25)
        >>> w = jnp.array([2.0])
        >>> d, _ = tx.update(jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss))
        >>> print(d)  # 9 + 0.5 * (9 + 1 - 8) + 0.25 * (9 - 1)
        [12.]

    References:
        Wu, Luo, Wunsch, "CR-SAM: Curvature Regularized Sharpness-Aware Minimization",
        AAAI 2024, `2312.13555 <https://arxiv.org/abs/2312.13555>`_

    Differences from the authors' code:
        None known in the formula, which is that of TrustAIoT/CR-SAM.
    """
    checks.nonnegative("gamma", gamma, schedule=True)
    checks.nonnegative("beta", beta, schedule=True)
    ascent = masks.kept_only(blocks.on_sphere(rho, eps), mask)

    def update_fn(
        updates: optax.Updates,
        state: core.SharpnessAwareState,
        params: optax.Params | None = None,
        *,
        grad_fn: calls.GradFn | None = None,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, core.SharpnessAwareState]:
        del extra_args
        gradient_at = core.second_gradient(params, grad_fn, value_and_grad_fn)
        grads = updates
        displacement, ascent_state = ascent.update(grads, state.ascent, params)
        loss_up, grads_up = gradient_at(displacement)
        _, grads_down = gradient_at(jax.tree.map(jnp.negative, displacement))
        second = core.value_at(gamma, state.count)
        first = core.value_at(beta, state.count)
        direction = numerics.combine(
            (1 + second + first, grads_up),
            (second - first, grads_down),
            (-2 * second, grads),
        )
        return direction, core.SharpnessAwareState(
            count=core.next_count(state.count),
            ascent=ascent_state,
            diagnostics=observations.observe(
                grads, params, displacement, loss_up, grads_up
            ),
        )

    return core.transformation(core.init_with(ascent), update_fn)
