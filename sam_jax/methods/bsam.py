"""bSAM, Bayesian SAM (Möllenhoff and Khan, 2023)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import (
    calls,
    core,
    devices,
    masks,
    noise,
    numerics,
    observations,
    optimizers,
)


class BsamState(NamedTuple):
    """State of `bsam`.

    Attributes:
        count: updates done so far. Scalar, int32.
        momentum: average m of the gradients; float32 or wider.
        precision: s, the precision of the weights over the number of examples; float32
            or wider, starts at one.
        diagnostics: what the last update saw.
    """

    count: core.Count
    momentum: Any
    precision: Any
    diagnostics: observations.Diagnostics


def bsam(
    learning_rate: optax.ScalarOrSchedule,
    rho: optax.ScalarOrSchedule = 0.01,
    *,
    num_examples: int | None = None,
    weight_decay: optax.ScalarOrSchedule = 5e-4,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    damping: optax.ScalarOrSchedule = 0.1,
    init_precision: float = 1.0,
    seed: int = 0,
    eps: float = 1e-12,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Bayesian SAM: an adaptive SAM that learns the variance of its weights.

    .. math::

        g &= \nabla L\left(w + n / \sqrt{N s}\right), \quad n \sim \mathcal{N}(0, I),
        \qquad g_p = \nabla L(w + \rho\, g / s) \\
        m &\leftarrow \beta_1 m + (1 - \beta_1)(g_p + \delta w), \qquad
        w \leftarrow w - \eta\, m / s \\
        s &\leftarrow \beta_2 s + (1 - \beta_2)
        \left(\sqrt{s}\, |g| + \gamma + \delta\right)

    The step of w divides by the old s. Products and roots are taken per coordinate.

    Two gradients per update; state: two copies of the parameters. The caller's own
    gradient is not used, and a compiled step does not compute it if nothing else does.

    Use it for an Adam-like SAM that also gives the weights a variance, ``1 / (N s)``,
    over which predictions can be averaged. It is a complete optimizer.

    Args:
        learning_rate: step size; a number >= 0 or a schedule of the update count
            (from 0). The paper's is 0.5 for ResNets.
        rho: the perturbation is ``rho g / s``; a number >= 0 or a schedule.
        num_examples: size N of the training set, an integer >= 1; None takes the
            update's keyword ``num_examples``.
        weight_decay: :math:`\delta`, the prior's precision over N; a number >= 0 or a
            schedule.
        b1: weight of the old momentum; a number in [0, 1] or a schedule.
        b2: weight of the old precision; a number in [0, 1] or a schedule.
        damping: :math:`\gamma`, keeps the precision from zero; a number >= 0 or a
            schedule.
        init_precision: s before the first update; a number > 0.
        seed: of the noise; together with the update's keyword ``key``, or ``group_key``
            where examples share a perturbation in groups, if these are passed.
        eps: accepted as by every method; there is no norm to floor here.
        mask: perturb only these parameters, by the noise as well as by the ascent; see
            `sharpness_aware`.

    Returns:
        An optimizer. Its update needs ``params`` and ``grad_fn`` (see
        `sharpness_aware`), and ``num_examples`` unless that is given here.

    Raises:
        ValueError: if a coefficient is outside its range; by the update, if a keyword
            is missing.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> grad_fn = lambda w: jnp.ones(2)  # the same everywhere
        >>> tx = sam_jax.bsam(0.5, num_examples=1000, weight_decay=0.0)
        >>> w = jnp.ones(2)
        >>> updates, _ = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
        >>> print(optax.apply_updates(w, updates))  # 1 - 0.5 * (0.1 * 1) / 1
        [0.95 0.95]

    References:
        Möllenhoff, Khan, "SAM as an Optimal Relaxation of Bayes", ICLR 2023,
        `2210.01620 <https://arxiv.org/abs/2210.01620>`_

    Differences from the authors' code:
        team-approx-bayes/bayesian-sam draws a noise and a perturbation for each of 8
        parts of the batch; here they are one per call, and a caller with groups of
        examples passes each its ``group_key`` (the trainer does). It gives the prior's
        precision (40 by default) instead of the weight decay, which is that precision
        divided by N.
    """
    sizes = dict(
        learning_rate=learning_rate, rho=rho, weight_decay=weight_decay, damping=damping
    )
    for name, size in sizes.items():
        checks.nonnegative(name, size, schedule=True)
    checks.between("b1", b1, 0, 1, schedule=True)
    checks.between("b2", b2, 0, 1, schedule=True)
    checks.positive("init_precision", init_precision)
    checks.seed("seed", seed)
    checks.nonnegative("eps", eps)
    masks.check(mask)
    if num_examples is not None:
        checks.integer("num_examples", num_examples, 1, high=10**30)  # a float32
    given_examples = num_examples

    def update_fn(
        updates: optax.Updates,
        state: BsamState,
        params: optax.Params | None = None,
        *,
        grad_fn: calls.GradFn | None = None,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        num_examples: Any = None,
        key: jax.Array | None = None,
        group_key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, BsamState]:
        del updates, extra_args
        gradient_at = core.second_gradient(params, grad_fn, value_and_grad_fn)
        examples = num_examples if given_examples is None else given_examples
        calls.require("grad_fn=grad_fn, num_examples=N", num_examples=examples)
        keep = masks.kept(params, mask)
        step, radius, *rest = (
            core.value_at(coefficient, state.count)
            for coefficient in (learning_rate, rho, weight_decay, b1, b2, damping)
        )

        # ── Gradient at a draw of the weights.
        draws = noise.normal_like(
            noise.update_key(seed, state.count, group_key, key), params
        )
        noisy = _displacement(
            lambda n, s: n / jnp.sqrt(jnp.asarray(examples, s.dtype) * s),
            *(params, keep, draws, state.precision),
        )
        _, grads = gradient_at(noisy)

        # ── Gradient at the perturbed mean.
        ascent = _displacement(
            lambda g, s: radius.astype(g.dtype) * g / s,
            *(params, keep, grads, state.precision),
        )
        perturbed_loss, perturbed_grads = gradient_at(ascent)

        momentum, precision = _moments(state, params, grads, perturbed_grads, *rest)
        steps = jax.tree.map(
            lambda w, m, s: _times(-step, m / s).astype(w.dtype),
            *(params, momentum, state.precision),
        )
        return steps, BsamState(
            count=core.next_count(state.count),
            momentum=momentum,
            precision=precision,
            diagnostics=observations.observe(
                grads, params, ascent, perturbed_loss, perturbed_grads
            ),
        )

    def init_fn(params: optax.Params) -> BsamState:
        wide = numerics.wide_tree(params)
        return BsamState(
            count=jnp.zeros([], jnp.int32),
            momentum=jax.tree.map(jnp.zeros_like, wide),
            precision=jax.tree.map(lambda w: jnp.full_like(w, init_precision), wide),
            diagnostics=observations.no_diagnostics(params),
        )

    return optimizers.full_optimizer(init_fn, update_fn)


def _displacement(
    of: Callable[..., jax.Array], params: Any, keep: Any, *trees: Any
) -> Any:
    """Computed wide, in the dtypes of the parameters, zero outside the mask."""
    return jax.tree.map(
        lambda w, flag, *leaves: (
            of(*map(numerics.wide, leaves)).astype(w.dtype)
            if flag
            else jnp.zeros_like(w)
        ),
        *(params, keep, *trees),
    )


def _moments(
    state: BsamState,
    params: Any,
    grads: optax.Updates,
    perturbed_grads: optax.Updates,
    *coefficients: jax.Array,
) -> tuple[Any, Any]:
    """Momentum and precision after the update; what is kept is the devices' mean."""
    decay, old_m, old_s, floor = coefficients
    momentum = jax.tree.map(
        lambda m, g, w: _mix(
            old_m, m, numerics.wide(g) + _times(decay, numerics.wide(w))
        ),
        *(state.momentum, devices.agree(perturbed_grads), params),
    )
    curvature = jax.tree.map(
        lambda s, g: jnp.sqrt(s) * jnp.abs(numerics.wide(g)), state.precision, grads
    )
    precision = jax.tree.map(
        lambda s, c: _mix(old_s, s, c + floor.astype(c.dtype) + decay.astype(c.dtype)),
        *(state.precision, devices.agree(curvature)),
    )
    return momentum, precision


def _times(factor: jax.Array, x: jax.Array) -> jax.Array:
    return factor.astype(x.dtype) * x


def _mix(weight: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
    return _times(weight, old) + _times(1 - weight, new)
