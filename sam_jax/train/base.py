"""The base optimizer: any of Optax by its name."""

import optax

from sam_jax import errors
from sam_jax.train import options, settings


def make_base(
    optimizer: settings.Optimizer, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """An optimizer of Optax by its name, or the user's (``my.py:my_sgd``).

    Args:
        optimizer: its name and options.
        learning_rate: of the run.

    Returns:
        The optimizer.

    Raises:
        UserError: if it refuses the value of an option.
    """
    factory = options.factory(optimizer.name)
    try:
        return factory(learning_rate, **optimizer.options)
    except ValueError as error:  # all arguments fit, so it is a value
        raise errors.UserError(f"config.optimizer.{optimizer.name}: {error}") from error
