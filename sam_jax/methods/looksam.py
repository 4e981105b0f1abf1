"""LookSAM and Look-LayerSAM (Liu et al., 2022)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import ascent as blocks
from sam_jax.methods import calls, core, devices, masks, numerics, observations


class LookSamState(NamedTuple):
    """State of `looksam`.

    Attributes:
        count: updates done so far. Scalar, int32.
        due: the first update that takes both gradients again. Scalar, int32.
        ascent: state of the ascent.
        sharpness: the perturbed gradient's component orthogonal to the gradient, from
            the last update that took both; a tree like the parameters.
        diagnostics: what the last update saw.
    """

    count: core.Count
    due: jax.Array
    ascent: optax.OptState
    sharpness: optax.Updates
    diagnostics: observations.Diagnostics


def looksam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    k: int = 5,
    alpha: optax.ScalarOrSchedule = 0.7,
    layerwise: bool = False,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""LookSAM: SAM in every k-th update; the others reuse its sharpness part.

    .. math::

        \text{every k-th:} \quad d = g_p = \nabla L\left(w + \rho\, \frac{g}{\|g\|}
        \right), \qquad g_v = g_p - \langle g_p, \hat g \rangle\, \hat g, \quad
        \hat g = \frac{g}{\|g\|}

        \text{the others:} \quad d = g + \alpha\, \frac{\|g\|}{\|g_v\|}\, g_v

    Two gradients per update of every k-th, one in the others, so ``1 + 1/k`` on
    average; state: one copy of the parameters.

    Use it where SAM is too expensive and memory for a copy of the parameters is not.
    Use ``layerwise=True`` for very large batches, the authors' setting.

    Args:
        rho: radius of the perturbation; a number >= 0 or a schedule of the update count
            (from 0). With ``layerwise`` in units of each layer's own norm.
        k: interval in updates, an integer >= 1; 1 is SAM. Beginning with the first.
        alpha: length of the reused component, in units of the gradient's; a number >= 0
            or a schedule.
        layerwise: Look-LayerSAM: every parameter array is displaced by
            :math:`\rho \|w_l\| / \|g_l\|\, g_l`, as LARS and LAMB scale their steps.
        eps: floor of the gradient's norm (of each layer's with ``layerwise``).
        mask: perturb only these parameters; see `sharpness_aware`. The component is
            that of the whole gradient.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho``, ``alpha`` or ``eps`` is negative, infinite or NaN, or
            ``k`` is not an integer >= 1.

    Example:
        >>> import jax, jax.numpy as jnp, sam_jax
        >>> grad_fn = jax.grad(lambda w: w[0] * w[1])
        >>> tx, w = sam_jax.looksam(rho=5.0, k=2, alpha=0.5), jnp.array([4.0, 3.0])
        >>> state = tx.init(w)
        >>> for _ in range(2):  # g = (3, 4), g_p = (7, 7), g_v = (7, 7) - 49 / 25 g
        ...     d, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
        ...     print(d.round(1))  # then (3, 4) + 0.5 * 5 * (0.8, -0.6)
        [7. 7.]
        [5.  2.5]

    References:
        Liu, Mai, Chen, Hsieh, You, "Towards Efficient and Scalable Sharpness-Aware
        Minimization", CVPR 2022, `2203.02714 <https://arxiv.org/abs/2203.02714>`_

    Differences from the authors' code:
        There is no public code by the authors. Third parties take inner products and
        norms per array; here they are over all parameters, as in the paper. For the
        layerwise form some have a further factor ``1 / ||g||``, and some leave out the
        norms of the weights; here it is the ratio of norms alone, which does not change
        with the scale of the loss. A component below rounding (1e-5 of the perturbed
        gradient in float32, 0.8 % in bfloat16) counts as zero, where the formula would
        stretch it to the length of the gradient.
    """
    checks.integer("k", k, 1)
    checks.nonnegative("alpha", alpha, schedule=True)
    direction = _trust_ratio(eps) if layerwise else blocks.normalize(eps)
    ascent = masks.kept_only(optax.chain(direction, blocks.scale(rho)), mask)

    def init_fn(params: optax.Params) -> LookSamState:
        return LookSamState(
            count=jnp.zeros([], jnp.int32),
            due=jnp.zeros([], jnp.int32),
            ascent=ascent.init(params),
            sharpness=jax.tree.map(jnp.zeros_like, params),
            diagnostics=observations.no_diagnostics(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: LookSamState,
        params: optax.Params | None = None,
        *,
        grad_fn: calls.GradFn | None = None,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LookSamState]:
        del extra_args
        gradient_at = core.second_gradient(params, grad_fn, value_and_grad_fn)
        grads = updates
        displacement, ascent_state = ascent.update(grads, state.ascent, params)
        length = core.value_at(alpha, state.count)

        def look() -> tuple[optax.Updates, optax.Updates, observations.Diagnostics]:
            loss, perturbed_grads = gradient_at(displacement)
            sharpness = devices.agree(_sharpness(perturbed_grads, grads))
            sharpness = optax.tree.cast_like(sharpness, state.sharpness)
            seen = observations.observe(
                grads, params, displacement, loss, perturbed_grads
            )
            return optax.tree.cast_like(perturbed_grads, grads), sharpness, seen

        def reuse() -> tuple[optax.Updates, optax.Updates, observations.Diagnostics]:
            seen = observations.observe_unperturbed(grads, value)
            return _reused(grads, state.sharpness, length), state.sharpness, seen

        renew = state.count >= state.due
        combined, sharpness, seen = observations.cond(renew, look, reuse)
        return combined, LookSamState(
            count=core.next_count(state.count),
            due=jnp.where(renew, core.next_due(state.count, k), state.due),
            ascent=ascent_state,
            sharpness=sharpness,
            diagnostics=seen,
        )

    return core.transformation(init_fn, update_fn)


def _sharpness(perturbed_grads: optax.Updates, grads: optax.Updates) -> optax.Updates:
    """The orthogonal component, zero where it is nothing but rounding."""
    component = numerics.orthogonal(perturbed_grads, grads)
    whole = numerics.norm(perturbed_grads)
    digits = [float(jnp.finfo(g.dtype).eps) for g in jax.tree.leaves(grads)]
    rounding = max([100 * float(jnp.finfo(whole.dtype).eps), *digits]) * whole
    felt = numerics.norm(component) > rounding
    return numerics.multiply(component, felt)


def _reused(
    grads: optax.Updates, sharpness: optax.Updates, length: jax.Array
) -> optax.Updates:
    """The gradient, and the old component in ``length`` times the gradient's size."""
    part, ratio = numerics.quotient(numerics.norm(grads), numerics.norm(sharpness))
    return numerics.combine(
        (1.0, grads),
        (length.astype(ratio.dtype) * ratio, numerics.multiply(sharpness, part)),
    )


def _trust_ratio(eps: float) -> optax.GradientTransformation:
    r"""Each array times :math:`\|w_l\| / \|g_l\|`: of the length of its weights."""
    checks.nonnegative("eps", eps)

    def rescale(g: jax.Array, w: jax.Array) -> jax.Array:
        ratio = numerics.quotient(numerics.norm(w), numerics.norm(g), eps)
        return numerics.multiply(g, *ratio)

    return optax.stateless(
        lambda updates, params: jax.tree.map(rescale, updates, params)
    )
