"""One call that looks for mistakes in how a method is used, on a batch of the caller's.

An element of a chain cannot see its neighbours: that it stands at the wrong place, or
that two of them take the step, shows in what the whole chain does.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import cadence, calls, core, devices, numerics, observations, trees

# Counts at which a schedule that begins with zero is looked at again; each is divisible
# by the usual intervals of updates.
_LATER = (60, 2520, 27720, 720720)


class _Point(NamedTuple):
    """A call of a gradient function, by what it was given and what it returned."""

    distance: float  # from the weights
    along: float  # cosine of the angle between the way there and the gradient
    finite: bool  # what it returned


class _Trial(NamedTuple):
    """An update that is not applied."""

    updates: optax.Updates
    state: optax.OptState
    points: list[_Point]


def check(
    tx: optax.GradientTransformation,
    params: optax.Params,
    value_and_grad_fn: calls.ValueAndGradFn,
    **keywords: Any,
) -> None:
    """Says in one sentence what is wrong with a chain or its gradient, or nothing.

    It tries a few updates, whose results are thrown away, and compares them with the
    gradient. Call it once before training, outside ``jax.jit``.

    Args:
        tx: a method, or any chain around one, as used in training.
        params: the weights.
        value_and_grad_fn: ``params -> (loss, grads)`` on a batch.
        **keywords: what the training loop passes to every update besides ``grad_fn``,
            ``value_and_grad_fn`` and ``value``.

    Raises:
        ValueError: if the gradient function returns something else, is not finite, or
            draws new numbers in every call; if there is no method, or two, or one
            `without_diagnostics`; if the method comes after the optimizer, or something
            that changes gradients, such as clipping, comes before it; if the update
            goes uphill (two optimizers, none, a wrong sign), or along the weights
            (weight decay after the optimizer); if nothing is perturbed (a radius of
            zero, a mask that keeps nothing); if the update is not finite; or if the
            state changes its type.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> value_and_grad_fn = jax.value_and_grad(lambda w: jnp.sum(w**2))
        >>> tx = optax.chain(sam_jax.sam(0.05), optax.sgd(0.1))
        >>> sam_jax.check(tx, jnp.ones(2), value_and_grad_fn)
        >>> tx = optax.chain(optax.sgd(0.1), sam_jax.sam(0.05))
        >>> sam_jax.check(tx, jnp.ones(2), value_and_grad_fn)
        Traceback (most recent call last):
        ...
        sam_jax.checks.BadValue: the method perturbs against the gradient: it comes \
after the optimizer and receives its step; put it first, as in \
optax.chain(sam_jax.sam(rho), optax.sgd(learning_rate))
    """
    loss, grads = _checked_gradient(params, value_and_grad_fn)
    start = tx.init(params)
    _check_transformation(tx, start)

    functions = {"value_and_grad_fn": value_and_grad_fn, **keywords}
    update = _of_scaled_loss(tx, params, loss, grads, functions)
    trials = [first := update(1.0, start), second := update(1.0, first.state)]
    _check_state(start, second.state)
    _refuse_if(
        not all(point.finite for trial in trials for point in trial.points),
        "loss or gradient is not finite at the perturbed weights: take a smaller rho",
    )
    later = (_at(second.state, count) for count in _LATER)
    while not _is_perturbed(trials) and (state := next(later, None)) is not None:
        trials.append(update(1.0, state))
    some = any(trial.points for trial in trials)
    _refuse_if(
        not _is_perturbed(trials)
        and (some or not trees.nodes(start, cadence.CadenceState)),
        "nothing is perturbed: rho is zero, now and in later updates, the mask keeps "
        "nothing, or the weights are rounded to where they were",
    )
    _refuse_if(
        not _finite(second.updates),
        "the update is not finite, although the gradients are: look for a division or "
        "a square root in what follows the method",
    )
    # A power of two, by which every gradient is multiplied without rounding. What does
    # not depend on the loss, such as weight decay, is the same in the opposite one.
    large = 2.0 ** round(float(jnp.log2(1e4 / numerics.norm(grads))))
    # The first update may be left out, or of a rate of zero, and so may the second.
    uphill = any(
        _leads_up(grads, trial, update(-1.0, state))
        for trial, state in ((first, start), (second, first.state))
    )
    doubled = update(1.0, start, grads=optax.tree.scale(2.0, grads))
    _check_place(grads, trials, doubled, update(large, start), large, uphill)
    _refuse_if(
        uphill,
        "the update goes uphill, along the gradient: exactly one element takes the "
        "step, an optimizer behind the method (optax.sgd) or a method that has a "
        "learning_rate (momentum_sam, lookbehind, ...); here it is none, or two of "
        "them, or a scale has the wrong sign",
    )
    far = optax.tree.scale(2.0, params)
    growth = optax.tree.sub(
        update(0.0, start, params=far).updates, update(0.0, start).updates
    )
    _refuse_if(
        numerics.cosine(growth, params) > 0.5,
        "the weights grow where the gradient is zero: put weight decay before the "
        "learning rate, as in optax.chain(sam_jax.sam(rho), "
        "optax.add_decayed_weights(1e-4), optax.sgd(learning_rate))",
    )


def _refuse_if(wrong: Any, message: str) -> None:
    if wrong:
        raise checks.BadValue(message)


def _checked_gradient(
    params: optax.Params, value_and_grad_fn: calls.ValueAndGradFn
) -> tuple[jax.Array, optax.Updates]:
    """Loss and gradient at the weights, if they are the same in every call."""
    first, again = value_and_grad_fn(params), value_and_grad_fn(params)
    pair = isinstance(first, tuple | list) and len(first) == 2
    _refuse_if(
        not pair or isinstance(first[0], tuple) or jnp.shape(first[0]) != (),
        "value_and_grad_fn must return (loss, grads), the loss a scalar, as "
        "jax.value_and_grad makes it; drop what has_aux=True adds to the loss",
    )
    (loss, grads), (_, others) = first, again
    _refuse_if(
        _form(grads) != _form(params),
        f"value_and_grad_fn must return grads like params{trees.variables_hint(grads)}",
    )
    _refuse_if(
        not _finite((loss, grads)), "loss or gradient is not finite at the weights"
    )
    length = numerics.norm(grads)
    _refuse_if(length == 0, "the gradient is zero at the weights: there is no way up")
    difference = numerics.norm(optax.tree.sub(grads, others))
    _refuse_if(
        difference > _tolerance(grads) * length,
        "value_and_grad_fn returns another gradient when it is called again: both "
        "gradients of an update need the same batch, augmentation and dropout",
    )
    return loss, grads


def _check_transformation(tx: Any, state: optax.OptState) -> None:
    """Refuses what passes no keywords on, and another number of methods than one."""
    plain = isinstance(tx, optax.GradientTransformation) and not isinstance(
        tx, optax.GradientTransformationExtraArgs
    )
    _refuse_if(
        plain,
        "tx takes no keywords: a wrapper, such as optax.lookahead, drops grad_fn, or "
        "there is no method in it; call the method by itself and give its direction to "
        "the wrapper",
    )
    _refuse_if(
        isinstance(state, optax.MultiStepsState),
        "optax.MultiSteps accumulates the first gradient only, the second one is the "
        "last micro-batch's: accumulate inside of the gradient function",
    )
    seen = trees.nodes(state, observations.Diagnostics)
    _refuse_if(
        len(seen) != 1,
        "there must be one method in the chain, found by its diagnostics in the state; "
        f"there are {len(seen)}" + (": the last one alone decides" if seen else ""),
    )
    _refuse_if(
        isinstance(seen[0].grad_norm, tuple),
        "the method has no diagnostics, by which it is judged: check it without "
        "sam_jax.without_diagnostics around it",
    )


def _of_scaled_loss(
    tx: optax.GradientTransformation,
    params: optax.Params,
    loss: jax.Array,
    grads: optax.Updates,
    keywords: dict[str, Any],
) -> Callable[..., _Trial]:
    """Makes ``(factor, state) -> _Trial``: an update on the loss times a factor.

    Other ``params``, or ``grads`` that are not those of the loss, are its keywords.
    """
    points: list[_Point] = []

    def scaled(tree: Any, factor: jax.Array) -> Any:
        return numerics.multiply(jax.tree.map(jnp.asarray, tree), factor)

    def watched(function: Callable[..., Any], factor: Any, params: Any, grads: Any):
        def call(weights: optax.Params, *args: Any) -> Any:
            result = scaled(function(weights, *args), factor)
            way = optax.tree.sub(weights, params)
            seen = numerics.norm(way), numerics.cosine(way, grads), _finite(result)
            jax.debug.callback(lambda *seen: points.append(_Point(*seen)), *seen)
            return result

        return call

    @jax.jit
    def update(
        factor: jax.Array, state: optax.OptState, loss: Any, params: Any, grads: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        passed = keywords | {
            name: watched(given, factor, params, grads)
            for name, given in keywords.items()
            if name in devices.FUNCTIONS and callable(given)
        }
        if "example_losses" in passed:
            passed["example_losses"] = scaled(passed["example_losses"], factor)
        passed["value"] = scaled(loss, factor)
        return tx.update(scaled(grads, factor), state, params, **passed)

    given = {"params": params, "grads": grads}

    def trial(factor: float, state: optax.OptState, **other: Any) -> _Trial:
        points.clear()
        updates, state = update(jnp.float32(factor), state, loss, **(given | other))
        jax.effects_barrier()
        return _Trial(updates, state, list(points))

    return trial


def _leads_up(grads: optax.Updates, trial: _Trial, opposite: _Trial) -> bool:
    """Whether an update goes along the gradient, and because of it.

    Some step sizes follow the loss; then the opposite one's says nothing.
    """
    difference = optax.tree.sub(trial.updates, opposite.updates)
    return all(
        float(numerics.cosine(way, grads)) > 0 for way in (difference, trial.updates)
    )


def _check_place(
    grads: optax.Updates,
    trials: list[_Trial],
    doubled: _Trial,
    enlarged: _Trial,
    factor: float,
    uphill: bool,
) -> None:
    """Refuses a method at the wrong place of a chain.

    Args:
        grads: at the weights.
        trials: updates.
        doubled: the first one, given twice the gradient of the same loss.
        enlarged: the first one, of the loss times a factor.
        factor: of the enlarged loss.
        uphill: whether the update goes along the gradient.
    """
    given, tolerance = _seen(trials[0]).grad_norm, _tolerance(grads)
    # Some methods tell of a gradient that they take by themselves.
    follows = abs(_seen(doubled).grad_norm / given - 1) > tolerance
    another = follows and any(
        abs(_seen(trial).grad_norm / numerics.norm(grads) - 1) > tolerance
        for trial in trials
    )
    along = [
        point.along for trial in trials for point in trial.points if point.distance > 0
    ]
    _refuse_if(
        along and along[0] < -0.5 and (uphill or another),
        "the method perturbs against the gradient: it comes after the optimizer and "
        "receives its step; put it first, as in optax.chain(sam_jax.sam(rho), "
        "optax.sgd(learning_rate))",
    )
    _refuse_if(
        another or abs(_seen(enlarged).grad_norm / given / factor - 1) > tolerance,
        "something before the method changes its gradient: put clipping, weight decay "
        "and the optimizer after it, as in optax.chain("
        "sam_jax.sam(rho), optax.clip_by_global_norm(1.0), optax.sgd(learning_rate))",
    )


def _is_perturbed(trials: list[_Trial]) -> bool:
    """Whether a gradient was taken elsewhere, or a perturbation is reported."""
    points = [point for trial in trials for point in trial.points]
    if points:
        return any(point.distance != 0 for point in points)
    return any(_seen(trial).perturbation_norm > 0 for trial in trials)


def _at(state: optax.OptState, count: int) -> optax.OptState:
    """A state with all its counts of updates set."""

    def moved(path: tuple[Any, ...], x: Any) -> Any:
        return jnp.full_like(x, count) if core.is_count(path, x) else x

    return jax.tree_util.tree_map_with_path(moved, state)


def _check_state(before: optax.OptState, after: optax.OptState) -> None:
    """Refuses a state that a scan could not carry."""
    old, new = (
        {
            jax.tree_util.keystr(path): f"{jnp.result_type(x)}{list(jnp.shape(x))}"
            for path, x in jax.tree_util.tree_leaves_with_path(state)
        }
        for state in (before, after)
    )
    changed = [key for key in old | new if old.get(key) != new.get(key)]
    place = changed[0] if changed else ""
    _refuse_if(
        changed or jax.tree.structure(before) != jax.tree.structure(after),
        "an update must leave the state's structure, shapes and dtypes as they are, or "
        f"it is compiled again and no scan can carry it; {place!r} is "
        f"{old.get(place, 'nothing')} before and {new.get(place, 'nothing')} after",
    )


def _form(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:
    return jax.tree.structure(tree), list(map(jnp.shape, jax.tree.leaves(tree)))


def _seen(trial: _Trial) -> observations.Diagnostics:
    [seen] = trees.nodes(trial.state, observations.Diagnostics)
    return seen


def _finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]))


def _tolerance(grads: optax.Updates) -> float:
    """Below it, two gradients differ by rounding only: half of the digits."""
    return max(float(jnp.finfo(x.dtype).eps) ** 0.5 for x in jax.tree.leaves(grads))
