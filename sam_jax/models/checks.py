"""Checks of the numbers that a user gives for a network."""

from sam_jax import errors


def count(setting: str, value: object, least: int = 1) -> None:
    """Refuses what is no integer of at least ``least``.

    Args:
        setting: its name, for the message.
        value: what the user gave.
        least: the smallest value allowed.

    Raises:
        UserError: if ``value`` is not such a number.

    Example:
        >>> count("width", 0)
        Traceback (most recent call last):
        sam_jax.errors.UserError: width is 0: give an integer of at least 1
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        message = f"{setting} is {value!r}: give an integer of at least {least}"
        raise errors.UserError(message)


def rate(setting: str, value: object) -> None:
    """Refuses what is no probability below 1.

    Args:
        setting: its name, for the message.
        value: what the user gave.

    Raises:
        UserError: if ``value`` is not such a number.

    Example:
        >>> rate("dropout", 30)
        Traceback (most recent call last):
        sam_jax.errors.UserError: dropout is 30: give a number in [0, 1)
    """
    if not isinstance(value, int | float) or not 0 <= value < 1:
        message = f"{setting} is {value!r}: give a number in [0, 1)"
        raise errors.UserError(message)
