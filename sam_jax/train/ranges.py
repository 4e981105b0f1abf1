"""Which numbers a setting may be: annotations of the fields of dataclasses.

Bounds are wide: they keep out what no run can mean, or what a computer cannot hold.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np

FLOAT32_MAX = float(np.finfo(np.float32).max)


class Range(NamedTuple):
    """Which values of a type are allowed.

    Attributes:
        words: the allowed values, for the message.
        accepts: whether a value is one of them.
    """

    words: str
    accepts: Callable[[Any], bool]


def within(low: int, high: int, words: str | None = None) -> Range:
    """The integers from ``low`` to ``high``.

    Example:
        >>> within(1, 9).words
        'an integer in [1, 9]'
    """
    words = words or f"an integer in [{low}, {high}]"
    return Range(words, lambda value: low <= value <= high)


# ── Integers ─────────────────────────────────────────────────────────────────────────

Count = Annotated[int, within(1, 2**31 - 1, "an integer in [1, 2**31)")]
Seed = Annotated[int, within(0, 2**32 - 1, "an integer in [0, 2**32)")]
Epochs = Annotated[int, within(1, 1_000_000)]
Batch = Annotated[int, within(1, 2**20, "an integer in [1, 2**20]")]
Dispatch = Annotated[int, within(1, 10_000)]  # more calls of the host cost nothing
Operations = Annotated[int, within(0, 100)]  # on an image
Whole = Annotated[int, within(0, 1_000_000)]
Width = Annotated[int, within(1, 2**16, "an integer in [1, 2**16]")]
Pixels = Annotated[int, within(0, 2**16, "an integer in [0, 2**16]")]

# ── Numbers ──────────────────────────────────────────────────────────────────────────

Share = Annotated[float, Range("a number in [0, 1]", lambda v: 0 <= v <= 1)]
BelowOne = Annotated[float, Range("a number in [0, 1)", lambda v: 0 <= v < 1)]
UpTo1000 = Annotated[float, Range("a number in [0, 1000]", lambda v: 0 <= v <= 1000)]
Finite = Annotated[float, Range("a finite number", lambda v: abs(v) <= FLOAT32_MAX)]
Nonnegative = Annotated[
    float, Range("a finite number >= 0", lambda v: 0 <= v <= FLOAT32_MAX)
]
Positive = Annotated[
    float, Range("a finite number > 0", lambda v: 0 < v <= FLOAT32_MAX)
]
