"""R-SAM, also RSAM (Liu et al., 2022)."""

from collections.abc import Callable
from typing import Any, Literal

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
)
from sam_jax.methods import noise as randomness


def random_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    sigma: optax.ScalarOrSchedule = 0.01,
    lam: optax.ScalarOrSchedule = 1.0,
    noise: Literal["filter", "tensor", "plain"] = "filter",
    seed: int = 0,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Random SAM: SAM's step from a random point near the weights.

    .. math::

        d = \nabla L\left(w + \rho \frac{\Delta + \lambda g_\Delta}
        {\|\Delta + \lambda g_\Delta\|}\right), \qquad
        g_\Delta = \nabla L(w + \Delta), \qquad \Delta \text{ random}

    Two gradients per update; no state but counters and diagnostics. The gradient at the
    weights is not among them: in one jitted step with the update, the caller's
    gradient is not computed, and the diagnostics report :math:`g_\Delta` instead.

    Use it where SAM's gradient is unstable because the weights are in a sharp region:
    the noise smooths the landscape around the step.

    Args:
        rho: radius of the perturbation, in units of the weights' global 2-norm; a
            number >= 0 or a schedule of the update count (from 0).
        sigma: size of the noise, relative to the weights unless ``noise`` is
            ``"plain"``; a number >= 0 or a schedule. 0 is SAM.
        lam: weight of the gradient against the noise; a number >= 0 or a schedule.
        noise: standard deviation of :math:`\Delta`: ``"filter"``, sigma times the
            2-norm of the weights that share the last axis' index (one output; |w| in
            arrays of less than two dimensions); ``"tensor"``, an array of noise has
            sigma times the 2-norm of the array of weights; ``"plain"``, sigma.
        seed: of the noise; together with the update's keyword ``key``, or ``group_key``
            where examples share a perturbation in groups, if these are passed.
        eps: floor of the norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho``, ``sigma``, ``lam`` or ``eps`` is negative, infinite or
            NaN, or ``noise`` is another string.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**2) / 2
        >>> tx = sam_jax.random_sam(rho=0.5)
        >>> w = jnp.array([0.0, 2.0])  # the noise is along the second axis as well
        >>> d, _ = tx.update(w, tx.init(w), w, grad_fn=jax.grad(loss))
        >>> print(d)
        [0.  2.5]

    References:
        Liu, Mai, Cheng, Chen, Hsieh, You, "Random Sharpness-Aware Minimization",
        NeurIPS 2022

        Khanh, Luong, Mordukhovich, Tran, "Fundamental Convergence Analysis of
        Sharpness-Aware Minimization", NeurIPS 2024, `2401.08060
        <https://arxiv.org/abs/2401.08060>`_, algorithm 2d, whose form this is

    Differences from the authors' code:
        None known: that code was not compared. The distribution of the noise is left
        open in the form above; the kinds and the default of ``sigma`` are our choice.
    """
    checks.nonnegative("sigma", sigma, schedule=True)
    checks.seed("seed", seed)
    checks.nonnegative("lam", lam, schedule=True)
    checks.one_of("noise", noise, _SHAPES)
    shape = _SHAPES[noise]
    climb = masks.kept_only(ascent.on_sphere(rho, eps), mask)

    def update_fn(
        updates: optax.Updates,
        state: core.SharpnessAwareState,
        params: optax.Params | None = None,
        *,
        grad_fn: calls.GradFn | None = None,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        key: jax.Array | None = None,
        group_key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, core.SharpnessAwareState]:
        del updates, extra_args
        gradient_at = core.second_gradient(params, grad_fn, value_and_grad_fn)
        draws = randomness.normal_like(
            randomness.update_key(seed, state.count, group_key, key), params
        )
        size = core.value_at(sigma, state.count)
        delta = numerics.multiply(jax.tree.map(shape, draws, params), size)
        delta = jax.tree.map(
            lambda x, keep: x if keep else jnp.zeros_like(x),
            delta,
            masks.kept(params, mask),
        )
        _, smooth_grads = gradient_at(delta)
        weight = core.value_at(lam, state.count)
        displacement, ascent_state = climb.update(
            numerics.combine((1.0, delta), (weight, smooth_grads)), state.ascent, params
        )
        loss, perturbed_grads = gradient_at(displacement)
        return perturbed_grads, core.SharpnessAwareState(
            count=core.next_count(state.count),
            ascent=ascent_state,
            diagnostics=observations.observe(
                smooth_grads, params, displacement, loss, perturbed_grads
            ),
        )

    return core.transformation(core.init_with(climb), update_fn)


def _by_filter(draw: jax.Array, w: jax.Array) -> jax.Array:
    wide = numerics.wide(w)
    if wide.ndim < 2:
        sizes = jnp.abs(wide)
    else:
        norms = jax.vmap(numerics.norm, in_axes=-1)(devices.whole(wide))
        sizes = jnp.expand_dims(norms, tuple(range(wide.ndim - 1)))
    return (numerics.wide(draw) * sizes).astype(draw.dtype)


def _by_tensor(draw: jax.Array, w: jax.Array) -> jax.Array:
    ratio = numerics.quotient(numerics.norm(w), numerics.norm(draw))
    return numerics.multiply(draw, *ratio)


def _plain(draw: jax.Array, w: jax.Array) -> jax.Array:
    del w
    return draw


# Standard normal numbers and weights -> noise for sigma 1, in the dtype of the numbers.
_SHAPES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "filter": _by_filter,
    "tensor": _by_tensor,
    "plain": _plain,
}
