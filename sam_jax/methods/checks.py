"""Checks of coefficients, made when a method is constructed."""

import math
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.core
import numpy as np


def nonnegative(name: str, value: Any) -> None:
    """Refuses a coefficient that is negative, infinite or not a number.

    A schedule (any callable) and a traced value (``optax.inject_hyperparams`` makes
    them) have no value yet and pass.

    Args:
        name: the coefficient's name, for the message.
        value: a number or a schedule.

    Raises:
        ValueError: if ``value`` is no number, NaN, infinite or below zero.

    Example:
        >>> nonnegative("rho", 0.05)
        >>> nonnegative("rho", -1)
        Traceback (most recent call last):
        ...
        ValueError: rho must be a finite number >= 0 or a schedule, got -1
    """
    _require(name, value, "a finite number >= 0", lambda number: number >= 0)


def floor(name: str, value: Any) -> None:
    """Refuses a norm's floor that is not a finite number >= 0; it is no schedule.

    Args:
        name: the floor's name, for the message.
        value: a number.

    Raises:
        ValueError: if ``value`` is no number, NaN, infinite or below zero.

    Example:
        >>> floor("eps", lambda count: 1e-12)
        Traceback (most recent call last):
        ...
        ValueError: eps must be a finite number >= 0, not a schedule
    """
    if callable(value):
        raise ValueError(f"{name} must be a finite number >= 0, not a schedule")
    nonnegative(name, value)


def positive(name: str, value: Any) -> None:
    """Refuses a coefficient that is not a finite number above zero; see `nonnegative`.

    Raises:
        ValueError: if ``value`` is no number, NaN, infinite, zero or below.
    """
    _require(name, value, "a finite number > 0", lambda number: number > 0)


def between(name: str, value: Any, low: float, high: float) -> None:
    """Refuses a coefficient outside ``[low, high]``; see `nonnegative`.

    Raises:
        ValueError: if ``value`` is no number, NaN, or outside the interval.
    """
    allowed = f"a number in [{low:g}, {high:g}]"
    _require(name, value, allowed, lambda number: low <= number <= high)


def finite(name: str, value: Any) -> None:
    """Refuses a coefficient that is not a finite number; see `nonnegative`.

    Raises:
        ValueError: if ``value`` is no number, NaN or infinite.
    """
    _require(name, value, "a finite number", lambda number: True)


def below_one(name: str, value: Any) -> None:
    """Refuses a coefficient outside ``[0, 1)``; see `nonnegative`.

    Raises:
        ValueError: if ``value`` is no number, NaN, negative, or one or above.
    """
    _require(name, value, "a number in [0, 1)", lambda number: 0 <= number < 1)


def integer(name: str, value: Any, low: int) -> None:
    """Refuses what is no integer of at least ``low``; it is no schedule.

    Args:
        name: the coefficient's name, for the message.
        value: an integer.
        low: the smallest one allowed.

    Raises:
        ValueError: if ``value`` is no integer, or smaller.

    Example:
        >>> integer("k", 0, 1)
        Traceback (most recent call last):
        ...
        ValueError: k must be an integer >= 1, got 0
    """
    static(name, value)
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < low:
        raise ValueError(f"{name} must be an integer >= {low}, got {value!r}")


def seed(name: str, value: Any) -> None:
    """Refuses a seed that is no integer in [0, 2**32); an array passes.

    Raises:
        ValueError: if it is something else.
    """
    if isinstance(value, jax.Array):
        return
    integer(name, value, 0)
    if value >= 2**32:
        raise ValueError(f"{name} must be below 2**32, got {value!r}")


def static(name: str, value: Any) -> None:
    """Refuses an array where a shape or a branch of the program depends on the value.

    Raises:
        ValueError: if it is an array.
    """
    if isinstance(value, jax.Array):
        raise ValueError(
            f"{name} must be a Python value, not an array; to optax.inject_hyperparams "
            f"give static_args=({name!r},)"
        )


def one_of(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Refuses a value that is none of those allowed.

    Raises:
        ValueError: naming them.

    Example:
        >>> one_of("noise", "white", ("filter", "plain"))
        Traceback (most recent call last):
        ...
        ValueError: noise must be one of 'filter', 'plain', got 'white'
    """
    static(name, value)
    if not isinstance(value, (str, int, float)) or value not in tuple(allowed):
        listed = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be one of {listed}, got {value!r}")


def _require(
    name: str, value: Any, allowed: str, accepts: Callable[[float], bool]
) -> None:
    if callable(value) or isinstance(value, jax.core.Tracer):
        return
    number = _as_float(value)
    if number is None or not math.isfinite(number) or not accepts(number):
        raise ValueError(f"{name} must be {allowed} or a schedule, got {value!r}")


def _as_float(value: Any) -> float | None:
    """The value as a float; None for what is no single real number."""
    if isinstance(value, (bool, str)) or np.ndim(value) != 0:
        return None
    try:
        return float(value)
    except (TypeError, OverflowError):
        return None
