"""Which numbers a setting may be: annotations of the fields of dataclasses."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple


class Range(NamedTuple):
    """Which values of a type are allowed.

    Attributes:
        words: the allowed values, for the message.
        accepts: whether a value is one of them.
    """

    words: str
    accepts: Callable[[Any], bool] = lambda value: True


Count = Annotated[int, Range("an integer >= 1", lambda v: v >= 1)]
Seed = Annotated[int, Range("an integer in [0, 2**32)", lambda v: 0 <= v < 2**32)]
Share = Annotated[float, Range("a number in [0, 1]", lambda v: 0 <= v <= 1)]
BelowOne = Annotated[float, Range("a number in [0, 1)", lambda v: 0 <= v < 1)]
Nonnegative = Annotated[
    float, Range("a finite number >= 0", lambda v: 0 <= v < float("inf"))
]
Positive = Annotated[
    float, Range("a finite number > 0", lambda v: 0 < v < float("inf"))
]
