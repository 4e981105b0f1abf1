"""SSAM-F, Sparse SAM by Fisher information (Mi et al., 2022)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import ascent, calls, core, devices, masks, sparse_masks


def sparse_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    sparsity: float = 0.5,
    num_samples: int = 16,
    every: int = 100,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Sparse SAM: perturbs the weights of the largest Fisher information only.

    .. math::

        d = \nabla L\left(w + \rho\, m \odot \frac{g}{\|g\|}\right), \qquad
        m = \mathrm{top}_{1-s} \sum_{i \le n} \left(\nabla \ell_i(w)\right)^2, \qquad
        g = \nabla L(w)

    Two gradients per update; state: one boolean per parameter. Every ``every`` updates
    it also takes ``num_samples`` gradients of one example each. The second gradient is
    a full one: the sparsity saves no time. BatchNorm normalizes each of these examples
    alone.

    Use it to perturb fewer weights without choosing them by hand: where full SAM hurts,
    or to study which weights matter.

    Args:
        rho: radius of the perturbation before the mask, in units of the weights' global
            2-norm; a number >= 0 or a schedule of the update count (from 0). The
            masked perturbation is shorter.
        sparsity: share s of the weights that stay in place, in [0, 1]; 0 is SAM.
        num_samples: how many examples n the Fisher information is taken of, the first
            ones of the batch; an integer >= 1, at most the size of the batch, unless
            the update is given ``example_losses``.
        every: updates between two masks, beginning with the first; an integer >= 1.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`. The sparsity is then
            that of these parameters.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params``, ``grad_fn`` (see `sharpness_aware`) and
        ``subset_grad_fn(params, rows) -> grads``, the gradient of the mean loss of the
        examples in the given rows (int32) of the batch. ``example_losses`` [B], if it
        is given too, says how many examples there are.

    Raises:
        ValueError: if a coefficient is outside its range; by the update, if a keyword
            is missing.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> batch = jnp.array([[1.0, 0.0], [1.0, 2.0]])
        >>> loss = lambda w, batch: jnp.mean(jnp.sum(batch * w**2, axis=1))
        >>> grad_fn = lambda w: jax.grad(loss)(w, batch)  # 2 w * (1, 1)
        >>> tx = sam_jax.sparse_sam(rho=2**0.5, num_samples=2)
        >>> w = jnp.ones(2)
        >>> d, _ = tx.update(
        ...     grad_fn(w), tx.init(w), w, grad_fn=grad_fn,
        ...     subset_grad_fn=lambda w, rows: jax.grad(loss)(w, batch[rows]),
        ... )
        >>> print(d)  # squares: 4 + 4 and 0 + 16, so the second weight moves, by 1
        [2. 4.]

    References:
        Mi, Shen, Ren, Zhou, Sun, Ji, Tao, "Make Sharpness-Aware Minimization Stronger:
        A Sparsified Perturbation Approach", NeurIPS 2022, `2210.05177
        <https://arxiv.org/abs/2210.05177>`_

    Differences from the authors' code:
        Mi-Peng/Sparse-Sharpness-Aware-Minimization starts with a mask of zeros, so that
        nothing is perturbed before the first renewal, which comes after the first
        update. It draws examples of the whole training set, renews the mask by epochs,
        and adds 1e-7 to the norm instead of flooring it.
    """
    checks.static("sparsity", sparsity)
    checks.between("sparsity", sparsity, 0, 1)
    checks.integer("num_samples", num_samples, 1)
    checks.integer("every", every, 1)
    return core.sharpness_aware(
        optax.chain(
            ascent.normalize(eps),
            ascent.scale(rho),
            _keep_informative(sparsity, num_samples, every),
        ),
        mask=mask,
    )


def _keep_informative(
    sparsity: float, num_samples: int, every: int
) -> optax.GradientTransformationExtraArgs:
    """Keeps the coordinates of the largest diagonal Fisher information."""

    def informative(
        updates: optax.Updates,
        state: sparse_masks.SparseState,
        params: Any,
        *,
        subset_grad_fn: calls.SubsetGradFn | None = None,
        example_losses: jax.Array | None = None,
        **extra_args: Any,
    ) -> Any:
        del updates, state, extra_args
        calls.require(
            "grad_fn=grad_fn, subset_grad_fn=subset_grad_fn",
            subset_grad_fn=subset_grad_fn,
        )
        assert subset_grad_fn is not None
        # The losses of the examples, if they are passed, give the size of the batch.
        rows = (
            num_samples
            if example_losses is None
            else min(num_samples, example_losses.shape[0])
        )

        def mask() -> Any:
            fisher = _fisher(subset_grad_fn, params, rows)
            return sparse_masks.top(fisher, sparse_masks.size_of(fisher, sparsity))

        return mask

    return sparse_masks.moving(informative, every, start=True)


def _fisher(subset_grad_fn: calls.SubsetGradFn, params: Any, rows: int) -> Any:
    """Sum of the squared gradients of the first examples, float32."""

    def add(total: Any, row: jax.Array) -> tuple[Any, None]:
        grads = calls.gradient(subset_grad_fn, params, row[None])
        squares = jax.tree.map(lambda g: jnp.square(g.astype(jnp.float32)), grads)
        return jax.tree.map(jnp.add, total, devices.agree(squares)), None

    # A real loop: with many samples it saves compilation and memory, and it is rare.
    start = jax.tree.map(
        lambda w: devices.placed_as(jnp.zeros(w.shape, jnp.float32), w), params
    )
    total, _ = jax.lax.scan(add, start, jnp.arange(rows, dtype=jnp.int32))
    return total
