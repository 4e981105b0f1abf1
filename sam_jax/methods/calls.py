"""How the update of a method is called: the functions it is given."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import optax

from sam_jax import checks
from sam_jax.methods import trees

GradFn = Callable[[optax.Params], optax.Updates]
ValueAndGradFn = Callable[[optax.Params], tuple[jax.Array, optax.Updates]]
# (params, rows of the batch) -> gradient of the mean loss of these examples.
SubsetGradFn = Callable[[optax.Params, jax.Array], optax.Updates]
# (params, factors [B]) -> loss and gradient of the mean of the factors times the losses
# of the batch's examples.
WeightedValueAndGradFn = Callable[
    [optax.Params, jax.Array], tuple[jax.Array, optax.Updates]
]

_DROPPED = (
    "; if it was passed, a wrapper dropped it (TrainState.apply_gradients of flax and "
    "optax.lookahead do): call tx.update itself"
)


def call(function: Callable[..., Any], params: optax.Params, *args: Any) -> Any:
    """Calls a function of the caller's, with parameters that a method has.

    Args:
        function: of parameters, as it was given to the update.
        params: a tree like those that the update was given.
        *args: of the function.

    Returns:
        What the function does.

    Raises:
        ValueError: if it is not a function, needs other arguments, leaves JAX, or fails
            on what a wrapper left of the caller's tree. Its other errors pass through.
    """
    if not callable(function):
        raise checks.BadValue(
            "grad_fn and value_and_grad_fn are functions of the parameters, got a "
            f"{type(function).__name__}"
        )
    try:
        return function(params, *args)
    except Exception as error:
        if message := _misuse(function, error, 1 + len(args)):
            raise checks.BadValue(message) from error
        # The caller has taken the first gradient with it: the tree is another one.
        if trees.nodes(params, optax.MaskedNode) and isinstance(error, _OF_TREES):
            raise ValueError(
                "the gradient function fails on a part of params (MaskedNode of "
                f"optax.masked, partition, ...): {_OUTSIDE}"
            ) from error
        # Or it is all that the caller has.
        if isinstance(params, jax.Array) and params.ndim == 1:
            error.add_note(f"If optax.flatten made this one array: {_OUTSIDE}")
        error.add_note(
            "A method called this function with a tree like the params of tx.update, a "
            f"{type(params).__name__}; of an NNX model, nnx.merge(graph, params) it."
        )
        raise


def _misuse(function: Any, error: Exception, given: int) -> str | None:
    """What is wrong with a function that fails where it is called; None if unknown."""
    if isinstance(error, _OUTSIDE_OF_JAX):
        return (
            "the gradient function turns its parameters into numbers (NumPy, float(), "
            "if): methods call it in loops and branches of JAX, so write it with "
            "jax.numpy"
        )
    if not isinstance(error, TypeError):
        return None
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*[None] * given)
    except TypeError:
        return (
            f"the gradient function is called with {given} argument(s) but takes "
            f"{signature}: bind the others, as in lambda params: grad_fn(params, "
            "batch), or pass it to sam_jax.with_grad_fn"
        )
    return None


_OUTSIDE_OF_JAX = (
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.ConcretizationTypeError,
)

# What a function does with a tree of another structure than it was written for.
_OF_TREES = (TypeError, ValueError, AttributeError, LookupError)


_OUTSIDE = (
    "a method belongs outside the transformation that made it of params, as in "
    "optax.chain(sam_jax.sam(rho, mask=...), optax.partition(...))"
)


def gradient(
    grad_fn: GradFn | SubsetGradFn, params: optax.Params, *args: Any
) -> optax.Updates:
    """The gradient that a function of the caller's returns, checked.

    Raises:
        ValueError: as `call`; if the gradient is not like ``params``.
    """
    grads = call(grad_fn, params, *args)
    return trees.gradients(grads, params, "grad_fn(params) must return")


def value_and_gradient(
    value_and_grad_fn: ValueAndGradFn, params: optax.Params
) -> tuple[jax.Array, optax.Updates]:
    """The loss and the gradient that a function of the caller's returns, checked.

    Raises:
        ValueError: as `call`; if there is no pair, the loss no scalar, or the gradient
            not like ``params``.
    """
    pair = call(value_and_grad_fn, params)
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        size = f" of {len(pair)}" if isinstance(pair, (tuple, list)) else ""
        raise checks.BadValue(
            "value_and_grad_fn(params) must return (loss, grads), got a "
            f"{type(pair).__name__}{size}; a function that returns the gradient alone "
            "is grad_fn"
        )
    loss, grads = pair
    trees.require_scalar("the loss of value_and_grad_fn", loss)
    return loss, trees.gradients(grads, params, "value_and_grad_fn(params) must return")


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
            f"sam_jax.with_grad_fn){_DROPPED}"
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
                f"tx.update(grads, state, params, {call}){_DROPPED}"
            )


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

        return tx.update(updates, state, params, **(extra_args | {"grad_fn": bound}))

    return tx._replace(update=update_fn)  # a full optimizer stays one
