"""SAMPa, SAM parallelized (Xie et al., 2024)."""

from typing import Any, NamedTuple

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
    trees,
)


class SampaState(NamedTuple):
    """State of `sampa`.

    Attributes:
        count: updates done so far. Scalar, int32.
        ascent: state of the ascent.
        base: state of the base optimizer; float32 or wider, as the next two.
        shift: x - y, from the parameters that the caller holds to the weights to
            evaluate.
        perturbed_grads: gradient at the perturbed weights, for the next update.
        diagnostics: what the last update saw.
    """

    count: core.Count
    ascent: optax.OptState
    base: optax.OptState
    shift: optax.Params
    perturbed_grads: optax.Updates
    diagnostics: observations.Diagnostics


def sampa(
    learning_rate: optax.ScalarOrSchedule,
    rho: optax.ScalarOrSchedule = 0.1,
    *,
    lam: optax.ScalarOrSchedule = 0.2,
    base: optimizers.Base = optimizers.momentum_sgd,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SAM parallelized: its two gradients do not wait for each other.

    .. math::

        x_{t+1} &= \mathrm{base}_\eta\left(x_t,
        (1 - \lambda)\, \nabla L(\tilde x_t) + \lambda\, \nabla L(y_{t+1})\right) \\
        y_{t+1} &= \mathrm{base}_\eta(x_t, \nabla L(y_t)), \qquad
        \tilde x_t = x_t + \rho\, \frac{\nabla L(y_t)}{\|\nabla L(y_t)\|}

    The parameters that the caller holds and differentiates at are y;
    `sampa_eval_params` gives x. The gradient at :math:`\tilde x_{t+1}` is of the batch
    of :math:`\nabla L(y_{t+1})`, which the caller brings: an update takes it, and the
    next one uses it. So one batch is enough for an update, and its second gradient may
    run beside the caller's next one (``docs/recipes_devices.md``: on two devices).

    Two gradients per update; state: two copies of the parameters beside the base's.

    Use it where two devices can compute SAM's two gradients in the time of one. It is a
    complete optimizer; evaluate and export the weights of `sampa_eval_params`.

    Args:
        learning_rate: of the base; a number >= 0 or a schedule of the update count
            (from 0).
        rho: radius of the perturbation, in units of the weights' global 2-norm; a
            number >= 0 or a schedule.
        lam: :math:`\lambda`, weight of the gradient at y; a number in [0, 1] or a
            schedule. 0 is SAMPa, 0.2 the paper's SAMPa-0.2.
        base: an optimizer as a function of its learning rate; the default is SGD with
            momentum 0.9. It takes both steps of an update; the state of the
            step of x is kept.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        An optimizer. Its update needs ``params`` and ``grad_fn``; see
        `sharpness_aware`.

    Raises:
        ValueError: if ``learning_rate``, ``rho`` or ``eps`` is negative, infinite or
            NaN, ``lam`` is outside [0, 1], or ``base`` no function that makes an
            optimizer.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2) / 2)
        >>> tx = sam_jax.sampa(0.5, rho=0.25, lam=0.0, base=optax.sgd)
        >>> y = jnp.array([2.0])
        >>> updates, state = tx.update(grad_fn(y), tx.init(y), y, grad_fn=grad_fn)
        >>> y = optax.apply_updates(y, updates)
        >>> print(sam_jax.sampa_eval_params(state, y), y)  # 2 - 0.5 * 2; 1 - 0.5 * 2
        [1.] [0.]
        >>> updates, state = tx.update(grad_fn(y), state, y, grad_fn=grad_fn)
        >>> y = optax.apply_updates(y, updates)
        >>> print(sam_jax.sampa_eval_params(state, y), y)  # 1 - 0.5 * 1.25
        [0.375] [0.375]

    References:
        Xie, Pethick, Cevher, "SAMPa: Sharpness-aware Minimization Parallelized",
        NeurIPS 2024, `2410.10683 <https://arxiv.org/abs/2410.10683>`_

    Differences from the authors' code:
        LIONS-EPFL/SAMPa takes both gradients at the beginning of an update, with the
        batch of the one before for the perturbed weights; the weights are the same. It
        adds 1e-12 to the norm.
    """
    checks.nonnegative("learning_rate", learning_rate, schedule=True)
    checks.between("lam", lam, 0, 1, schedule=True)
    ascent = masks.kept_only(blocks.on_sphere(rho, eps), mask)
    inner = optimizers.make_base(base, learning_rate)

    def init_fn(params: optax.Params) -> SampaState:
        return SampaState(
            count=jnp.zeros([], jnp.int32),
            ascent=ascent.init(params),
            base=inner.init(numerics.wide_tree(params)),
            shift=jax.tree.map(jnp.zeros_like, numerics.wide_tree(params)),
            perturbed_grads=jax.tree.map(jnp.zeros_like, numerics.wide_tree(params)),
            diagnostics=observations.no_diagnostics(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: SampaState,
        params: optax.Params | None = None,
        *,
        grad_fn: calls.GradFn | None = None,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SampaState]:
        calls.require_gradient(params, grad_fn, value_and_grad_fn)
        assert params is not None
        extra_args.update(grad_fn=grad_fn, value_and_grad_fn=value_and_grad_fn)
        share = core.value_at(lam, state.count)
        # Nothing was perturbed before the first update.
        share = jnp.where(state.count == 0, 1.0, share)
        grads = numerics.wide_tree(devices.agree(updates))
        mixed = numerics.combine((share, grads), (1 - share, state.perturbed_grads))

        # ── x, and what the base would do next with the gradient at y.
        before = jax.tree.map(_plus, params, state.shift)
        step, base_state = inner.update(mixed, state.base, before, **extra_args)
        after = jax.tree.map(_plus, before, step)
        ahead, _ = inner.update(grads, base_state, after, **extra_args)
        moved = jax.tree.map(
            lambda w, x, e: (x + e - numerics.wide(w)).astype(w.dtype),
            *(params, after, ahead),
        )
        held = optax.apply_updates(params, moved)
        weights = jax.tree.map(lambda w, x: x.astype(w.dtype), params, after)

        # ── The gradient for the next update.
        displacement, ascent_state = ascent.update(updates, state.ascent, weights)
        gradient_at = core.second_gradient(weights, grad_fn, value_and_grad_fn)
        loss, perturbed_grads = gradient_at(displacement)
        return moved, SampaState(
            count=core.next_count(state.count),
            ascent=ascent_state,
            base=base_state,
            shift=optax.tree.sub(after, numerics.wide_tree(held)),
            perturbed_grads=numerics.wide_tree(devices.agree(perturbed_grads)),
            diagnostics=observations.observe(
                updates, weights, displacement, loss, perturbed_grads
            ),
        )

    return optimizers.full_optimizer(init_fn, update_fn)


def sampa_eval_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    """The weights to evaluate: x of `sampa`, not the y that the caller holds.

    Args:
        state: of `sampa`, or of any chain that contains it.
        params: the parameters that belong to the state.

    Returns:
        A tree like ``params``.

    Raises:
        ValueError: if the state does not belong to `sampa`.

    Example:
        >>> import jax.numpy as jnp, sam_jax
        >>> tx, w = sam_jax.sampa(0.1), jnp.ones(2)
        >>> print(sam_jax.sampa_eval_params(tx.init(w), w))
        [1. 1.]
    """
    found = trees.only(state, SampaState, "sampa_eval_params", "sampa")
    return jax.tree.map(
        lambda y, shift: _plus(y, shift).astype(y.dtype),
        *(trees.parameters(params), found.shift),
    )


def _plus(x: jax.Array, y: jax.Array) -> jax.Array:
    return numerics.wide(x) + numerics.wide(y)
