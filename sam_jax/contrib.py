"""Methods of a few lines over the building blocks, as examples; they may change.

Nothing here is promised to stay; what proves itself moves to the methods. A program
names one as ``sam_jax.contrib.zsharp``, the command line by the file:
``--config=digits_sam:sam_jax/contrib.py:zsharp``.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import (
    adam_sam,
    ascent,
    calls,
    core,
    devices,
    eigen_sam,
    functional_sam,
    masks,
    noise,
    numerics,
    trees,
    widths,
)


def zsharp(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    quantile: float = 0.95,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""ZSharp: SAM along the coordinates that stand out in their layer.

    Of each array's gradient the coordinates stay whose z-score
    :math:`|g_i - \mu| / \sigma` is at least the quantile; where none does, all.

    Args:
        rho: radius; a number >= 0 or a schedule.
        quantile: share of the coordinates of an array that are left out, in [0, 1].
        eps: floor of the norm of what is left.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation as from `sam`; two gradients per update.

    Raises:
        ValueError: if a coefficient is outside its range.

    Example:
        >>> tx, w = zsharp(1.0, quantile=0.75), jnp.zeros(4)
        >>> grads = jnp.array([1.0, 1.0, 1.0, 5.0])
        >>> print(tx.update(grads, tx.init(w), w, grad_fn=lambda w: w)[0])
        [0. 0. 0. 1.]

    References:
        Yun, "Sharpness-Aware Minimization with Z-Score Gradient Filtering for Neural
        Networks", 2025, `2505.02369 <https://arxiv.org/abs/2505.02369>`_
    """
    checks.between("quantile", quantile, 0, 1)

    def filtered(g: jax.Array) -> jax.Array:
        if g.size == 0:
            return g
        centred = jnp.abs(g - g.mean())  # the deviation of all divides both sides
        return jnp.where(
            centred >= jnp.quantile(devices.whole(centred), quantile), g, 0
        )

    def keep(updates: optax.Updates, params: Any) -> optax.Updates:
        del params
        kept = jax.tree.map(lambda g: filtered(numerics.wide(g)), updates)
        none = numerics.norm(kept) == 0
        return jax.tree.map(
            lambda g, x: jnp.where(none, g, x.astype(g.dtype)), updates, kept
        )

    climb = optax.chain(optax.stateless(keep), ascent.on_sphere(rho, eps))
    return core.sharpness_aware(climb, mask=mask)


def monge_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Monge SAM: a ball of the metric that the loss itself has.

    .. math::

        \varepsilon = \rho\, g / (\|g\| \sqrt{1 + \|g\|^2})

    Args:
        rho: radius; a number >= 0 or a schedule.
        eps: floor of the norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation as from `sam`; two gradients per update.

    Raises:
        ValueError: if a coefficient is outside its range.

    Example:
        >>> tx, w = monge_sam(1.0), jnp.array([0.0, 0.75])
        >>> print(tx.update(w, tx.init(w), w, grad_fn=lambda w: w)[0])  # .75 + 1 / 1.25
        [0.   1.55]

    References:
        Jacobsen, Arvanitidis, "Monge SAM: Robust Reparameterization-Invariant
        Sharpness-Aware Minimization Based on Loss Geometry", 2025, `2502.08448
        <https://arxiv.org/abs/2502.08448>`_
    """
    checks.nonnegative("eps", eps)

    def shrink(updates: optax.Updates, params: Any) -> optax.Updates:
        del params
        norm = numerics.norm(updates)
        return numerics.multiply(
            updates, *numerics.quotient(1.0, norm, eps), 1 / jnp.hypot(1.0, norm)
        )

    climb = optax.chain(optax.stateless(shrink), ascent.scale(rho))
    return core.sharpness_aware(climb, mask=mask)


def gc_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient-centralized SAM: SAM along the gradient minus its mean per output.

    The mean is taken over all axes but the last, of arrays of two axes and more, and
    the norm afterwards, so that :math:`\|\varepsilon\| = \rho`.

    Args:
        rho: radius; a number >= 0 or a schedule.
        eps: floor of the norm of the centred gradient.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation as from `sam`; two gradients per update.

    Raises:
        ValueError: if a coefficient is outside its range.

    Example:
        >>> tx, w = gc_sam(1.0), jnp.zeros((2, 1))
        >>> grads = jnp.array([[3.0], [1.0]])
        >>> print(tx.update(grads, tx.init(w), w, grad_fn=lambda w: w)[0].ravel())
        [ 0.70710677 -0.70710677]

    References:
        Hassan et al., "GCSAM: Gradient Centralized Sharpness Aware Minimization", 2025,
        `2501.11584 <https://arxiv.org/abs/2501.11584>`_
    """

    def centred(g: jax.Array) -> jax.Array:
        if g.ndim < 2 or g.size == 0:
            return g
        x = numerics.wide(g)
        return (x - x.mean(range(g.ndim - 1), keepdims=True)).astype(g.dtype)

    centre = optax.stateless(lambda updates, _: jax.tree.map(centred, updates))
    return core.sharpness_aware(
        optax.chain(centre, ascent.on_sphere(rho, eps)), mask=mask
    )


def n_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    share: float = 0.25,
    seed: int = 0,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""n-SAM: the perturbation from all examples, the descent from some of them.

    The gradient of the batch perturbs; the second gradient is that of a share of its
    examples, drawn in every update. With a batch of all data this is n-SAM. `sam`,
    whose two gradients share their examples, is m-SAM.

    Args:
        rho: radius; a number >= 0 or a schedule.
        share: of the batch's examples in the second gradient, in (0, 1].
        seed: of the draws.
        eps: floor of the norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation as from `sam`. Its update also needs ``example_losses`` [B] and
        ``subset_grad_fn``, as that of `esam`; the trainer gives both.

    Raises:
        ValueError: if a coefficient is outside its range.

    Example:
        >>> batch, w = jnp.array([1.0, 1.0]), jnp.array(0.0)
        >>> grad_fn = jax.grad(lambda w, rows: jnp.mean((w - batch[rows]) ** 2) / 2)
        >>> tx, everything = n_sam(0.5, share=0.5), jnp.arange(2)
        >>> grads = grad_fn(w, everything)
        >>> given = {"example_losses": batch, "subset_grad_fn": grad_fn}
        >>> d, _ = tx.update(grads, tx.init(w), w, grad_fn=grad_fn, **given)
        >>> print(d)  # at 0 - 0.5, of one example
        -1.5

    References:
        Andriushchenko, Flammarion, "Towards Understanding Sharpness-Aware
        Minimization", ICML 2022, `2206.06232 <https://arxiv.org/abs/2206.06232>`_
    """
    checks.static("share", share)
    checks.between("share", share, 0, 1)
    checks.positive("share", share)
    checks.seed("seed", seed)
    inner = core.sharpness_aware(ascent.on_sphere(rho, eps), mask=mask)

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        example_losses: jax.Array | None = None,
        subset_grad_fn: calls.SubsetGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        calls.require(
            "grad_fn=grad_fn, example_losses=example_losses, "
            "subset_grad_fn=subset_grad_fn",
            example_losses=example_losses,
            subset_grad_fn=subset_grad_fn,
        )
        assert example_losses is not None and subset_grad_fn is not None
        size = example_losses.shape[0]
        keys = extra_args.get("group_key"), extra_args.get("key")
        drawn = jax.random.permutation(noise.update_key(seed, state.count, *keys), size)
        rows = drawn[: max(1, round(share * size))]

        given = extra_args | {"value_and_grad_fn": None}
        given["grad_fn"] = lambda w: subset_grad_fn(w, rows)
        return inner.update(updates, state, params, **given)

    return optax.GradientTransformationExtraArgs(inner.init, update)


class AccumulatedNorm(NamedTuple):
    """Root of the sum of the squared norms that `light_sam` has seen: float32, []."""

    length: jax.Array


def light_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    eps: float = 1e-8,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""LightSAM with AdaGrad-Norm, in the ascent as in the descent.

    .. math::

        u \leftarrow u + \|g\|^2, \qquad
        g_p = \nabla L(w + \rho\, g / \sqrt u), \qquad
        v \leftarrow v + \|g_p\|^2, \qquad d = g_p / \sqrt v

    It converges for any radius and any learning rate of the ``optax.sgd`` behind it.

    Args:
        rho: a number >= 0 or a schedule; the perturbation shrinks by itself.
        eps: both roots before the first update.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation as from `sam`; two gradients per update.

    Raises:
        ValueError: if a coefficient is outside its range.

    Example:
        >>> tx, w = light_sam(0.25), jnp.array([0.0, 2.0])
        >>> grad_fn = lambda w: 2 * w
        >>> d, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
        >>> print(d)  # the first time all of the norm is in the sum
        [0. 1.]

    References:
        Cheng, Shen, Sun, Yin, Cao, Chen, "LightSAM: Parameter-Agnostic Sharpness-Aware
        Minimization", 2025, `2505.24399 <https://arxiv.org/abs/2505.24399>`_
    """
    checks.positive("eps", eps)
    climb = optax.chain(_by_accumulated_norm(eps), ascent.scale(rho))
    return optax.chain(
        core.sharpness_aware(climb, mask=mask), _by_accumulated_norm(eps)
    )


def _by_accumulated_norm(start: float) -> optax.GradientTransformation:
    def init(params: optax.Params) -> AccumulatedNorm:
        del params
        return AccumulatedNorm(jnp.full([], start, jnp.float32))

    def update(
        updates: optax.Updates, state: Any, params: Any = None
    ) -> tuple[optax.Updates, Any]:
        del params
        norm = devices.agree(numerics.norm(updates)).astype(jnp.float32)
        length = jnp.hypot(state.length, norm)
        scaled = numerics.multiply(updates, *numerics.quotient(1.0, length))
        return scaled, AccumulatedNorm(length)

    return optax.GradientTransformation(init, update)


def x_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    alpha: optax.ScalarOrSchedule = 1.0,
    every: int = 100,
    eps: float = 1e-12,
) -> optax.GradientTransformationExtraArgs:
    r"""X-SAM: the direction minus part of its component along the top eigenvector.

    .. math::

        d = \hat g_p - \alpha\, \langle \hat g_p, v \rangle\, v, \qquad
        \hat g_p = g_p / \|g_p\|

    with SAM's perturbation, and v from the power iteration of `eigen_sam`. The paper
    has a sign before the product; with v of the side on which the gradient at the
    weights is, it is one, and d does not depend on which of v and -v was found.

    Args:
        rho: radius; a number >= 0 or a schedule.
        alpha: part that is taken away, in [0, 2]; a number or a schedule.
        every: updates from one power iteration to the next.
        eps: floor of both norms.

    Returns:
        A transformation as from `eigen_sam`.

    Raises:
        ValueError: if a coefficient is outside its range.

    Example:
        >>> grad_fn = jax.grad(lambda w: 8 * w[0] ** 2 + w[1] ** 2)
        >>> tx, w = x_sam(0.0), jnp.ones(2)
        >>> d, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
        >>> print([round(float(x), 3) for x in d])  # nothing of the first, which is v
        [0.0, 0.124]

    References:
        Duan, Chen, Guan, "X-SAM: Boosting Sharpness-Aware Minimization with
        Dominant-Eigenvector Gradient Correction", 2026, `2601.10251
        <https://arxiv.org/abs/2601.10251>`_
    """
    checks.between("alpha", alpha, 0, 2, schedule=True)
    inner = eigen_sam.eigen_sam(rho, alpha=0.0, every=every, eps=eps)

    def update(
        updates: optax.Updates, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[optax.Updates, Any]:
        count = state.count
        direction, state = inner.update(updates, state, params, **extra_args)
        [seen] = trees.nodes(state, eigen_sam.EigenState)
        unit = numerics.unit(direction, eps)
        along = numerics.dot(unit, seen.eigenvector)
        part = core.value_at(alpha, count).astype(along.dtype) * along
        return numerics.combine((1.0, unit), (-part, seen.eigenvector)), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def mup_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SAM whose perturbation has a separate scale in every layer, as in mu-P^2.

    .. math::

        \varepsilon = \rho\, \frac{T^2 g}{\|T g\|}, \qquad
        T_l^2 = \frac{n_{out}}{n_{in}}

    Args:
        rho: radius; a number >= 0 or a schedule. Not in units of SAM's: see
            `sam_jax.normalize_by_fans`, whose ``base`` has these at one width.
        eps: floor of the norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation as from `sam`; two gradients per update.

    Example:
        >>> tx, w = mup_sam(0.5), {"kernel": jnp.array([[0.0], [2.0]])}
        >>> print(tx.update(w, tx.init(w), w, grad_fn=lambda w: w)[0]["kernel"].ravel())
        [0.        2.3535533]

    References:
        Haas, Xu, Cevher, Vankadara, "Effective Sharpness Aware Minimization Requires
        Layerwise Perturbation Scaling", NeurIPS 2024, `2411.00075
        <https://arxiv.org/abs/2411.00075>`_; the formula is derived from its condition
    """
    climb = optax.chain(widths.normalize_by_fans(eps=eps), ascent.scale(rho))
    return core.sharpness_aware(climb, mask=mask)


@functools.wraps(adam_sam.adam_sam, assigned=())
def functional_adam_sam(
    *args: Any, **coefficients: Any
) -> optax.GradientTransformationExtraArgs:
    r"""Preconditioned functional SAM: `adam_sam` with the gradient of `functional_sam`.

    It takes what `adam_sam` takes.

    Returns:
        An optimizer. Its update needs ``params`` and ``functional_value_and_grad_fn``.

    References:
        Singh, Mobahi, Agarwala, Dauphin, "Avoiding Spurious Sharpness Minimization
        Broadens Applicability of SAM", ICML 2025, `2502.02407
        <https://arxiv.org/abs/2502.02407>`_
    """
    return functional_sam.with_functional_gradient(
        adam_sam.adam_sam(*args, **coefficients)
    )
