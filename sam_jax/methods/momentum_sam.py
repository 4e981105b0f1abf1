"""Momentum-SAM (Becker et al., 2024)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
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

# What Optax calls the average of the gradients in the states of SGD and of Adam.
_MOMENTUM_NAMES = ("trace", "mu")


class MomentumSamState(NamedTuple):
    """State of `momentum_sam`.

    Attributes:
        count: updates done so far. Scalar, int32.
        base: state of the base optimizer, with the momentum v.
        factors: whose product, rho / ||v||, the parameters are displaced by along -v
            now; [2] for every leaf, float32 or wider, zero outside the mask.
        diagnostics: what the last update saw.
    """

    count: core.Count
    base: optax.OptState
    factors: Any
    diagnostics: observations.Diagnostics


def momentum_sam(
    learning_rate: optax.ScalarOrSchedule,
    rho: optax.ScalarOrSchedule = 0.3,
    *,
    base: optimizers.Base = optimizers.momentum_sgd,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Momentum-SAM: perturbs along the momentum, so that one gradient is enough.

    .. math::

        w_{t+1} = \mathrm{base}(w_t, \nabla L(\tilde w_t)), \qquad
        \tilde w_t = w_t - \rho \frac{v_t}{\|v_t\|}

    with v the base's momentum. The parameters that the caller holds and differentiates
    at are :math:`\tilde w`; `momentum_sam_eval_params` gives w.

    One gradient per update; no state but counters and diagnostics beside the base's,
    and a scalar for each array of the parameters.

    Use it where the second gradient of SAM is too expensive. It is a complete
    optimizer; evaluate and export the weights of `momentum_sam_eval_params`.
    BatchNorm's running statistics are those of :math:`\tilde w`: with a large radius,
    recompute them at w. In bfloat16 and float16 w is rounded with :math:`\tilde w` in
    every update.

    Args:
        learning_rate: of the base; a number or a schedule of the update count (from 0).
        rho: radius of the perturbation, in units of the weights' global 2-norm; a
            number >= 0 or a schedule. An update reads it for the perturbation that it
            leaves behind.
        base: learning rate -> optimizer with a momentum, such as SGD with momentum 0.9
            (the default) or ``optax.adamw``. It sees the parameters w.
        eps: floor of the momentum's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        An optimizer; its update needs ``params``, and no keyword.

    Raises:
        ValueError: if ``learning_rate``, ``rho`` or ``eps`` is negative, infinite or
            NaN, or ``base`` no function that makes an optimizer; by the initialization,
            if the base has no momentum; by the update, if ``params`` is missing.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2) / 2)
        >>> tx = sam_jax.momentum_sam(0.1, rho=0.5)
        >>> w = jnp.array([0.0, 2.0])
        >>> updates, state = tx.update(grad_fn(w), tx.init(w), w)
        >>> w = optax.apply_updates(w, updates)
        >>> print(w)  # 2 - 0.1 * 2 - 0.5
        [0.  1.3]
        >>> print(sam_jax.momentum_sam_eval_params(state, w))
        [0.  1.8]

    References:
        Becker, Altrock, Risse, "Momentum-SAM: Sharpness Aware Minimization without
        Computational Overhead", 2024, `2401.12033 <https://arxiv.org/abs/2401.12033>`_

    Differences from the authors' code:
        MarlonBecker/MSAM decays its weights at the perturbed ones with SGD, takes one
        parameter group, and adds 1e-12 to the norm instead of flooring it. Its AdamW
        decays the weights after the step, ``optax.adamw`` those before it; a base with
        ``optax.stateless(lambda u, w: u - rate * decay * (w + u))`` (of each leaf)
        behind ``optax.adam(rate)`` is theirs.
    """
    checks.nonnegative("learning_rate", learning_rate, schedule=True)
    checks.nonnegative("rho", rho, schedule=True)
    checks.nonnegative("eps", eps)
    masks.check(mask)
    inner = optimizers.make_base(base, learning_rate)

    def init_fn(params: optax.Params) -> MomentumSamState:
        base_state = inner.init(params)
        _momentum(base_state)  # complains early
        return MomentumSamState(
            count=jnp.zeros([], jnp.int32),
            base=base_state,
            factors=jax.tree.map(lambda w: jnp.zeros([2], _wide_dtype(w)), params),
            diagnostics=_without_pair(observations.no_diagnostics(params)),
        )

    def update_fn(
        updates: optax.Updates,
        state: MomentumSamState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MomentumSamState]:
        calls.require("value=loss", params=params)
        grads = devices.agree(updates)
        old = _displacement(state)
        weights = _subtract(params, old)
        steps, base_state = inner.update(grads, state.base, weights, **extra_args)

        keep = masks.kept(params, mask)
        momentum = _momentum(base_state)
        norm, shares = observations.length_and_shares(
            jax.tree.map(
                lambda v, flag: v if flag else jnp.zeros_like(v), momentum, keep
            )
        )
        radius = core.value_at(rho, state.count).astype(norm.dtype)
        factors = jnp.stack(numerics.quotient(radius, norm, eps))
        # Not their product, which is not a number where the momentum overflows.
        length = radius * jnp.minimum(norm / jnp.maximum(eps, 1e-30), 1)
        seen = observations.observe_unperturbed(grads, None)
        seen = seen._replace(
            perturbation_norm=length.astype(jnp.float32),
            layer_shares=shares,
        )
        new_state = MomentumSamState(
            count=core.next_count(state.count),
            base=base_state,
            factors=jax.tree.map(
                lambda w, flag: jnp.where(flag, factors, 0).astype(_wide_dtype(w)),
                *(params, keep),
            ),
            diagnostics=_without_pair(seen),
        )
        new = _displacement(new_state)
        moved = jax.tree.map(
            lambda step, e, e_old: step + e - e_old, *(steps, new, old)
        )
        assert params is not None  # required above
        if any(_wide_dtype(w) != w.dtype for w in jax.tree.leaves(params)):
            perturbed = optax.apply_updates(params, moved)
            shift = numerics.added(perturbed, jax.tree.map(jnp.negative, new))
            added = numerics.norm(shift).astype(jnp.float32)
            # Of weights that have left the range nothing can be measured.
            added = jnp.where(jnp.isfinite(added), added, seen.perturbation_norm)
            seen = seen._replace(perturbation_norm=added)
        return moved, new_state._replace(diagnostics=_without_pair(seen))

    return optimizers.full_optimizer(init_fn, update_fn)


def momentum_sam_eval_params(
    state: optax.OptState, params: optax.Params
) -> optax.Params:
    """The weights to evaluate: without the perturbation of `momentum_sam`.

    Args:
        state: of `momentum_sam`, or of any chain that contains it.
        params: the parameters that belong to the state.

    Returns:
        A tree like ``params``.

    Raises:
        ValueError: if the state does not belong to `momentum_sam`.

    Example:
        >>> import jax.numpy as jnp, sam_jax
        >>> tx, w = sam_jax.momentum_sam(0.1), jnp.ones(2)
        >>> print(sam_jax.momentum_sam_eval_params(tx.init(w), w))  # nothing yet
        [1. 1.]
    """
    found = trees.only(
        state, MomentumSamState, "momentum_sam_eval_params", "momentum_sam"
    )
    return _subtract(trees.parameters(params), _displacement(found))


def _wide_dtype(x: jax.Array) -> Any:
    return numerics.wide(x).dtype


def _subtract(params: Any, displacement: Any) -> Any:
    """In the dtypes of the parameters."""
    return jax.tree.map(lambda w, e: (w - e).astype(w.dtype), params, displacement)


def _displacement(state: MomentumSamState) -> Any:
    """By how much the parameters are displaced from the weights: -rho v / ||v||."""
    return jax.tree.map(
        lambda v, factors: numerics.multiply(v, factors[0], -factors[1]),
        _momentum(state.base),
        state.factors,
    )


def _momentum(base: optax.OptState) -> optax.Updates:
    """The average of the gradients in the state of an optimizer."""

    def is_field(path: Any, _: Any) -> bool:  # no parameter of that name
        fields = [x for x in path if isinstance(x, optax.tree_utils.NamedTupleKey)]
        inside = {x.name for x in fields[:-1]} & {*_MOMENTUM_NAMES, "nu"}
        return path[-1] in fields and not inside

    found = [
        tree
        for name in _MOMENTUM_NAMES
        for _, tree in optax.tree.get_all_with_path(base, name, filtering=is_field)
    ]
    if len(found) != 1:
        raise checks.BadValue(
            "base must keep one momentum in its state (trace or mu), as "
            "optax.sgd(learning_rate, momentum=0.9) and optax.adamw do, got "
            f"{len(found)} of them"
        )
    return found[0]


def _without_pair(seen: observations.Diagnostics) -> observations.Diagnostics:
    """There is one gradient, and its loss is the caller's."""
    return seen._replace(gradient_cosine=None, perturbed_loss=None)
