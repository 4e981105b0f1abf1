"""Checks of the numbers that a user gives for a network."""

from typing import Any

from sam_jax import errors


def count(setting: str, value: Any, least: int = 1, most: int = 2**16) -> None:
    """Refuses what is not an integer from ``least`` to ``most``.

    Raises:
        UserError: if ``value`` is not such a number.

    Example:
        >>> count("width", 0)
        Traceback (most recent call last):
        sam_jax.errors.UserError: width is 0: give an integer in [1, 65536]
    """
    if type(value) is not int or not least <= value <= most:
        message = f"{setting} is {value!r}: give an integer in [{least}, {most}]"
        raise errors.UserError(message)


def rate(setting: str, value: Any) -> None:
    """Refuses what is not a probability below 1.

    Raises:
        UserError: if ``value`` is not such a number.

    Example:
        >>> rate("dropout", 30)
        Traceback (most recent call last):
        sam_jax.errors.UserError: dropout is 30: give a number in [0, 1)
    """
    if type(value) not in (int, float) or not 0 <= value < 1:
        message = f"{setting} is {value!r}: give a number in [0, 1)"
        raise errors.UserError(message)
