"""A number over the seeds, and the difference that a setting makes to it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

FEWEST = 5  # pairs below which nothing is called significant
LEVEL = 0.05


class Spread(NamedTuple):
    """A number over the seeds.

    Attributes:
        mean: of the runs that have it.
        half: half of the 95 % t-interval of the mean; None for a single run.
        n: runs that have it.
    """

    mean: float
    half: float | None
    n: int

    @classmethod
    def of(cls, found: Sequence[float]) -> "Spread | None":
        """That of some values; None if there are none.

        Example:
            >>> mean, half, n = Spread.of([1.0, 2.0, 3.0])
            >>> mean, round(half, 3), n  # half: 4.303 / sqrt(3)
            (2.0, 2.484, 3)
        """
        if len(found) < 2:
            return cls(found[0], None, 1) if found else None
        from scipy import special  # which JAX brings

        quantile = special.stdtrit(len(found) - 1, 0.975)
        half = quantile * np.std(found, ddof=1) / np.sqrt(len(found))
        return cls(float(np.mean(found)), float(half), len(found))

    def __str__(self) -> str:
        return self.shown(2)

    def shown(self, digits: int, sign: str = "") -> str:
        """Mean and half of the interval, if there is one."""
        half = "" if self.half is None else f" ± {self.half:.{digits}f}"
        return f"{self.mean:{sign}.{digits}f}{half}".replace("-", "−")


class Difference(NamedTuple):
    """What a setting changes, seed by seed.

    Attributes:
        spread: of the differences of the seeds that both have.
        p: two-sided, of the paired t-test; None for less than two pairs, where all
            differences are the same, or where runs have failed, as those that are left
            are a choice.
    """

    spread: Spread
    p: float | None

    @classmethod
    def of(
        cls, mine: Mapping[int, float], other: Mapping[int, float]
    ) -> "Difference | None":
        """Mine minus the other, each seed -> value; None if they share no seed.

        Example:
            >>> other = {0: 2.0, 1: 3.0, 2: 5.0, 3: 0.0}
            >>> found = Difference.of({0: 1.0, 1: 2.5, 2: 3.0}, other)
            >>> print(found, "points,", found.tested)
            −1.17 ± 1.90 points, p = 0.118, n = 3
        """
        pairs = [mine[seed] - other[seed] for seed in mine if seed in other]
        if (spread := Spread.of(pairs)) is None:
            return None
        error = np.std(pairs, ddof=1) / np.sqrt(len(pairs)) if len(pairs) > 1 else 0.0
        if not error > 1e-12 * abs(spread.mean):
            return cls(spread, None)
        from scipy import special

        tail = special.stdtr(len(pairs) - 1, -abs(spread.mean) / error)
        return cls(spread, float(2 * tail))

    def __str__(self) -> str:
        return self.shown(2)

    def shown(self, digits: int) -> str:
        """Mean and half of the interval."""
        return self.spread.shown(digits, "+")

    @property
    def tested(self) -> str:
        """The p-value and the number of pairs; without a test, the number alone."""
        n = f"n = {self.spread.n}"
        if self.p is None:
            return n
        return f"p < 0.001, {n}" if self.p < 0.001 else f"p = {self.p:.3f}, {n}"


def significant(
    found: Sequence[Difference | None], planned: int | None = None
) -> list[bool]:
    """Which differences are, at 5 % for all of them together (Holm).

    None is that rests on fewer than five pairs, or has no test; they count as well.

    Args:
        found: the differences; None where there is none.
        planned: their number when all are there, if some are not there yet.

    Example:
        >>> def difference(p, n):
        ...     return Difference(Spread(1.0, 0.5, n), p)
        >>> found = [difference(0.02, 5), difference(0.01, 5), difference(1e-3, 4)]
        >>> significant(found)  # 0.01 < 0.05 / 3, 0.02 < 0.05 / 2
        [True, True, False]
        >>> significant(found, planned=6)
        [False, False, False]
    """
    family = planned or sum(difference is not None for difference in found)
    tested = [
        (difference.p, place)
        for place, difference in enumerate(found)
        if difference and difference.p is not None and difference.spread.n >= FEWEST
    ]
    decided = [False] * len(found)
    for number, (p, place) in enumerate(sorted(tested)):
        if p > LEVEL / (family - number):
            break
        decided[place] = True
    return decided
