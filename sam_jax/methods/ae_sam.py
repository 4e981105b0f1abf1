"""AE-SAM (Jiang et al., 2023)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import cadence, core, devices, masks, numerics
from sam_jax.methods.sam import sam

# Of a gradient; beyond it, the variance of squared norms would leave float32.
_LARGEST_NORM = 1e9


class NormStatistics(NamedTuple):
    """What `ae_sam` remembers of the gradients' squared norms.

    Attributes:
        started: whether there are statistics yet. Scalar, bool.
        mean: their moving mean. Scalar, float32.
        variance: their moving variance. Scalar, float32.
    """

    started: jax.Array
    mean: jax.Array
    variance: jax.Array


def ae_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    threshold: optax.ScalarOrSchedule = 0.0,
    delta: optax.ScalarOrSchedule = 0.9,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adaptive SAM: SAM where the gradient is large, the plain gradient elsewhere.

    .. math::

        d = \begin{cases}
        \nabla L(w + \rho\, g / \|g\|) & \|g\|^2 \ge \mu_t + c_t\, \sigma_t \\
        g & \text{otherwise}
        \end{cases}

        \mu_t = \delta \mu_{t-1} + (1 - \delta) \|g\|^2, \qquad
        \sigma_t^2 = \delta \sigma_{t-1}^2 + (1 - \delta) (\|g\|^2 - \mu_t)^2

    Two gradients per update with SAM, one without, so ``1 + share`` on average; state:
    two scalars. The share of updates with SAM is about half for a threshold of 0 on
    steady gradients.

    Use it to spend SAM's second gradient where it matters most: a large gradient
    indicates a sharp region.

    Args:
        rho: radius of the perturbation; a number >= 0 or a schedule of the update count
            (from 0).
        threshold: :math:`c_t`, in standard deviations above the mean; any finite number
            or a schedule. A lower one takes SAM more often; the paper's falls linearly
            during training (``optax.linear_schedule``).
        delta: weight of the *old* mean and variance; a number in [0, 1] or a schedule.
            They start at the first squared norm and at 0, so the first update is SAM.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`. The decision is by
            the whole gradient.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``grad_fn``; see `sharpness_aware`. For another
        method than SAM, write the decision with `when`.

    Raises:
        ValueError: if ``rho`` or ``eps`` is negative, infinite or NaN, ``threshold`` is
            not finite, or ``delta`` is outside [0, 1].

    Example:
        >>> import jax, jax.numpy as jnp, sam_jax
        >>> tx = sam_jax.ae_sam(rho=0.5)
        >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2) / 2)
        >>> state = tx.init(jnp.zeros(1))
        >>> for w in (jnp.array([2.0]), jnp.array([1.0]), jnp.array([3.0])):
        ...     d, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
        ...     print(d)  # 1 is below the mean of the squares, 3 is above it
        [2.5]
        [1.]
        [3.5]

    References:
        Jiang, Yang, Zhang, Kwok, "An Adaptive Policy to Employ Sharpness-Aware
        Minimization", ICLR 2023, `2304.14647 <https://arxiv.org/abs/2304.14647>`_

    Differences from the authors' code:
        There is no public code that we know of. Norms beyond 1e9 count as 1e9.
    """
    checks.finite("threshold", threshold, schedule=True)
    checks.between("delta", delta, 0, 1, schedule=True)

    def init() -> NormStatistics:
        return NormStatistics(
            started=jnp.zeros([], bool),
            mean=jnp.zeros([], jnp.float32),
            variance=jnp.zeros([], jnp.float32),
        )

    def decide(
        grads: optax.Updates, state: NormStatistics, count: jax.Array, key: Any
    ) -> tuple[jax.Array, NormStatistics]:
        del key
        norm = jnp.minimum(numerics.norm(grads), _LARGEST_NORM)
        square = devices.agree(jnp.square(norm)).astype(jnp.float32)
        old = core.value_at(delta, count).astype(jnp.float32)
        mean = old * state.mean + (1 - old) * square
        variance = old * state.variance + (1 - old) * jnp.square(square - mean)
        level = core.value_at(threshold, count).astype(jnp.float32)
        use = square >= mean + level * jnp.sqrt(variance)
        # The first time by name: as an equality it would depend on rounding.
        return ~state.started | use, NormStatistics(
            started=jnp.ones([], bool),
            mean=jnp.where(state.started, mean, square),
            variance=jnp.where(state.started, variance, 0),
        )

    return cadence.when(sam(rho, eps=eps, mask=mask), decide, init)
