"""SSAM-D, Sparse SAM with dynamic sparse training (Mi et al., 2022)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import ascent, core, devices, masks, noise, sparse_masks


def dynamic_sparse_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    sparsity: float = 0.5,
    drop_rate: optax.ScalarOrSchedule = 0.5,
    every: int = 100,
    seed: int = 0,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Sparse SAM whose mask moves: drops small gradients, grows at random.

    .. math::

        d = \nabla L\left(w + \rho\, m \odot \frac{g}{\|g\|}\right), \qquad
        g = \nabla L(w)

    with a mask m of ones and zeros that is random at first. At every renewal a share r
    of its ones, those of the smallest :math:`|g_i|`, become zeros, and as many of its
    zeros become ones at random.

    Two gradients per update; state: one boolean per parameter. The second gradient is a
    full one: the sparsity saves no time.

    Use it for a sparse perturbation where the gradients of single examples, which
    `sparse_sam` needs, are unavailable or too expensive.

    Args:
        rho: radius of the perturbation before the mask, in units of the weights' global
            2-norm; a number >= 0 or a schedule of the update count (from 0). The
            masked perturbation is shorter.
        sparsity: share of the weights that stay in place, in [0, 1]; 0 is SAM.
        drop_rate: share r of the mask that is exchanged, in [0, 1], no more than there
            are zeros; a number or a schedule of the update count. The paper's decays to
            0 along a cosine.
        every: updates between two renewals, an integer >= 1. The first use draws the
            mask.
        seed: of the draws; together with the update's keyword ``key``, if that is
            passed.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`. The sparsity is then
            that of these parameters.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if a coefficient is outside its range.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> tx = sam_jax.dynamic_sparse_sam(rho=0.5, sparsity=0.75)
        >>> w = jnp.ones(4)
        >>> d, _ = tx.update(w, tx.init(w), w, grad_fn=lambda w: w)
        >>> print(jnp.sort(d))  # one of four moves: 1 + 0.5 / |g|, |g| = 2
        [1.   1.   1.   1.25]

    References:
        Mi, Shen, Ren, Zhou, Sun, Ji, Tao, "Make Sharpness-Aware Minimization Stronger:
        A Sparsified Perturbation Approach", NeurIPS 2022, `2210.05177
        <https://arxiv.org/abs/2210.05177>`_

    Differences from the authors' code:
        Mi-Peng/Sparse-Sharpness-Aware-Minimization renews the mask by epochs, once in
        the very first update too, right after drawing it, for use from the second one
        on; its masks shrink where there are fewer zeros than it drops ones. It adds
        1e-7 to the norm instead of flooring it.
    """
    checks.static("sparsity", sparsity)
    checks.between("sparsity", sparsity, 0, 1)
    checks.between("drop_rate", drop_rate, 0, 1, schedule=True)
    checks.integer("every", every, 1)
    checks.seed("seed", seed)
    return core.sharpness_aware(
        optax.chain(
            ascent.normalize(eps),
            # Before the radius: where that is zero, gradients are still told apart.
            _keep_moving(sparsity, drop_rate, every, seed),
            ascent.scale(rho),
        ),
        mask=mask,
    )


def _keep_moving(
    sparsity: float, drop_rate: optax.ScalarOrSchedule, every: int, seed: int
) -> optax.GradientTransformationExtraArgs:
    """Keeps the coordinates of a mask that is exchanged little by little."""

    def exchanged(
        updates: optax.Updates,
        state: sparse_masks.SparseState,
        params: Any,
        *,
        key: jax.Array | None = None,
        **extra_args: Any,
    ) -> Any:
        del params, extra_args
        rate = core.value_at(drop_rate, state.count).astype(jnp.float32)

        def mask() -> Any:
            size = sparse_masks.size_of(updates, sparsity)
            zeros = sparse_masks.size_of(updates, 0) - size
            ones = optax.tree.sum(
                jax.tree.map(lambda m: jnp.sum(m, dtype=jnp.int32), state.mask)
            )
            ones = jnp.asarray(ones, jnp.int32)  # an empty tree has the sum 0
            dropped = jnp.minimum(
                jnp.round(rate * ones.astype(jnp.float32)).astype(ones.dtype), zeros
            )
            draws = noise.uniform_like(
                noise.update_key(seed, state.count, key), updates
            )
            # Not in the running: below every score.
            old = jax.tree.map(
                lambda g, m: jnp.where(m, jnp.abs(g).astype(jnp.float32), -1),
                *(devices.agree(updates), state.mask),
            )
            new = jax.tree.map(
                lambda u, m: jnp.where(m, -1, u), devices.agree(draws), state.mask
            )
            kept = ones - dropped
            return jax.tree.map(
                jnp.logical_or,
                sparse_masks.top(old, kept),
                sparse_masks.top(new, size - kept),
            )

        return mask

    # Nothing to drop at first: the first renewal grows the whole mask at random.
    return sparse_masks.moving(exchanged, every, start=False)
