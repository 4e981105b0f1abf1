"""The core of every method: one place that takes the second gradient."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax.methods import numerics

GradFn = Callable[[optax.Params], optax.Updates]
ValueAndGradFn = Callable[[optax.Params], tuple[jax.Array, optax.Updates]]
# (params, rows of the batch) -> gradient of the mean loss of these examples.
SubsetGradFn = Callable[[optax.Params, jax.Array], optax.Updates]
# combine(grads, perturbed_grads, count) -> direction to descend: the gradients at the
# weights and at the perturbed weights, and the number of updates done so far (scalar,
# int32) for coefficients that follow a schedule.
Combine = Callable[[optax.Updates, optax.Updates, jax.Array], optax.Updates]
# Name of the axis of a jax.vmap over groups of examples that share a perturbation each.
GROUP_AXIS = "sam_jax_groups"
Mask = Any  # as in optax.masked: a tree of booleans, or a function params -> that tree


class FullOptimizer(optax.GradientTransformationExtraArgs):
    """A method that takes the step by itself, learning rate and all."""


# An optimizer as a function of its learning rate, for methods that bring a step size.
Base = Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]


class Diagnostics(NamedTuple):
    """What a method saw in its last update; float32 scalars, zero before the first.

    A method without a second gradient has None where there is nothing to tell.

    Attributes:
        grad_norm: 2-norm of the gradient at the weights.
        perturbation_norm: 2-norm of the displacement.
        gradient_cosine: cosine of the angle between the gradients at the weights and
            at the perturbed weights.
        perturbed_loss: loss at the perturbed weights; NaN if only ``grad_fn`` is given.
    """

    grad_norm: jax.Array
    perturbation_norm: jax.Array
    gradient_cosine: jax.Array | None
    perturbed_loss: jax.Array | None


class SharpnessAwareState(NamedTuple):
    """State of `sharpness_aware`.

    Attributes:
        count: updates done so far. Scalar, int32.
        ascent: state of the ascent.
        diagnostics: what the last update saw; read it with `diagnostics`.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    ascent: optax.OptState
    diagnostics: Diagnostics


class WithBaseState(NamedTuple):
    """State of a full optimizer around a base.

    Attributes:
        count: updates done so far. Scalar, int32.
        ascent: state of the ascent.
        base: state of the base optimizer.
        diagnostics: what the last update saw; read it with `diagnostics`.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    ascent: optax.OptState
    base: optax.OptState
    diagnostics: Diagnostics


def sharpness_aware(
    ascent: optax.GradientTransformation,
    combine: Combine | None = None,
    *,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Turns the gradient at the weights into a sharpness-aware direction.

    .. math::

        \varepsilon = \mathrm{ascent}(g), \qquad
        g_p = \nabla L(w + \varepsilon), \qquad
        d = \mathrm{combine}(g, g_p)

    The learning rate, momentum, weight decay and clipping are other elements of the
    chain, after this one. Two gradients per update, one of them by the caller.

    Args:
        ascent: gradient -> displacement of the weights, as an Optax transformation
            (blocks: `normalize`, `partially_normalize`, `scale`). It is called with
            the parameters and with all keywords of the update.
        combine: ``(grads, perturbed_grads, count) -> direction``; ``None`` descends
            along the perturbed gradient.
        mask: perturb only these parameters: a tree of booleans, or a function from
            parameters to it, as in ``optax.masked``. Norms are taken over those kept.

    Returns:
        A transformation whose update needs ``params`` and one of the keywords
        ``grad_fn(params) -> grads`` and ``value_and_grad_fn(params) -> (loss, grads)``
        (preferred where both are given: it tells the perturbed loss for free). Both are
        the loss on the batch and with the randomness that gave ``updates``. Other
        keywords are accepted and passed to the ascent.

    Raises:
        ValueError: by the update, if ``params`` or both functions are missing, or the
            function returns a tree of another structure than ``params``.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**4)
        >>> ascent = optax.chain(sam_jax.normalize(), sam_jax.scale(0.1))  # SAM
        >>> tx = optax.chain(sam_jax.sharpness_aware(ascent), optax.sgd(0.01))
        >>> w = jnp.array([1.0, 0.0])
        >>> updates, state = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(optax.apply_updates(w, updates))  # 1 - 0.01 * 4 * 1.1**3
        [0.94676 0.     ]
    """
    ascent = kept_only(ascent, mask)

    def update_fn(
        updates: optax.Updates,
        state: SharpnessAwareState,
        params: optax.Params | None = None,
        *,
        grad_fn: GradFn | None = None,
        value_and_grad_fn: ValueAndGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SharpnessAwareState]:
        # Before the ascent, which may need the parameters or a gradient itself.
        require_gradient(params, grad_fn, value_and_grad_fn)
        grads = updates
        displacement, ascent_state = ascent.update(
            grads,
            state.ascent,
            params,
            grad_fn=grad_fn,
            value_and_grad_fn=value_and_grad_fn,
            **extra_args,
        )
        perturbed_loss, perturbed_grads = second_gradient(
            params, displacement, grad_fn, value_and_grad_fn
        )
        direction = (
            perturbed_grads
            if combine is None
            else combine(grads, perturbed_grads, state.count)
        )
        return direction, SharpnessAwareState(
            count=next_count(state.count),
            ascent=ascent_state,
            diagnostics=observe(grads, displacement, perturbed_loss, perturbed_grads),
        )

    return optax.GradientTransformationExtraArgs(init_with(ascent), update_fn)  # pyright: ignore[reportArgumentType]


def init_with(
    ascent: optax.GradientTransformation,
) -> Callable[[optax.Params], SharpnessAwareState]:
    """Makes the init of a method whose state is that of its ascent, and counters."""

    def init_fn(params: optax.Params) -> SharpnessAwareState:
        return SharpnessAwareState(
            count=jnp.zeros([], jnp.int32),
            ascent=ascent.init(params),
            diagnostics=no_diagnostics(),
        )

    return init_fn


def init_with_base(
    ascent: optax.GradientTransformation, base: optax.GradientTransformation
) -> Callable[[optax.Params], WithBaseState]:
    """Makes the init of a full optimizer around a base."""

    def init_fn(params: optax.Params) -> WithBaseState:
        return WithBaseState(
            count=jnp.zeros([], jnp.int32),
            ascent=ascent.init(params),
            base=base.init(params),
            diagnostics=no_diagnostics(),
        )

    return init_fn


def second_gradient(
    params: optax.Params | None,
    displacement: optax.Updates,
    grad_fn: GradFn | None,
    value_and_grad_fn: ValueAndGradFn | None,
) -> tuple[jax.Array, optax.Updates]:
    """The loss and its gradient at ``params + displacement``.

    Args:
        params: the weights; their dtypes are kept.
        displacement: a tree like ``params``.
        grad_fn: ``params -> grads``, or None.
        value_and_grad_fn: ``params -> (loss, grads)``, or None; preferred.

    Returns:
        The loss, NaN if there is only ``grad_fn``, and the gradient.

    Raises:
        ValueError: if ``params`` or both functions are None, or the gradient has
            another structure than ``params``.
    """
    require_gradient(params, grad_fn, value_and_grad_fn)
    assert params is not None
    perturbed = jax.tree.map(lambda w, e: (w + e).astype(w.dtype), params, displacement)
    if value_and_grad_fn is not None:
        loss, grads = value_and_grad_fn(perturbed)
    else:
        assert grad_fn is not None
        loss, grads = jnp.full([], jnp.nan), grad_fn(perturbed)
    _check_structure(params, grads)
    return loss, grads


def require_gradient(
    params: optax.Params | None,
    grad_fn: GradFn | None,
    value_and_grad_fn: ValueAndGradFn | None,
) -> None:
    """Refuses an update without parameters or without both gradient functions.

    Raises:
        ValueError: naming what is missing, with the call.
    """
    if params is None or (grad_fn is None and value_and_grad_fn is None):
        missing = "params" if params is None else "grad_fn"
        raise ValueError(
            f"{missing} is missing: a sharpness-aware method is called as "
            "tx.update(grads, state, params, grad_fn=grad_fn), with "
            "grad_fn(params) -> grads on the same batch (or bind it once with "
            "sam_jax.with_grad_fn)"
        )


def require(call: str, **keywords: Any) -> None:
    """Refuses an update without a keyword that the method needs.

    Args:
        call: how the keywords are passed, for the message.
        keywords: their names and values; None is missing.

    Raises:
        ValueError: naming the first one that is missing, with the call.
    """
    for name, value in keywords.items():
        if value is None:
            raise ValueError(
                f"{name} is missing: this method is called as "
                f"tx.update(grads, state, params, {call})"
            )


def value_at(coefficient: optax.ScalarOrSchedule, count: jax.Array) -> jax.Array:
    """The value of a coefficient, a number or a schedule, after ``count`` updates."""
    return jnp.asarray(coefficient(count) if callable(coefficient) else coefficient)


def momentum_sgd(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformation:
    """SGD with momentum 0.9, the base of methods that bring their own step size."""
    return optax.sgd(learning_rate, momentum=0.9)


def unroll() -> bool:
    """Whether a loop over a few gradients is better written out, for ``unroll=``.

    XLA's CPU backend runs a convolution inside of a loop many times slower than
    outside; elsewhere the loop saves compilation.
    """
    return jax.default_backend() == "cpu"


def next_count(count: jax.Array) -> jax.Array:
    """One more update; stays at the largest integer instead of overflowing."""
    return jnp.asarray(optax.safe_increment(count))


def next_due(count: jax.Array, every: int) -> jax.Array:
    """The next multiple of ``every`` after ``count``.

    Kept in a state, it also renews what is due where updates are skipped.
    """
    return (count // every + 1) * every


def agree(tree: Any) -> Any:
    """Makes values the same for all groups that have a perturbation of their own.

    What a method keeps of gradients (an average, a mask) must not differ between
    groups; their mean is taken.

    - Groups on devices of a ``jax.shard_map``: with ``check_vma=True`` a value computed
      from a device's own gradient says so by its type; anything else is left as it is.
      With ``check_vma=False`` nothing can be known: put `pmean` before a method that
      keeps such values.
    - Groups along an axis of a ``jax.vmap``, if it has the name `GROUP_AXIS`.

    Args:
        tree: arrays of inexact dtypes.

    Returns:
        The tree, the same for all groups.
    """
    mapped = _is_bound(GROUP_AXIS)

    def mean(x: jax.Array) -> jax.Array:
        x = _mean_over_mapped(x) if mapped else x
        axes = tuple(_varying(x))
        return jax.lax.pmean(x, axes) if axes else x

    return jax.tree.map(mean, tree)


def _is_bound(axis: str) -> bool:
    try:
        jax.lax.axis_size(axis)
    except NameError:
        return False
    return True


@jax.custom_batching.custom_vmap
def _mean_over_mapped(x: jax.Array) -> jax.Array:
    """The mean over the axis of a ``vmap``; a ``pmean`` that a ``shard_map`` allows."""
    return x


@_mean_over_mapped.def_vmap
def _(size: int, batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
    del size
    return (x.mean(0) if batched[0] else x), False


def cond(decision: Any, used: Callable[[], Any], skipped: Callable[[], Any]) -> Any:
    """``jax.lax.cond`` for branches of which one alone differs between devices.

    A shared gradient may be one branch's result, a second gradient of each device's
    own examples the other's: under ``jax.shard_map(..., check_vma=True)`` they have
    different types, and both are given that which varies.

    Args:
        decision: scalar boolean.
        used: the branch for true; without arguments.
        skipped: the branch for false; its result is like that of ``used``.

    Returns:
        The result of the branch taken.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return jax.lax.cond(decision, used, skipped)
    shapes = jax.eval_shape(used), jax.eval_shape(skipped)
    return jax.lax.cond(
        decision,
        lambda: vary_as(used(), *shapes),
        lambda: vary_as(skipped(), *shapes),
    )


def vary_as(tree: Any, *others: Any) -> Any:
    """Marks values as differing between devices wherever those of other trees do.

    Under ``jax.shard_map(..., check_vma=True)`` what a loop carries must have one type
    from its start; elsewhere this does nothing.

    Args:
        tree: arrays.
        others: trees of the same structure, of arrays or their types.

    Returns:
        The tree.
    """

    def as_others(x: jax.Array, *like: Any) -> jax.Array:
        return vary(x, frozenset().union(*map(_varying, like)))

    return jax.tree.map(as_others, tree, *others)


def vary(tree: Any, axes: Iterable[Any]) -> Any:
    """Marks values as differing between the devices of a ``jax.shard_map``.

    Args:
        tree: arrays.
        axes: names of mapped axes; those along which a value differs already count
            as done.

    Returns:
        The tree.
    """

    def mark(x: jax.Array) -> jax.Array:
        missing = tuple(frozenset(axes) - _varying(x))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(mark, tree)


def _varying(x: Any) -> frozenset[Any]:
    """The axes along which an array, or one of a type, differs between devices."""
    aval = x if hasattr(x, "manual_axis_type") else jax.typeof(x)
    return getattr(aval.manual_axis_type, "varying", frozenset())


def no_diagnostics() -> Diagnostics:
    """Those before the first update: zeros."""
    # One array per field: a state that shares buffers could not be donated.
    return Diagnostics(*[jnp.zeros([], jnp.float32) for _ in Diagnostics._fields])


def observe(
    grads: optax.Updates,
    displacement: optax.Updates,
    perturbed_loss: Any,
    perturbed_grads: optax.Updates,
) -> Diagnostics:
    """The diagnostics of an update.

    Args:
        grads: gradient at the weights.
        displacement: of the weights.
        perturbed_loss: loss at the perturbed weights; scalar.
        perturbed_grads: gradient at the perturbed weights.

    Returns:
        Float32 scalars, the same on all devices; see `agree`.
    """
    return _diagnostics(
        numerics.norm(grads),
        numerics.norm(displacement),
        numerics.cosine(grads, perturbed_grads),
        perturbed_loss,
    )


def observe_unperturbed(grads: optax.Updates, value: Any) -> Diagnostics:
    """The diagnostics of an update that does without the perturbation.

    Args:
        grads: gradient at the weights.
        value: loss at the weights, or None if the caller did not pass it.

    Returns:
        Displacement 0, cosine 1, and the loss at the weights (NaN for None).
    """
    loss = jnp.nan if value is None else value
    return _diagnostics(numerics.norm(grads), 0.0, 1.0, loss)


def _diagnostics(*scalars: Any) -> Diagnostics:
    # Stacked, so that several devices need one reduction.
    stacked = jnp.stack([jnp.asarray(x).astype(jnp.float32) for x in scalars])
    return Diagnostics(*agree(stacked))


def diagnostics(state: optax.OptState) -> dict[str, jax.Array]:
    """Finds the diagnostics of a method in the state of any chain that contains it.

    Args:
        state: state of an Optax transformation.

    Returns:
        Name -> float32 scalar, the fields of `Diagnostics` without those that are None;
        empty if there is no method in the chain.

    Example:
        >>> import jax.numpy as jnp, optax, sam_jax
        >>> tx = optax.chain(sam_jax.sam(0.1), optax.sgd(0.1))
        >>> list(sam_jax.diagnostics(tx.init(jnp.zeros(2))))
        ['grad_norm', 'perturbation_norm', 'gradient_cosine', 'perturbed_loss']
    """
    found = [
        leaf
        for leaf in jax.tree.leaves(
            state, is_leaf=lambda node: isinstance(node, Diagnostics)
        )
        if isinstance(leaf, Diagnostics)
    ]
    seen = found[0]._asdict() if found else {}
    return {name: value for name, value in seen.items() if value is not None}


def with_grad_fn(
    tx: optax.GradientTransformation, grad_fn: Callable[..., optax.Updates]
) -> optax.GradientTransformationExtraArgs:
    """Binds a pure loss-gradient function once, instead of passing it to every update.

    Args:
        tx: a method, or a chain with one.
        grad_fn: ``(params, **keywords) -> grads``. Of the update's keywords it is given
            those that its signature names (all, if it takes ``**keywords``).

    Returns:
        A transformation whose ``update(grads, state, params, **keywords)`` calls
        ``grad_fn(params, **keywords)`` where the method needs a gradient.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> grad_fn = jax.grad(lambda w, batch: jnp.mean((batch @ w) ** 2))
        >>> ascent = optax.chain(sam_jax.normalize(), sam_jax.scale(0.1))
        >>> tx = optax.chain(sam_jax.sharpness_aware(ascent), optax.sgd(0.1))
        >>> tx = sam_jax.with_grad_fn(tx, grad_fn)
        >>> w, batch = jnp.ones(2), jnp.eye(2)
        >>> state = tx.init(w)
        >>> updates, state = tx.update(grad_fn(w, batch=batch), state, w, batch=batch)
    """
    tx = optax.with_extra_args_support(tx)
    parameters = inspect.signature(grad_fn).parameters.values()
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    # The first parameter is the weights'; they come by position.
    named = {p.name for p in list(parameters)[1:]}

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        keywords = {k: v for k, v in extra_args.items() if takes_all or k in named}

        def bound(weights: optax.Params) -> optax.Updates:
            return grad_fn(weights, **keywords)

        return tx.update(updates, state, params, grad_fn=bound, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update_fn)


def pmean(axis_name: str | tuple[str, ...]) -> optax.GradientTransformation:
    """Averages the updates over the devices of a ``jax.shard_map`` axis.

    Where it stands in a chain decides who shares a perturbation: in
    ``chain(sam(rho), pmean("data"), sgd)`` each device perturbs with the gradient of
    its own examples (m-sharpness, Foret et al. 2021); with a ``pmean`` before ``sam``
    as well, all share one. With ``check_vma=True`` (JAX's default) mark the parameters
    as varying, ``jax.lax.pcast(params, "data", to="varying")``, before differentiating,
    or the gradients arrive summed over the devices already.

    Args:
        axis_name: name (or names) of the mapped axis.

    Returns:
        A stateless transformation.
    """
    return optax.stateless(lambda updates, _: jax.lax.pmean(updates, axis_name))


def kept_only(
    ascent: optax.GradientTransformation, mask: Mask | None
) -> optax.GradientTransformationExtraArgs:
    """The ascent on the parameters of the mask, no displacement of the others.

    An ascent that takes gradients by itself sees a smaller problem: the loss as a
    function of the parameters kept, the others being constants.

    Args:
        ascent: gradient -> displacement.
        mask: as in `sharpness_aware`; None keeps all.

    Returns:
        A transformation of whole trees that takes all keywords.
    """
    ascent = optax.with_extra_args_support(ascent)
    if mask is None:
        return ascent

    def init_fn(params: optax.Params) -> optax.OptState:
        return ascent.init(_select(params, kept(params, mask)))

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        grad_fn: GradFn | None = None,
        value_and_grad_fn: ValueAndGradFn | None = None,
        subset_grad_fn: SubsetGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        keep = kept(updates, mask)

        def whole(part: optax.Params) -> optax.Params:
            return _merge(keep, part, params)

        def part_grad(part: optax.Params) -> optax.Updates:
            assert grad_fn is not None
            return _select(grad_fn(whole(part)), keep)

        def part_value_and_grad(part: optax.Params) -> tuple[jax.Array, optax.Updates]:
            assert value_and_grad_fn is not None
            loss, grads = value_and_grad_fn(whole(part))
            return loss, _select(grads, keep)

        def part_subset_grad(part: optax.Params, rows: jax.Array) -> optax.Updates:
            assert subset_grad_fn is not None
            return _select(subset_grad_fn(whole(part), rows), keep)

        displacement, state = ascent.update(
            _select(updates, keep),
            state,
            None if params is None else _select(params, keep),
            grad_fn=None if grad_fn is None else part_grad,
            value_and_grad_fn=(
                None if value_and_grad_fn is None else part_value_and_grad
            ),
            subset_grad_fn=None if subset_grad_fn is None else part_subset_grad,
            **extra_args,
        )
        zeros = jax.tree.map(jnp.zeros_like, updates)
        return _merge(keep, displacement, zeros), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def kept(tree: Any, mask: Mask | None) -> Any:
    """Which leaves a mask keeps: a tree of booleans; all for None.

    Raises:
        ValueError: if the mask is no tree of booleans that fits.
    """
    if mask is None:
        return jax.tree.map(lambda _: True, tree)
    keep = mask(tree) if callable(mask) else mask
    try:
        return jax.tree.map(bool, jax.tree.broadcast(keep, tree))
    except (ValueError, TypeError) as error:
        raise ValueError(
            "mask must be a tree of booleans like params or a prefix of it, or a "
            f"function from params to one: {error}"
        ) from error


def _select(tree: Any, keep: Any) -> Any:
    """The leaves kept, an empty node (as in ``optax.masked``) for the others."""
    return jax.tree.map(lambda x, flag: x if flag else optax.MaskedNode(), tree, keep)


def _merge(keep: Any, part: Any, others: Any) -> Any:
    """The leaves of ``part`` where they are kept, else those of ``others``."""
    leaves, structure = jax.tree.flatten(keep)
    parts = iter(jax.tree.leaves(part))
    rest = structure.flatten_up_to(others)
    return structure.unflatten(
        [next(parts) if flag else x for flag, x in zip(leaves, rest, strict=True)]
    )


def _check_structure(params: optax.Params, grads: optax.Updates) -> None:
    """Names the first leaf in which the second gradient differs from the parameters."""
    expected = _shapes(params)
    got = _shapes(grads)
    for path in [*expected, *got]:
        if expected.get(path) != got.get(path):
            raise ValueError(
                f"grad_fn(params) must return a tree like params; at {path!r} params "
                f"have {expected.get(path, 'nothing')}, the gradient has "
                f"{got.get(path, 'nothing')}"
            )
    if jax.tree.structure(params) != jax.tree.structure(grads):
        raise ValueError(
            "grad_fn(params) must return a tree like params, got other containers: "
            f"{jax.tree.structure(grads)} for {jax.tree.structure(params)}"
        )


def _shapes(tree: Any) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path): f"shape {jnp.shape(leaf)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
