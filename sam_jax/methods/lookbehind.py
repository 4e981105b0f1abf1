"""Lookbehind (Mordido et al., 2024)."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
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
)


def lookbehind(
    learning_rate: optax.ScalarOrSchedule,
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    k: int = 2,
    alpha: optax.ScalarOrSchedule | Literal["adaptive"] = 0.5,
    eta: float | None = None,
    base: optimizers.Base = optimizers.momentum_sgd,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lookbehind: a fraction of k descents, with gradients from k steps of ascent.

    .. math::

        \phi'_i = \phi'_{i-1} + \rho\, \frac{g_{i-1}}{\|g_{i-1}\|}, \qquad
        \phi_i = \phi_{i-1} + \mathrm{base}_\eta(g_i), \qquad
        g_i = \nabla L(\phi'_i)

        \Delta w = \alpha\, (\phi_k - w), \qquad \phi_0 = \phi'_0 = w

    Three gradients per update with the default k; no state but counters and diagnostics
    beside the base's. In general, k + 1.

    Use it for a large radius, where one step of ascent is not enough: the descent
    averages the gradients on the way up. It is a complete optimizer: no other follows
    it in a chain.

    Args:
        learning_rate: step size of the base; a number >= 0 or a schedule of the update
            count (from 0): the k steps of an update have the same.
        rho: length of each ascent; a number >= 0 or a schedule of the update count
            (from 0).
        k: ascents and descents in an update, an integer in [1, 1000]; 1 is SAM if
            ``alpha`` is.
        alpha: part of the descents that is kept; a number in [0, 1] or a schedule.
            "adaptive" is :math:`(1 + \cos) / 2` for each array, of the angle between
            its first descent and all of them.
        eta: None for SAM's ascents; a number >= 0 for those of ASAM, in proportion to
            :math:`|w| + \eta` at the point where each begins.
        base: an optimizer as a function of its learning rate, such as ``optax.adamw``;
            the default is SGD with momentum 0.9. Its state continues from descent to
            descent.
        eps: floor of the gradients' norms.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        An optimizer: its update returns what is added to the parameters, and needs
        ``params`` and ``grad_fn`` as in `sharpness_aware`. Diagnostics are of the last
        ascent.

    Raises:
        ValueError: if ``learning_rate``, ``rho`` or ``eps`` is negative, infinite or
            NaN, ``k`` is not an integer in [1, 1000], ``alpha`` is outside [0, 1], or
            ``base`` no function that makes an optimizer.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**2) / 2
        >>> tx = sam_jax.lookbehind(0.1, rho=0.5, k=2, alpha=0.5, base=optax.sgd)
        >>> w = jnp.array([0.0, 2.0])
        >>> updates, _ = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(updates)  # -0.5 * 0.1 * (2.5 + 3)
        [ 0.    -0.275]

    References:
        Mordido, Malviya, Baratin, Chandar, "Lookbehind-SAM: k Steps Back, 1 Step
        Forward", ICML 2024, `2307.16704 <https://arxiv.org/abs/2307.16704>`_

    Differences from the authors' code:
        It takes 2k gradients, the one at each perturbed point twice; here that gradient
        serves the descent and the next ascent, which is the same. ``alpha="adaptive"``
        is its ``alpha=-1``, a number of ``eta`` its Lookbehind_ASAM, which scales what
        has "weight" in its name.
    """
    checks.nonnegative("learning_rate", learning_rate, schedule=True)
    checks.integer("k", k, 1, core.MOST_GRADIENTS)
    adaptive = alpha == "adaptive"
    if not adaptive:
        checks.between("alpha", alpha, 0, 1, schedule=True)
    steepest = blocks.normalize(eps)
    if eta is not None:
        steepest = blocks.normalize_by_weights(eta, eps=eps)
    ascent = masks.kept_only(optax.chain(steepest, blocks.scale(rho)), mask)
    optimizer = optimizers.make_base(base, _per_update(learning_rate, k))

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
        assert params is not None
        # The radius of all ascents of this update is that of the state before it.
        displacement, ascent_state = ascent.update(updates, state.ascent, params)

        extra_args.update(grad_fn=grad_fn, value_and_grad_fn=value_and_grad_fn)

        def descend(
            travelled: optax.Updates, base_state: optax.OptState, grads: optax.Updates
        ) -> tuple[optax.Updates, optax.OptState]:
            fast = optax.apply_updates(params, travelled)
            step, base_state = optimizer.update(
                devices.agree(grads), base_state, fast, **extra_args
            )
            # In the dtypes of the parameters, also where the base returns wider ones.
            return numerics.combine((1.0, travelled), (1.0, step)), base_state

        def inner(carry: tuple[Any, ...], number: jax.Array) -> tuple[Any, None]:
            displacement, travelled, base_state, first = carry
            _, grads = gradient_at(displacement)
            travelled, base_state = descend(travelled, base_state, grads)
            climbed = numerics.moved(params, displacement)
            further, _ = ascent.update(grads, state.ascent, climbed)
            further = optax.tree.cast_like(further, displacement)
            displacement = optax.tree.add(displacement, further)
            if adaptive:
                first = jax.tree.map(
                    lambda x, old: jnp.where(number == 0, x, old), travelled, first
                )
            return (displacement, travelled, base_state, first), None

        # What was travelled, not where it led: no rounding of the weights enters. Not
        # zeros_like, which would differ between devices by type as the gradients do.
        start = jax.tree.map(
            lambda u: devices.placed_as(jnp.zeros(u.shape, u.dtype), u), updates
        )
        (displacement, travelled, base_state, first), _ = jax.lax.scan(
            inner,
            (
                *(devices.vary_as(displacement, updates), start, state.base),
                start if adaptive else (),
            ),
            jnp.arange(k - 1),
            unroll=core.unroll(k),
        )
        # The last descent needs no ascent after it.
        loss, grads = gradient_at(displacement)
        travelled, base_state = descend(travelled, base_state, grads)
        if alpha == "adaptive":
            first = first if k > 1 else travelled
            kept = jax.tree.map(_agreeing_part, first, travelled)
        else:
            kept = numerics.multiply(travelled, core.value_at(alpha, state.count))
        return kept, optimizers.WithBaseState(
            count=core.next_count(state.count),
            ascent=ascent_state,
            base=base_state,
            diagnostics=observations.observe(
                updates, params, displacement, loss, grads
            ),
        )

    return optimizers.full_optimizer(
        optimizers.init_with_base(ascent, optimizer), update_fn
    )


def _agreeing_part(first: jax.Array, travelled: jax.Array) -> jax.Array:
    """(1 + cos) / 2 of a way, of the angle with its first step."""
    return numerics.multiply(travelled, (1 + numerics.cosine(first, travelled)) / 2)


def _per_update(
    learning_rate: optax.ScalarOrSchedule, k: int
) -> optax.ScalarOrSchedule:
    """The schedule for a base that counts k steps in each update."""
    if not callable(learning_rate):
        return learning_rate
    return lambda steps: learning_rate(jnp.asarray(steps) // k)
