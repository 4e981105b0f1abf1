"""The base optimizer: any of Optax by its name."""

import optax

from sam_jax import errors
from sam_jax.train import options, settings


def make_base(
    optimizer: settings.Optimizer, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """An optimizer of Optax by its name, or the user's (``my.py:my_sgd``).

    Raises:
        UserError: if it refuses the value of an option, or makes no optimizer.
    """
    factory = options.factory(optimizer.name)
    try:
        made = factory(learning_rate, **optimizer.options)
    except ValueError as error:  # all arguments fit, so it is a value
        raise errors.UserError(f"config.optimizer.{optimizer.name}: {error}") from error
    return transformation(made, f"config.optimizer.name ({optimizer.name})")


def transformation(made: object, setting: str) -> optax.GradientTransformation:
    """What a function of the user's has made, if that is one."""
    if not isinstance(made, optax.GradientTransformation):
        raise errors.UserError(
            f"{setting} must make an optax.GradientTransformation, it makes a "
            f"{type(made).__name__}"
        )
    return made
