"""Functional SAM (Singh et al., 2025)."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from sam_jax.methods import ascent as blocks
from sam_jax.methods import calls, core, masks


def functional_sam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Functional SAM: the network is perturbed, the loss of its outputs is not.

    .. math::

        d = J\left(w + \rho\, \frac{g}{\|g\|}\right)^{\!\top} \nabla_F L(F(w)), \qquad
        J = \frac{\partial F}{\partial w}, \quad g = J(w)^\top \nabla_F L(F(w))

    F are the outputs of the network on the batch, the logits of a classifier.

    Two gradients per update; no state but counters and diagnostics.

    Use it for language models, where SAM mostly flattens the statistics of the logits
    instead of the function, and gains nothing.

    Args:
        rho: radius of the perturbation; a number >= 0 or a schedule of the update count
            (from 0).
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params`` and ``functional_value_and_grad_fn(params) -> (loss,
        grads)``, which `functional_value_and_grad` makes.

    Raises:
        ValueError: if ``rho`` or ``eps`` is negative, infinite or NaN.

    Example:
        >>> import jax, jax.numpy as jnp, sam_jax
        >>> outputs_fn, loss_fn = lambda w: w**2, lambda outputs: jnp.sum(outputs**2)
        >>> w, tx = jnp.array([2.0]), sam_jax.functional_sam(rho=1.0)
        >>> grads = jax.grad(lambda w: loss_fn(outputs_fn(w)))(w)
        >>> second = sam_jax.functional_value_and_grad(
        ...     outputs_fn, loss_fn, outputs_fn(w)
        ... )
        >>> d, _ = tx.update(
        ...     grads, tx.init(w), w, functional_value_and_grad_fn=second
        ... )
        >>> print(d)  # the loss's derivative 2 * 2**2 at w, times 2 * 3 at w + 1
        [48.]

    References:
        Singh, Mobahi, Agarwala, Dauphin, "Avoiding Spurious Sharpness Minimization
        Broadens Applicability of SAM", ICML 2025, `2502.02407
        <https://arxiv.org/abs/2502.02407>`_

    Differences from the authors' code:
        There is no public code that we know of. `contrib.functional_adam_sam` has the
        paper's preconditioned perturbation.
    """
    return with_functional_gradient(
        core.sharpness_aware(blocks.on_sphere(rho, eps), mask=mask)
    )


def with_functional_gradient(
    method: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """The method with the functional gradient as that of its ``value_and_grad_fn``."""

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        functional_value_and_grad_fn: calls.ValueAndGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        calls.require(
            "functional_value_and_grad_fn=functional_value_and_grad_fn, which "
            "sam_jax.functional_value_and_grad makes",
            params=params,
            functional_value_and_grad_fn=functional_value_and_grad_fn,
        )
        others = extra_args | {"value_and_grad_fn": functional_value_and_grad_fn}
        return method.update(updates, state, params, **others)

    return type(method)(method.init, update_fn)  # a full optimizer stays one


def functional_value_and_grad(
    outputs_fn: Callable[[optax.Params], Any],
    loss_fn: Callable[[Any], jax.Array],
    outputs: Any,
) -> calls.ValueAndGradFn:
    r"""Makes the function that `functional_sam` takes its second gradient from.

    Args:
        outputs_fn: the network on the batch, ``params -> outputs``: any tree of arrays
            of inexact dtypes. A penalty of the weights, which is to be perturbed as the
            network is, may be one of them: ``(logits, decay)``.
        loss_fn: ``outputs -> loss``, a scalar.
        outputs: those at the weights, known from the first gradient.

    Returns:
        ``params -> (loss, grads)``: the loss of the outputs at ``params``, and
        :math:`J(\mathrm{params})^\top \nabla L(\mathrm{outputs})`, whose second factor
        belongs to the outputs given here.

    Example:
        >>> outputs_fn, loss_fn = lambda w: 3 * w, lambda outputs: outputs**2
        >>> fn = functional_value_and_grad(outputs_fn, loss_fn, outputs_fn(1.0))
        >>> [float(x) for x in fn(2.0)]  # loss 6**2; gradient 3 * 2 * 3
        [36.0, 18.0]
    """

    def value_and_grad(params: optax.Params) -> tuple[jax.Array, optax.Updates]:
        moved, vjp = jax.vjp(outputs_fn, params)
        # Here, not above: it is offered to methods that never call it.
        return loss_fn(moved), vjp(jax.grad(loss_fn)(outputs))[0]

    return value_and_grad
