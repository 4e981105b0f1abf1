"""Checks of the values that a caller chooses; each refuses by a `BadValue`.

A traced value (``optax.inject_hyperparams`` makes them, or a ``jax.vmap`` over
settings) has no value yet, and passes where a number is asked for.
"""

import math
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np


class BadValue(ValueError):
    """A value that its caller chose is not allowed; the message says what is.

    A program may show it without a traceback: what has to be fixed is that value.
    """


def nonnegative(name: str, value: Any, *, schedule: bool = False) -> None:
    """Refuses what is not a finite number >= 0.

    Args:
        name: of the value, for the message.
        value: a number.
        schedule: whether a schedule, which is any callable, will do as well.

    Raises:
        BadValue: if ``value`` is not a number, NaN, infinite or below zero.

    Example:
        >>> nonnegative("rho", 0.05)
        >>> nonnegative("rho", -1, schedule=True)
        Traceback (most recent call last):
        ...
        sam_jax.checks.BadValue: rho must be a finite number >= 0 or a schedule, got -1
        >>> nonnegative("eps", lambda count: 1e-12)
        Traceback (most recent call last):
        ...
        sam_jax.checks.BadValue: eps must be a finite number >= 0, not a schedule
    """
    _require(name, value, "a finite number >= 0", schedule, lambda number: number >= 0)


def positive(name: str, value: Any, *, schedule: bool = False) -> None:
    """Refuses what is not a finite number above zero, in float32; see `nonnegative`.

    Raises:
        BadValue: if ``value`` is not a number, NaN, infinite, zero or below.
    """
    tiny = float(np.finfo(np.float32).tiny)  # what is smaller may count as zero
    _require(name, value, "a finite number > 0", schedule, lambda x: x >= tiny)


def between(
    name: str, value: Any, low: float, high: float, *, schedule: bool = False
) -> None:
    """Refuses what is not a number in ``[low, high]``; see `nonnegative`.

    Raises:
        BadValue: if ``value`` is not a number, NaN, or outside the interval.
    """
    allowed = f"a number in [{low:g}, {high:g}]"
    _require(name, value, allowed, schedule, lambda number: low <= number <= high)


def finite(name: str, value: Any, *, schedule: bool = False) -> None:
    """Refuses what is not a finite number; see `nonnegative`.

    Raises:
        BadValue: if ``value`` is not a number, NaN or infinite.
    """
    _require(name, value, "a finite number", schedule, lambda number: True)


def below_one(name: str, value: Any, *, schedule: bool = False) -> None:
    """Refuses what is not a number in ``[0, 1)``, in float32; see `nonnegative`.

    Raises:
        BadValue: if ``value`` is not a number, NaN, negative, or one or above.
    """
    allowed = "a number in [0, 1)"
    _require(
        name,
        value,
        allowed,
        schedule,
        lambda x: 0 <= x < 1 and float(np.float32(x)) < 1,
    )


def integer(name: str, value: Any, low: int, high: int = 2**31 - 1) -> None:
    """Refuses what is not an integer from ``low`` to ``high``, or a traced one.

    Args:
        name: of the value, for the message.
        value: an integer.
        low: the smallest one allowed.
        high: the largest one; unless given, that of the counts of updates, int32.

    Raises:
        BadValue: if ``value`` is not an integer, smaller or larger.

    Example:
        >>> integer("k", 0, 1)
        Traceback (most recent call last):
        ...
        sam_jax.checks.BadValue: k must be an integer >= 1, got 0
    """
    static(name, value)
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < low:
        raise BadValue(f"{name} must be an integer >= {low}, got {value!r}")
    if value > high:
        raise BadValue(f"{name} must be an integer <= {high}, got {value!r}")


def seed(name: str, value: Any) -> None:
    """Refuses a seed that is not an integer in [0, 2**32); an array passes.

    Raises:
        BadValue: if it is something else.
    """
    if isinstance(value, jax.Array):
        return
    integer(name, value, 0, 2**32 - 1)


def static(name: str, value: Any) -> None:
    """Refuses an array where a shape or a branch of the program depends on the value.

    Raises:
        BadValue: if it is an array.
    """
    if isinstance(value, jax.Array):
        raise BadValue(
            f"{name} must be a Python value, not an array; to optax.inject_hyperparams "
            f"give static_args=({name!r},)"
        )


def one_of(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Refuses a value that is none of those allowed.

    Raises:
        BadValue: naming them.

    Example:
        >>> one_of("noise", "white", ("filter", "plain"))
        Traceback (most recent call last):
        ...
        sam_jax.checks.BadValue: noise must be one of 'filter', 'plain', got 'white'
    """
    static(name, value)
    if not isinstance(value, (str, int, float)) or value not in tuple(allowed):
        listed = ", ".join(map(repr, allowed))
        raise BadValue(f"{name} must be one of {listed}, got {value!r}")


def is_real(value: Any) -> bool:
    """Whether it is a number or an array of numbers, none of them complex.

    Example:
        >>> is_real(2), is_real(np.ones(3)), is_real(1j), is_real("2"), is_real([2])
        (True, True, False, False, False)
    """
    kind = getattr(value, "dtype", type(value))
    real = (np.bool, jnp.integer, jnp.floating)
    return isinstance(value, int | float | np.generic | np.ndarray | jax.Array) and any(
        jnp.issubdtype(kind, one) for one in real
    )


def _require(
    name: str,
    value: Any,
    allowed: str,
    schedule: bool,
    accepts: Callable[[float], bool],
) -> None:
    if isinstance(value, jax.core.Tracer) or (schedule and callable(value)):
        return
    if callable(value):
        raise BadValue(f"{name} must be {allowed}, not a schedule")
    number = _as_float(value)
    if number is None or not math.isfinite(number) or not accepts(number):
        also = " or a schedule" if schedule else ""
        raise BadValue(f"{name} must be {allowed}{also}, got {value!r}")
    if abs(number) > float(np.finfo(np.float32).max):
        raise BadValue(f"{name} must be a float32, at most 3.4e38, got {value!r}")
    if isinstance(value, int) and abs(value) >= 2**31:
        raise BadValue(f"{name} must be an int32 or a float: write {number!r}")


def _as_float(value: Any) -> float | None:
    """The value as a float; None for what is not a single real number."""
    if isinstance(value, (bool, str)) or np.ndim(value) != 0:
        return None
    try:
        return float(value)
    except (TypeError, OverflowError):
        return None
