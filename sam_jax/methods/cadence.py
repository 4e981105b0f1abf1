"""Cadence: take the method's step only in some updates, the plain gradient in others.

The work of a skipped step is really skipped: it costs what the base optimizer costs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import calls, core, devices, noise, observations, optimizers

# (grads, state, count, key) -> (scalar boolean, state)
Decide = Callable[[Any, Any, jax.Array, Any], tuple[Any, Any]]

# Beside a count of updates in a state of Optax, averages of that many gradients. Such a
# count, by which a bias is corrected, does not follow training as that of a schedule.
_AVERAGES = {"ema", "mu", "nu", "v", "weights_memory"}

# Apart from the numbers that a method draws with the same seed.
_STREAM = 0x5A4D


class CadenceState(NamedTuple):
    """State of a method that is not used in every update.

    Attributes:
        count: updates done so far, skipped ones included. Scalar, int32.
        decision: what the decision remembers; empty if nothing.
        method: state of the method.
    """

    count: core.Count
    decision: Any
    method: optax.OptState


def when(
    method: optax.GradientTransformation,
    decide: Decide,
    init: Callable[[], Any] = optax.EmptyState,
) -> optax.GradientTransformationExtraArgs:
    """Uses a method in the updates that a decision selects.

    In the others the gradient passes unchanged, nothing else is computed
    (``jax.lax.cond``), and the method's state does not change, with two exceptions:
    its counts advance, so that a schedule of its coefficients follows training (not
    those of the averages in states of Optax), and its diagnostics say that nothing was
    perturbed.

    Args:
        method: a method that turns a gradient into a direction; no full optimizer.
        decide: ``(grads, state, count, key) -> (use the method, state)``: the gradient
            at the weights, what it returned last, the updates done so far, and the
            update's keyword ``key`` or None.
        init: makes its first state.

    Returns:
        A transformation that is called like the method.

    Raises:
        ValueError: if ``method`` is a full optimizer, such as `momentum_sam`.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> is_large = lambda g, state, count, key: (optax.tree.norm(g) > 1.0, state)
        >>> tx = sam_jax.when(sam_jax.sam(0.05), is_large)
        >>> grad_fn = jax.grad(lambda w: jnp.sum(w**2) / 2)
        >>> state = tx.init(jnp.zeros(1))
        >>> for w in (jnp.array([0.5]), jnp.array([2.0])):
        ...     d, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
        ...     print(d)
        [0.5]
        [2.05]
    """
    if isinstance(method, optimizers.FullOptimizer):
        raise checks.BadValue(
            "method must turn a gradient into a direction; this one takes the step by "
            "itself, and in a skipped update nothing would"
        )
    method = optax.with_extra_args_support(method)

    def init_fn(params: optax.Params) -> CadenceState:
        return CadenceState(
            count=jnp.zeros([], jnp.int32),
            decision=init(),
            method=method.init(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: CadenceState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CadenceState]:
        calls.require("grad_fn=grad_fn", params=params)
        use, decision = decide(
            updates, state.decision, state.count, extra_args.get("key")
        )
        # Devices that decide by gradients of their own take one way, that of most.
        use = devices.agree(jnp.asarray(use).astype(jnp.float32)) >= 0.5

        def used() -> tuple[optax.Updates, optax.OptState]:
            return method.update(updates, state.method, params, **extra_args)

        def skipped() -> tuple[optax.Updates, optax.OptState]:
            return updates, _skip(state.method, updates, extra_args.get("value"))

        direction, method_state = observations.cond(use, used, skipped)
        return direction, CadenceState(
            count=core.next_count(state.count),
            decision=decision,
            method=method_state,
        )

    return core.transformation(init_fn, update_fn)


def every_k(
    method: optax.GradientTransformation, k: int = 5
) -> optax.GradientTransformationExtraArgs:
    """Uses a method in every k-th update, beginning with the first.

    ``1 + 1/k`` gradients per update for a method with two. If a paper scales the radius
    with the interval (Composer: rho 0.5 for k = 10), set ``rho`` accordingly.

    Args:
        method: a method that turns a gradient into a direction.
        k: interval in updates, an integer >= 1; 1 is the method in every update.

    Returns:
        A transformation that is called like the method; see `when`.

    Raises:
        ValueError: if ``k`` is not an integer >= 1, or ``method`` a full optimizer.

    Example:
        >>> import optax, sam_jax
        >>> tx = optax.chain(sam_jax.every_k(sam_jax.sam(0.1), k=5), optax.sgd(0.1))
    """
    checks.integer("k", k, 1)
    return when(method, lambda grads, state, count, key: (count % k == 0, state))


def late_phase(
    method: optax.GradientTransformation, start: int, stop: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """Uses a method from one update to another, such as the last 30 % of training.

    Args:
        method: a method that turns a gradient into a direction.
        start: the first update with the method, counted from 0.
        stop: the first update after that without it; None for no end.

    Returns:
        A transformation that is called like the method; see `when`.

    Raises:
        ValueError: if ``start`` or ``stop`` is not an integer >= 0, ``stop`` is below
            ``start``, or ``method`` a full optimizer.

    Example:
        >>> import optax, sam_jax
        >>> tx = sam_jax.late_phase(sam_jax.sam(0.1), start=700)  # of 1000 updates
    """
    checks.integer("start", start, 0)
    if stop is None:
        return when(method, lambda grads, state, count, key: (count >= start, state))
    checks.integer("stop", stop, 0)
    if stop < start:
        raise checks.BadValue(f"stop must be at least start, got {stop} < {start}")
    return when(
        method,
        lambda grads, state, count, key: ((start <= count) & (count < stop), state),
    )


def stochastic(
    method: optax.GradientTransformation,
    probability: optax.ScalarOrSchedule = 0.5,
    *,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Uses a method in each update with a probability (SS-SAM).

    Args:
        method: a method that turns a gradient into a direction.
        probability: of using it; a number in [0, 1] or a schedule of the update count
            (from 0).
        seed: of the draws; together with the update's keyword ``key``, if that is
            passed. One inside another needs a different seed.

    Returns:
        A transformation that is called like the method; see `when`.

    Raises:
        ValueError: if ``probability`` is outside [0, 1], ``seed`` no integer in
            [0, 2**32), or ``method`` a full optimizer.

    Example:
        >>> import sam_jax
        >>> tx = sam_jax.stochastic(sam_jax.sam(0.1), 0.5)

    References:
        Zhao, Zhang, Hu, "SS-SAM: Stochastic Scheduled Sharpness-Aware Minimization for
        Efficiently Training Deep Neural Networks", 2022, `2203.09962
        <https://arxiv.org/abs/2203.09962>`_
    """
    checks.between("probability", probability, 0, 1, schedule=True)
    checks.seed("seed", seed)

    def decide(grads: Any, state: Any, count: jax.Array, key: Any) -> tuple[Any, Any]:
        del grads
        own = jax.random.fold_in(noise.update_key(seed, count, key), _STREAM)
        drawn = jax.random.uniform(own)
        return drawn < core.value_at(probability, count), state

    return when(method, decide)


def _skip(state: optax.OptState, grads: optax.Updates, value: Any) -> optax.OptState:
    """The state of a method after an update that did without it."""
    seen = observations.observe_unperturbed(grads, value)

    def advance(path: tuple[Any, ...], node: Any) -> Any:
        if observations.is_diagnostics(node):
            # A method may have nothing to report in some fields, or be silent.
            return node._replace(
                **{
                    field: getattr(seen, field)
                    for field, old in node._asdict().items()
                    if old is not None and not isinstance(old, tuple)
                }
            )
        return core.next_count(node) if core.is_count(path, node) else node

    return jax.tree_util.tree_map_with_path(
        advance,
        state,
        is_leaf=lambda x: observations.is_diagnostics(x) or _counts_gradients(x),
    )


def _counts_gradients(node: Any) -> bool:
    """Whether it is a state of averages, which stand still with their count."""
    fields = getattr(node, "_fields", ())
    return "count" in fields and not _AVERAGES.isdisjoint(fields)
