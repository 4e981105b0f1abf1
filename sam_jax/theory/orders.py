r"""Sequences up to constant factors: which infinite sums converge.

A finite number of terms says nothing about an infinite sum: the sum of 1/(k log k)
diverges, but exceeds 4 only after 10^23 terms. So the exponents decide, compared as
exact fractions: 2 * 0.5001 is above 1, 0.5001 + 0.4999 is not.
"""

import dataclasses
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple


class Term(NamedTuple):
    """k^-power (log k)^-log at the k that are spacing-th powers, 0 at the others.

    Attributes:
        power: exponent of 1/k.
        log: exponent of 1/log k.
        spacing: 1 for every k, 2 for the perfect squares, and so on.
    """

    power: Fraction
    log: Fraction = Fraction(0)
    spacing: int = 1

    @property
    def _rank(self) -> tuple[Fraction, Fraction]:
        # With k = j^s the sum over j is that of j^-(s power) (log j)^-log.
        return self.spacing * self.power, self.log

    @property
    def summable(self) -> bool:
        """Whether the sum over all k is finite."""
        power, log = self._rank
        return power > 1 or (power == 1 and log > 1)

    @property
    def vanishes(self) -> bool:
        """Whether it tends to zero."""
        return self.power > 0 or (self.power == 0 and self.log > 0)

    def __str__(self) -> str:
        factors = [
            base if exponent == -1 else f"{base}^{decimal(-exponent)}"
            for base, exponent in (("k", self.power), ("(log k)", self.log))
            if exponent
        ]
        where = "" if self.spacing == 1 else f" where k is a power {self.spacing}"
        return (" ".join(factors) or "1") + where


@dataclasses.dataclass(frozen=True)
class Order:
    """A sequence up to constant factors: a sum of terms. No terms: 0 from some k on.

    Example:
        >>> order = power_order(0.5001)
        >>> (order * order).summable, (order * power_order(0.4999)).summable
        (True, False)
        >>> print(order * order)
        k^-1.0002
    """

    terms: frozenset[Term] = frozenset()

    @property
    def summable(self) -> bool:
        """Whether the sum over all k is finite."""
        return all(term.summable for term in self.terms)

    @property
    def vanishes(self) -> bool:
        """Whether it tends to zero."""
        return all(term.vanishes for term in self.terms)

    @property
    def bounded_away(self) -> bool:
        """Whether it stays above some positive number."""
        return any(t.spacing == 1 and not t.vanishes for t in self.terms)

    def __mul__(self, other: "Order") -> "Order":
        return _order(
            Term(a.power + b.power, a.log + b.log, math.lcm(a.spacing, b.spacing))
            for a in self.terms
            for b in other.terms
        )

    def root(self, exponent: Fraction) -> "Order":
        """The sequence to the power of ``exponent`` > 0."""
        return _order(
            Term(t.power * exponent, t.log * exponent, t.spacing) for t in self.terms
        )

    def tail(self) -> "Order":
        """The remainders of its sum: of the terms from k on.

        Raises:
            ValueError: if the sum is infinite.
        """
        if not self.summable:
            raise ValueError(f"the sum over k of {self} is infinite: it has no tails")
        return _order(
            # By the integral of j^-(s power) (log j)^-log from j = k^(1/s) on.
            Term(t.power - Fraction(1, t.spacing), t.log)
            if t.spacing * t.power > 1
            else Term(Fraction(0), t.log - 1)
            for t in self.terms
        )

    def why(self) -> str:
        """The comparison that decides whether the sum over all k is finite."""
        if not self.terms:
            return "it is 0 from some k on"
        slowest = min(self.terms, key=lambda term: term._rank)
        power, log = slowest._rank
        if slowest.spacing > 1:
            scope = f"over k = j^{slowest.spacing} the exponent of 1/j is"
        else:
            scope = "the exponent of 1/k is"
        if power != 1:
            return f"{scope} {decimal(power)} {'>' if power > 1 else '<'} 1"
        sign = ">" if log > 1 else "<="
        return f"{scope} 1 and that of 1/log k {decimal(log)} {sign} 1"

    def __str__(self) -> str:
        return " + ".join(map(str, sorted(self.terms))) or "0 from some k on"


def power_order(power: float | Fraction, log: float | Fraction = 0) -> Order:
    """The order k^-power (log k)^-log; decimals are taken exactly as written."""
    return _order([Term(exact(power), exact(log))])


def exact(value: float | Fraction) -> Fraction:
    """The fraction that equals a decimal number as it is written.

    Example:
        >>> exact(0.5001)
        Fraction(5001, 10000)
    """
    return value if isinstance(value, Fraction) else Fraction(str(value))


def decimal(value: Fraction) -> str:
    """A fraction as a decimal number."""
    return f"{float(value):.12g}"


def _order(terms: Iterable[Term]) -> Order:
    return Order(frozenset(terms))


ZERO, ONE = Order(), power_order(0)
