"""Asynchronous SAM (Jo et al., 2025)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import (
    ascent,
    calls,
    core,
    devices,
    masks,
    observations,
)


class AsyncSAMState(NamedTuple):
    """State of `async_sam`.

    Attributes:
        count: updates done so far. Scalar, int32.
        ascent: state of the ascent.
        stored: how many of the gradients are there. Scalar, int32.
        gradients: of the last ``delay`` updates, the oldest first; trees like params.
        diagnostics: what the last update saw; read it with `diagnostics`.
    """

    count: core.Count
    ascent: optax.OptState
    stored: jax.Array
    gradients: tuple[optax.Updates, ...]
    diagnostics: observations.Diagnostics


def async_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    delay: int = 1,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Asynchronous SAM: perturbs along a gradient of some updates ago.

    .. math::

        d = \nabla L_t\left(w_t + \rho \frac{g_{t-\tau}}{\|g_{t-\tau}\|}\right), \qquad
        g_s = \nabla L_s(w_s)

    The first :math:`\tau` updates are SAM's.

    Two gradients per update; state: one copy of the parameters. With a longer
    ``delay`` it is ``delay`` copies. The first ``delay`` updates take a third gradient.

    Use it where two gradients can be computed in parallel: neither waits for the other,
    unlike SAM's second one. On a single busy device it saves no time.

    Args:
        rho: radius of the perturbation, in units of the weights' global 2-norm; a
            number >= 0 or a schedule of the update count (from 0).
        delay: age :math:`\tau` of the ascent's gradient in updates, an integer in
            [0, 1000]. 0 is SAM.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho`` or ``eps`` is negative, infinite or NaN, or ``delay`` is
            not an integer in [0, 1000].

    Example:
        >>> import jax.numpy as jnp, sam_jax
        >>> tx = sam_jax.async_sam(rho=0.5)
        >>> w = jnp.zeros(2)
        >>> state = tx.init(w)
        >>> for g in ([1.0, 0.0], [0.0, 1.0], [0.0, 1.0]):
        ...     d, state = tx.update(jnp.array(g), state, w, grad_fn=lambda w: w)
        ...     print(d)
        [0.5 0. ]
        [0.5 0. ]
        [0.  0.5]

    References:
        Jo, Lim, Lee, "Asynchronous Sharpness-Aware Minimization For Fast and Accurate
        Deep Learning", 2025, `2503.11147 <https://arxiv.org/abs/2503.11147>`_

    Differences from the authors' code:
        None known; no public code was found. The paper computes the ascent's gradient
        on another processor, with a batch of its own, of a size to suit it; here it is
        the gradient that the caller passes as ``updates``, of the same batch as
        ``grad_fn`` or of another one, and what runs where is up to XLA.
    """
    checks.integer("delay", delay, 0, core.MOST_GRADIENTS)
    climb = ascent.on_sphere(rho, eps)
    if delay == 0:
        return core.sharpness_aware(climb, mask=mask)
    climb = masks.kept_only(climb, mask)

    def init_fn(params: optax.Params) -> AsyncSAMState:
        return AsyncSAMState(
            count=jnp.zeros([], jnp.int32),
            ascent=climb.init(params),
            stored=jnp.zeros([], jnp.int32),
            gradients=tuple(jax.tree.map(jnp.zeros_like, params) for _ in range(delay)),
            diagnostics=observations.no_diagnostics(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: AsyncSAMState,
        params: optax.Params | None = None,
        *,
        grad_fn: calls.GradFn | None = None,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AsyncSAMState]:
        del extra_args
        gradient_at = core.second_gradient(params, grad_fn, value_and_grad_fn)
        oldest, *others = state.gradients
        stale, ascent_state = climb.update(oldest, state.ascent, params)
        fresh, _ = climb.update(updates, state.ascent, params)
        started = state.stored >= delay
        # Not one gradient along whichever is right: the choice, which takes both, would
        # make it wait for the current one.
        outcome = gradient_at(stale)
        loss, perturbed_grads = devices.cond(
            started, lambda: outcome, lambda: gradient_at(fresh)
        )
        seen = observations.observe(updates, params, stale, loss, perturbed_grads)
        # Of the perturbation that was used in the first updates.
        first = observations.observe(updates, params, fresh, loss, perturbed_grads)
        # Copied: without a jit it would be the caller's own array.
        newest = jax.tree.map(
            lambda g, like: jnp.array(g, like.dtype), devices.agree(updates), oldest
        )
        return perturbed_grads, AsyncSAMState(
            count=core.next_count(state.count),
            ascent=ascent_state,
            stored=jnp.minimum(state.stored + 1, delay),
            gradients=(*others, newest),
            diagnostics=seen._replace(
                **{
                    name: jnp.where(started, getattr(seen, name), getattr(first, name))
                    for name in ("perturbation_norm", "layer_shares")
                }
            ),
        )

    return core.transformation(init_fn, update_fn)
