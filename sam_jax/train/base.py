"""The base optimizer: any of Optax by its name."""

import inspect
from collections.abc import Callable

import optax
import optax.contrib

from sam_jax import errors
from sam_jax.train import settings


def make_base(
    optimizer: settings.Optimizer, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """An optimizer of Optax by its name.

    Args:
        optimizer: its name and options.
        learning_rate: of the run.

    Returns:
        The optimizer.

    Raises:
        UserError: if Optax has no such optimizer, it has no such option, or it refuses
            the value of one.
    """
    known = optimizers()
    name = optimizer.name
    if name not in known:
        raise errors.UserError(errors.unknown("optimizer", name, known))
    allowed = list(inspect.signature(known[name]).parameters)[1:]
    for key in optimizer.options:
        if key not in allowed:
            raise errors.UserError(errors.unknown(f"setting of {name}", key, allowed))
    try:
        return known[name](learning_rate, **optimizer.options)
    except ValueError as error:  # all arguments fit, so it is a value
        raise errors.UserError(f"config.optimizer.{name}: {error}") from error


def optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
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
