"""Eigen-SAM (Luo et al., 2024)."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import ascent as blocks
from sam_jax.methods import calls, core, devices, masks, noise, numerics


class EigenState(NamedTuple):
    """State of the ascent of `eigen_sam`.

    Attributes:
        count: updates done so far. Scalar, int32.
        due: the first update that renews the eigenvector. Scalar, int32.
        eigenvector: of the Hessian's largest eigenvalue, of length 1; a tree like the
            parameters that are perturbed.
    """

    count: core.Count
    due: jax.Array
    eigenvector: optax.Updates


def eigen_sam(
    rho: optax.ScalarOrSchedule = 0.1,
    *,
    alpha: optax.ScalarOrSchedule = 0.2,
    every: int = 100,
    power_steps: int = 5,
    seed: int = 0,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Eigen-SAM: the perturbation leans towards the Hessian's top eigenvector.

    .. math::

        d = \nabla L(w + \varepsilon), \qquad
        \varepsilon = \rho \left(\hat g + \alpha\, \mathrm{sign}(\langle g, v \rangle)
        \left(v - \langle v, \hat g \rangle\, \hat g\right)\right), \quad
        \hat g = \frac{g}{\|g\|}

    v is the unit eigenvector of the largest eigenvalue (by magnitude) of the Hessian of
    the batch's loss, from a power iteration that starts where the last one ended.

    Two gradients per update; state: one copy of the parameters. Every ``every`` updates
    it takes ``power_steps`` products with the Hessian as well, each about as expensive
    as two gradients.

    Use it to lower the largest eigenvalue itself, if second derivatives of the model
    are affordable. A gradient alone is hardly aligned with that eigenvector.

    Args:
        rho: radius; a number >= 0 or a schedule of the update count (from 0). The
            displacement is longer, by a factor of at most
            :math:`\sqrt{1 + \alpha^2}`: as in the paper, it is not normalized again.
        alpha: share of the eigenvector; a number >= 0 or a schedule. 0 is SAM.
        every: updates between two power iterations, an integer >= 1.
        power_steps: steps of a power iteration, an integer in [1, 1000].
        seed: of its first vector; together with the update's keyword ``key``, if that
            is passed.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; the Hessian is then that of the loss as a
            function of them alone. See `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``, which must be differentiable by
        ``jax.jvp``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho``, ``alpha`` or ``eps`` is negative, infinite or NaN, or
            ``every`` or ``power_steps`` is not an integer in its range.

    Example:
        >>> import jax, jax.numpy as jnp, sam_jax
        >>> loss = lambda w: (w[0] ** 2 + 100 * w[1] ** 2) / 2  # v is the second axis
        >>> tx = sam_jax.eigen_sam(rho=1.0, alpha=0.5, power_steps=10)
        >>> w = jnp.array([3.0, 0.04])
        >>> d, _ = tx.update(jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss))
        >>> print(d.round(2))  # at w + (0.6, 0.8) + 0.5 * (v - 0.8 * (0.6, 0.8))
        [  3.36 102.  ]

    References:
        Luo, Truong, Pham, Harandi, Phung, Le, "Explicit Eigenvalue Regularization
        Improves Sharpness-Aware Minimization", NeurIPS 2024, `2501.12666
        <https://arxiv.org/abs/2501.12666>`_

    Differences from the authors' code:
        RitianLuo/EigenSAM iterates on the network in evaluation mode, the Hessian of
        another loss; here it is that of ``grad_fn``, of the training loss. It knows no
        eigenvector in the first 100 updates, and perturbs by ``rho g`` until then:
        ``chain(late_phase(usam(rho), 0, 100), late_phase(eigen_sam(rho), 100))``, whose
        diagnostics are those of the first; `sam_jax.check` refuses two methods.
    """
    return core.sharpness_aware(
        optax.chain(
            _lean_towards_eigenvector(alpha, every, power_steps, seed, eps),
            blocks.scale(rho),
        ),
        mask=mask,
    )


def _lean_towards_eigenvector(
    alpha: optax.ScalarOrSchedule, every: int, power_steps: int, seed: int, eps: float
) -> optax.GradientTransformationExtraArgs:
    checks.nonnegative("alpha", alpha, schedule=True)
    checks.integer("every", every, 1)
    checks.integer("power_steps", power_steps, 1, core.MOST_GRADIENTS)
    checks.seed("seed", seed)
    normalize = blocks.normalize(eps)

    def init_fn(params: optax.Params) -> EigenState:
        return EigenState(
            count=jnp.zeros([], jnp.int32),
            due=jnp.zeros([], jnp.int32),
            eigenvector=jax.tree.map(jnp.zeros_like, params),
        )

    def update_fn(
        updates: optax.Updates,
        state: EigenState,
        params: optax.Params | None = None,
        *,
        grad_fn: calls.GradFn | None = None,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EigenState]:
        del extra_args
        gradient = _gradient(grad_fn, value_and_grad_fn)

        def refreshed() -> optax.Updates:
            start = noise.normal_like(
                noise.update_key(seed, state.count, key), state.eigenvector
            )
            # Also where the last iteration ended in zero, on a loss without curvature.
            fresh = numerics.norm(state.eigenvector) == 0
            vector = jax.tree.map(
                lambda x, v: jnp.where(fresh, x, v), start, state.eigenvector
            )
            return _power_iteration(gradient, params, vector, power_steps)

        renew = state.count >= state.due
        vector = jax.lax.cond(renew, refreshed, lambda: state.eigenvector)
        direction, _ = normalize.update(updates, optax.EmptyState())
        along = numerics.dot(vector, direction)
        lean = core.value_at(alpha, state.count).astype(along.dtype) * jnp.sign(along)
        leaning = numerics.combine((1 - lean * along, direction), (lean, vector))
        return leaning, EigenState(
            count=core.next_count(state.count),
            due=jnp.where(renew, core.next_due(state.count, every), state.due),
            eigenvector=vector,
        )

    return core.transformation(init_fn, update_fn)


def _gradient(
    grad_fn: calls.GradFn | None, value_and_grad_fn: calls.ValueAndGradFn | None
) -> calls.GradFn:
    if grad_fn is not None:
        return functools.partial(calls.gradient, grad_fn)
    assert value_and_grad_fn is not None
    return lambda params: calls.value_and_gradient(value_and_grad_fn, params)[1]


def _power_iteration(
    gradient: calls.GradFn, params: Any, vector: Any, steps: int
) -> optax.Updates:
    """The normalized ``H^steps vector``; zero if that is zero."""

    def step(vector: Any, unused: None) -> tuple[Any, None]:
        del unused
        _, product = jax.jvp(gradient, (params,), (vector,))
        product = devices.agree(product)
        norm, unit = numerics.norm(product), numerics.unit(product)
        # An overflow in the product costs a step, not the vector.
        return jax.tree.map(
            lambda x, v: jnp.where(jnp.isfinite(norm), x.astype(v.dtype), v),
            *(unit, vector),
        ), None

    vector, _ = jax.lax.scan(
        step, numerics.unit(vector), length=steps, unroll=core.unroll(steps)
    )
    return vector
