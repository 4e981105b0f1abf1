"""Adam with a preconditioned perturbation (Singh et al., 2025)."""

from typing import Any

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
    numerics,
    observations,
    optimizers,
    trees,
)


def adam_sam(
    learning_rate: optax.ScalarOrSchedule,
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    damping: float = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam whose perturbation is preconditioned by Adam's own second moment.

    .. math::

        w \leftarrow \mathrm{Adam}_\eta\left(w,
        \nabla L\left(w + \rho\, \frac{P^{-1} g}{\|P^{-1} g\|}\right)\right), \qquad
        P = \sqrt{\nu} + \delta, \quad g = \nabla L(w)

    with :math:`\nu` the second moment before the update, which is one of perturbed
    gradients. In the first update it is zero and the perturbation is SAM's.

    Two gradients per update; state: two copies of the parameters. They are Adam's own:
    ``sharpness_aware(chain(optax.scale_by_rms(b2), normalize(), scale(rho)))`` before
    ``optax.adam`` keeps a third, of the gradients at the weights.

    Use it for transformers and language models, where Adam is the optimizer and the
    gradient's largest coordinates say little about the loss.

    Args:
        learning_rate: step size; a number >= 0 or a schedule of the update count
            (from 0).
        rho: radius of the perturbation, in units of the weights' global 2-norm; a
            number >= 0 or a schedule.
        b1: weight of the old first moment; a number in [0, 1).
        b2: weight of the old second moment; a number in [0, 1).
        damping: :math:`\delta`, and what Adam adds to its root; a number > 0.
        weight_decay: times the weights is added to the perturbed gradient; a number
            >= 0 or a schedule. For that of AdamW put ``optax.add_decayed_weights`` of
            minus its rate behind this.
        eps: floor of the norm of the preconditioned gradient, which is taken at a
            gradient of length 1.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        An optimizer. Its update needs ``params`` and ``grad_fn``; see
        `sharpness_aware`.

    Raises:
        ValueError: if a coefficient is outside its range; by the update, if a keyword
            is missing.

    Example:
        >>> import jax, jax.numpy as jnp, sam_jax
        >>> grad_fn = jax.grad(lambda w: 8 * w[0] ** 2 + w[1] ** 2 / 2)
        >>> tx, w = sam_jax.adam_sam(0.0, rho=1.0), jnp.ones(2)
        >>> points = []
        >>> seen = lambda w: points.append(w) or grad_fn(w)
        >>> _, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=seen)
        >>> _, state = tx.update(grad_fn(w), state, w, grad_fn=seen)
        >>> for point in points:  # 1 + g / ||g||; then about as far along both
        ...     print([round(float(x), 3) for x in point])
        [1.998, 1.062]
        [1.469, 1.883]

    References:
        Singh, Mobahi, Agarwala, Dauphin, "Avoiding Spurious Sharpness Minimization
        Broadens Applicability of SAM", ICML 2025, `2502.02407
        <https://arxiv.org/abs/2502.02407>`_

    Differences from the authors' code:
        There is no public code that we know of. Which moment the paper divides by, that
        before the update or after it, is our choice.
    """
    checks.nonnegative("learning_rate", learning_rate, schedule=True)
    checks.nonnegative("weight_decay", weight_decay, schedule=True)
    for name, share in {"b1": b1, "b2": b2}.items():
        checks.below_one(name, share)
    checks.positive("damping", damping)
    climb = masks.kept_only(ascent.on_sphere(rho, eps), mask)
    adam = optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.adam(learning_rate, b1, b2, eps=damping),
    )
    init = optimizers.init_with_base(climb, adam)

    def update_fn(
        updates: optax.Updates,
        state: optimizers.WithBaseState,
        params: optax.Params | None = None,
        *,
        grad_fn: calls.GradFn | None = None,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optimizers.WithBaseState]:
        del extra_args
        gradient_at = core.second_gradient(params, grad_fn, value_and_grad_fn)
        [moments] = trees.nodes(state.base, optax.ScaleByAdamState)
        # Of unit length, so that no quotient leaves the range.
        unit = numerics.unit(numerics.wide_tree(updates))
        way = jax.tree.map(
            lambda g, v: g / (jnp.sqrt(v.astype(g.dtype)) + damping), unit, moments.nu
        )
        displacement, ascent_state = climb.update(way, state.ascent, params)
        loss, perturbed_grads = gradient_at(displacement)
        # Optax's Adam multiplies dtypes that strict promotion would not.
        with jax.numpy_dtype_promotion("standard"):
            steps, base_state = adam.update(
                numerics.wide_tree(devices.agree(perturbed_grads)),
                state.base,
                numerics.wide_tree(params),
            )
        steps = jax.tree.map(lambda x, w: x.astype(w.dtype), steps, params)
        return steps, optimizers.WithBaseState(
            count=core.next_count(state.count),
            ascent=ascent_state,
            base=base_state,
            diagnostics=observations.observe(
                updates, params, displacement, loss, perturbed_grads
            ),
        )

    # Its moments and its damping need more than half precision.
    return optimizers.full_optimizer(
        lambda params: init(numerics.wide_tree(params)), update_fn
    )
