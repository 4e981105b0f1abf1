"""ESAM, Efficient SAM (Du et al., 2022)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import ascent, calls, core, devices, masks, noise


def esam(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    beta: optax.ScalarOrSchedule = 0.6,
    gamma: float = 0.5,
    seed: int = 0,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Efficient SAM: perturbs random weights, descends on the sensitive examples.

    .. math::

        \varepsilon = \frac{\rho}{\beta}\, m \odot \frac{g}{\|g\|}, \quad
        m_i \sim \mathrm{Bernoulli}(\beta), \qquad
        d = \nabla L_S(w + \varepsilon), \qquad g = \nabla L(w)

    with S the share :math:`\gamma` of the batch whose losses grow the most from w to
    :math:`w + \varepsilon`.

    Two gradients per update; no state but counters and diagnostics. The second one
    uses only the examples in S, after a forward pass of all: about
    :math:`1 + \gamma + 1/3` gradients of the whole batch. BatchNorm and dropout see S
    alone there; the perturbed loss of the diagnostics is ``value`` and the mean rise of
    all examples.

    Use it to save part of SAM's cost where the backward pass dominates and batches
    are large enough to leave examples out.

    Args:
        rho: radius of the perturbation, in units of the weights' global 2-norm; a
            number >= 0 or a schedule of the update count (from 0). It is the length of
            the mean perturbation over m; a single one is longer, by about
            ``1/sqrt(beta)``.
        beta: probability that a coordinate is perturbed, in (0, 1]; a number or a
            schedule. 1 perturbs all.
        gamma: share of the batch in the second gradient, in (0, 1]; rounded to a number
            of examples, at least one. 1 is SAM's second gradient.
        seed: of the draws; together with the update's keyword ``key``, or ``group_key``
            where examples share a perturbation in groups, if these are passed.
        eps: floor of the gradient's norm.
        mask: perturb only these parameters; see `sharpness_aware`.

    Returns:
        A transformation from the gradient at the weights to the direction to descend.
        Its update needs ``params``, ``grad_fn`` (see `sharpness_aware`) and, unless
        ``gamma`` is 1, three more: ``example_losses`` [B], the losses of the batch's
        examples at the weights, ``example_losses_fn(params) -> [B]``, and
        ``subset_grad_fn(params, rows) -> grads``, the gradient of the mean loss of the
        examples in the given rows (int32 [n]) of the batch.

    Raises:
        ValueError: if a coefficient is outside its range; by the update, if a keyword
            is missing.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> batch = jnp.array([1.0, 3.0])
        >>> losses = lambda w, batch: batch * w**2 / 2
        >>> grad_fn = jax.grad(lambda w: jnp.mean(losses(w, batch)))
        >>> tx = sam_jax.esam(rho=0.5, beta=1.0, gamma=0.5)
        >>> w = jnp.array(1.0)
        >>> d, _ = tx.update(
        ...     grad_fn(w), tx.init(w), w, grad_fn=grad_fn,
        ...     example_losses=losses(w, batch),
        ...     example_losses_fn=lambda w: losses(w, batch),
        ...     subset_grad_fn=jax.grad(lambda w, rows: losses(w, batch[rows]).mean()),
        ... )
        >>> print(d)  # the second example's: 3 * 1.5
        4.5

    References:
        Du, Yan, Feng, Zhou, Zhen, Goh, Tan, "Efficient Sharpness-aware Minimization for
        Improved Training of Neural Networks", ICLR 2022, `2110.03141
        <https://arxiv.org/abs/2110.03141>`_

    Differences from the authors' code:
        dydjw9/Efficient_SAM leaves out whole tensors instead of coordinates, those
        frozen at random before the first pass; keeps only examples strictly above the
        cutoff (one too few, none if all are tied); rounds their number down, which a
        ``gamma`` of that number over the batch size does here, and takes all from
        ``gamma`` 0.99 on, which 1 does.
    """
    checks.positive("beta", beta, schedule=True)
    checks.between("beta", beta, 0, 1, schedule=True)
    checks.static("gamma", gamma)
    checks.positive("gamma", gamma)
    checks.between("gamma", gamma, 0, 1)
    checks.seed("seed", seed)
    perturb = core.sharpness_aware(
        optax.chain(
            ascent.normalize(eps), ascent.scale(rho), _drop_coordinates(beta, seed)
        ),
        mask=mask,
    )
    return perturb if gamma == 1 else _on_sensitive_examples(perturb, gamma)


def _drop_coordinates(
    beta: optax.ScalarOrSchedule, seed: int
) -> optax.GradientTransformationExtraArgs:
    """Keeps each coordinate with probability beta, and keeps the mean."""

    def drop(
        updates: optax.Updates,
        count: jax.Array,
        params: Any,
        *,
        key: jax.Array | None = None,
        group_key: jax.Array | None = None,
        **extra_args: Any,
    ) -> optax.Updates:
        del params, extra_args
        probability = core.value_at(beta, count)
        draws = noise.uniform_like(
            noise.update_key(seed, count, group_key, key), updates
        )
        return jax.tree.map(
            lambda x, draw: jnp.where(
                draw < probability.astype(draw.dtype),
                x / probability.astype(x.dtype),
                jnp.zeros_like(x),
            ),
            *(updates, draws),
        )

    return ascent.counted(drop)


def _on_sensitive_examples(
    method: optax.GradientTransformationExtraArgs, gamma: float
) -> optax.GradientTransformationExtraArgs:
    """Takes a method's second gradient over the examples that it disturbs the most."""

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        grad_fn: calls.GradFn | None = None,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        example_losses: jax.Array | None = None,
        example_losses_fn: Any = None,
        subset_grad_fn: calls.SubsetGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        calls.require_gradient(params, grad_fn, value_and_grad_fn)
        calls.require(
            "grad_fn=grad_fn, example_losses=example_losses, "
            "example_losses_fn=example_losses_fn, subset_grad_fn=subset_grad_fn",
            example_losses=example_losses,
            example_losses_fn=example_losses_fn,
            subset_grad_fn=subset_grad_fn,
        )
        assert example_losses is not None and subset_grad_fn is not None
        size = max(1, round(gamma * example_losses.shape[0]))

        def sensitive(perturbed: optax.Params) -> tuple[jax.Array, optax.Updates]:
            losses = example_losses_fn(perturbed)
            _, rows = jax.lax.top_k(devices.whole(losses - example_losses), size)
            # With ``value``, which may have weights and a decay that losses do not.
            value = extra_args.get("value")
            start = jnp.mean(example_losses) if value is None else value
            rise = jnp.mean(losses - example_losses)
            return start + rise, subset_grad_fn(perturbed, rows)

        return method.update(
            updates, state, params, value_and_grad_fn=sensitive, **extra_args
        )

    return optax.GradientTransformationExtraArgs(method.init, update_fn)
