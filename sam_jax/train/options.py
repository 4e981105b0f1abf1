"""Which optimizers Optax has, and what each of their options may be."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

import optax
import optax.contrib

from sam_jax import errors, plugins
from sam_jax.train import typed
from sam_jax.train.ranges import BelowOne, Finite, Share, UpTo1000, Whole

Factory = Callable[..., optax.GradientTransformation]


@functools.cache
def optimizers() -> Mapping[str, Factory]:
    """Every optimizer of Optax and ``optax.contrib`` that needs a learning rate only.

    Those in ``_UNFIT`` are none of them.

    Example:
        >>> {"sgd", "adamw", "lion", "lars", "muon"} <= optimizers().keys()
        True
    """
    found = {}
    for module in (optax.contrib, optax):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            first = next(iter(inspect.signature(function).parameters), None)
            public = not name.startswith(("_", "scale_by_"))
            if public and first == "learning_rate" and name not in _UNFIT:
                found[name] = function
    return found


# Optimizers of Optax that the trainer cannot drive, and why.
_UNFIT = {
    "dpsgd": "needs the gradient of each example",
    "lbfgs": "its line search evaluates the loss by itself",
    "noisy_sgd": "needs a PRNG key, which no configuration can hold",
    "optimistic_adam": "deprecated for optimistic_adam_v2",
    "rprop": "takes a number as learning rate, no schedule",
    "sm3": "takes a number as learning rate, no schedule",
    "sophia": "needs the loss as a function, for its Hessian",
}


def factory(name: str) -> Factory:
    """What makes an optimizer of a learning rate: of Optax, or the user's."""
    if plugins.is_reference(name):
        return plugins.load_function(name, "config.optimizer.name")
    known = optimizers()
    if name not in known:
        raise errors.UserError(errors.unknown("optimizer", name, known))
    return known[name]


def check(name: str, options: Mapping[str, Any], path: str) -> None:
    """Refuses options that an optimizer does not have, or values that it cannot use.

    Example:
        >>> check("sgd", {"momentum": 1.5}, "config.optimizer")
        Traceback (most recent call last):
        ...
        sam_jax.errors.UserError: config.optimizer.sgd.momentum must be a number in [0, 1) or None, got 1.5
    """  # noqa: E501
    found = [*inspect.signature(factory(name)).parameters.values()]
    if not found:
        raise errors.UserError(
            f"{path}.name ({name}) must be a function of a learning rate, and has no "
            "arguments"
        )
    allowed = {parameter.name: parameter for parameter in found[1:]}
    group = "options" if plugins.is_reference(name) else name
    for key, parameter in allowed.items():
        listed = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and key not in options and not listed:
            raise errors.UserError(f"{path}.{group}.{key} has no default: give a value")
    for key, value in options.items():
        if key not in allowed:
            raise errors.UserError(errors.unknown(f"setting of {name}", key, allowed))
        if not (callable(value) or plugins.is_reference(name)):  # a card's mask, say
            typed.check(_kind(allowed[key]), value, f"{path}.{name}.{key}")


def _kind(parameter: inspect.Parameter) -> Any:
    """What an option may be, by its name and its default in Optax."""
    key, default = parameter.name, parameter.default
    if key.endswith("dtype"):
        return Literal["float32", "bfloat16", "float16"] | None
    if typing.get_origin(parameter.annotation) is Literal:
        return parameter.annotation
    match default:
        case bool():
            return bool
        case int():
            return Whole
        case float():
            return _number(key, default)
        case (float(), *_):
            return tuple[_number(key, 0.5), ...]
        case None if key in _UNSET:
            return _number(key, 0.5) | None
    return types.NoneType  # anything else is a function


def _number(key: str, default: float) -> Any:
    """Which numbers an option may be."""
    if key in _DECAYS and default < 1:  # optimistic ones call something else beta
        return BelowOne
    if "eps" in key or key == "min_norm":
        return Share
    return Finite if key in ("lower_bound", "ns_coeffs") else UpTo1000


# Shares of what was before, which a sum over the past needs below 1.
_DECAYS = (
    *("b1", "b2", "b3", "adam_b1", "adam_b2", "beta", "beta3", "betas"),
    *("momentum", "decay", "decay_rate", "rho"),
)
# Numbers that have none by default. Not warmup_steps, which want a number as learning
# rate; config.schedule warms up.
_UNSET = (
    *("momentum", "beta3", "weight_decay", "weight_decay_rate"),
    *("adam_learning_rate", "consistent_rms", "init_estim_sq_dist"),
)
