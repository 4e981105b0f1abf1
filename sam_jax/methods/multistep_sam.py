"""SAM with several ascent steps."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import ascent, calls, core, devices, masks, numerics


def multistep_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    steps: int = 2,
    project: bool = True,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Multi-step SAM: projected gradient ascent to the worst point of the ball.

    .. math::

        \varepsilon_{i+1} = \Pi_\rho \left(\varepsilon_i + \rho
        \frac{\nabla L(w + \varepsilon_i)}{\|\nabla L(w + \varepsilon_i)\|}\right),
        \qquad \varepsilon_0 = 0, \qquad d = \nabla L(w + \varepsilon_K)

    :math:`\Pi_\rho` projects onto the ball of radius :math:`\rho`.

    Three gradients per update; no state but counters and diagnostics. In general,
    ``steps + 1``.

    Use it to see how well SAM's single step solves the inner problem. In published
    comparisons more steps gain little, and each costs a gradient.

    Args:
        rho: length of a step and radius of the ball, in units of the weights' global
            2-norm; a number >= 0 or a schedule of the update count (from 0).
        steps: ascent steps K, an integer in [1, 1000]. 1 is SAM.
        project: stay within the ball; if False, the perturbation may reach the length
            ``steps * rho``.
        eps: floor of the gradients' norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`.

    Raises:
        ValueError: if ``rho`` or ``eps`` is negative, infinite or NaN, or ``steps`` is
            not an integer in [1, 1000].

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**2) / 2
        >>> for project in (True, False):
        ...     tx = sam_jax.multistep_sam(rho=0.5, steps=3, project=project)
        ...     w = jnp.array([0.0, 2.0])
        ...     d, _ = tx.update(w, tx.init(w), w, grad_fn=jax.grad(loss))
        ...     print(d)  # 2 + 0.5, 2 + 3 * 0.5
        [0.  2.5]
        [0.  3.5]

    References:
        Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-Aware Minimization for Efficiently
        Improving Generalization", ICLR 2021, `2010.01412
        <https://arxiv.org/abs/2010.01412>`_, appendix

        Andriushchenko, Flammarion, "Towards Understanding Sharpness-Aware
        Minimization", ICML 2022, `2206.06232 <https://arxiv.org/abs/2206.06232>`_

    Differences from the authors' code:
        tml-epfl/understanding-sam (``sam_iters``) has a separate step length beside
        the radius. ``optax.contrib.sam`` takes ``sync_period - 1`` steps without a
        projection, as ``project=False``; in its transparent mode in separate updates.
    """
    checks.integer("steps", steps, 1, core.MOST_GRADIENTS)
    return core.sharpness_aware(_climb(rho, steps, project, eps), mask=mask)


def _climb(
    rho: optax.ScalarOrSchedule, steps: int, project: bool, eps: float
) -> optax.GradientTransformationExtraArgs:
    """Gradient -> displacement after some steps of length rho."""
    checks.nonnegative("rho", rho, schedule=True)
    checks.nonnegative("eps", eps)

    def farthest(
        updates: optax.Updates,
        count: jax.Array,
        params: Any,
        *,
        grad_fn: calls.GradFn | None = None,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        **extra_args: Any,
    ) -> optax.Updates:
        del extra_args
        gradient_at = core.second_gradient(params, grad_fn, value_and_grad_fn)
        radius = core.value_at(rho, count)

        def along(grads: optax.Updates) -> optax.Updates:
            return numerics.multiply(numerics.unit(grads, eps), radius)

        def climb(displacement: Any, nothing: None) -> tuple[Any, None]:
            _, grads = gradient_at(displacement)
            displacement = numerics.combine((1.0, displacement), (1.0, along(grads)))
            if project:
                inverse = numerics.safe_inverse(numerics.norm(displacement))
                factor = jnp.minimum(1, radius.astype(inverse.dtype) * inverse)
                displacement = numerics.multiply(displacement, factor)
            return displacement, nothing

        first = devices.vary_as(along(updates), params)
        displacement, _ = jax.lax.scan(
            climb, first, length=steps - 1, unroll=core.unroll(steps)
        )
        return displacement

    return ascent.counted(farthest)
