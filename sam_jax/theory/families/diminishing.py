"""Families that tend to zero, and one that does so outside the squares."""

import dataclasses
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import optax

from sam_jax import schedules
from sam_jax.theory import orders
from sam_jax.theory.families.base import Facts, Family
from sam_jax.theory.step_sizes import unified


@dataclasses.dataclass(frozen=True)
class Power(Family):
    """c / n^p, where n = ceil(k / steps) counts steps, or epochs.

    Attributes:
        scale: c > 0.
        exponent: p > 0.
        steps: for which n stays the same.

    Example:
        >>> Power(0.1, 1).square_summable, Power(0.1, 0.5).square_summable
        (True, False)
        >>> (Power(0.1, 0.5001).order * Power(1.0, 0.001).order).summable
        False
    """

    scale: float
    exponent: float
    steps: int = 1

    positive = ("scale", "exponent")

    def _facts(self) -> Facts:
        # Order k^-p: an epoch of s steps multiplies it by at most s^p.
        return Facts(orders.power_order(self.exponent), self.scale, 0.0)

    def _schedule(self) -> optax.Schedule:
        return schedules.power_decay(self.scale, self.exponent, self.steps)

    def __str__(self) -> str:
        power = "" if self.exponent == 1 else f"^{self.exponent:g}"
        return f"{self.scale:g}/{_counter(self.steps)}{power}"


@dataclasses.dataclass(frozen=True)
class PowerLog(Family):
    """c / (m^p (log m)^q), m = floor(n / period) + 2, n = ceil(k / steps).

    With p = q = 1 and period 5 this is "Diminish 3" of Khanh et al. 2024.

    Attributes:
        scale: c > 0.
        exponent: p > 0.
        log_exponent: q >= 0.
        steps: for which n stays the same.
        period: number of n for which m stays the same.

    Example:
        >>> PowerLog(0.1).sum_diverges, PowerLog(0.1, log_exponent=2).sum_diverges
        (True, False)
    """

    scale: float
    exponent: float = 1.0
    log_exponent: float = 1.0
    steps: int = 1
    period: int = 5

    positive = ("scale", "exponent")
    nonnegative = ("log_exponent",)

    def _facts(self) -> Facts:
        # Order k^-p (log k)^-q; in the first value m is 2 unless the period is 1.
        order = orders.power_order(self.exponent, self.log_exponent)
        m = 1 // self.period + 2
        first = self.scale / (m**self.exponent * math.log(m) ** self.log_exponent)
        return Facts(order, first, 0.0)

    def _schedule(self) -> optax.Schedule:

        def values(count: jax.typing.ArrayLike) -> jax.Array:
            n = jnp.asarray(count) // self.steps + 1
            m = (n // self.period + 2).astype(float)
            return self.scale / (m**self.exponent * jnp.log(m) ** self.log_exponent)

        return values

    def __str__(self) -> str:
        p = "" if self.exponent == 1 else f"^{self.exponent:g}"
        q = "" if self.log_exponent == 1 else f"^{self.log_exponent:g}"
        m = f"m = floor({_counter(self.steps)}/{self.period}) + 2"
        return f"{self.scale:g}/(m{p} (log m){q}), {m}"


@dataclasses.dataclass(frozen=True)
class PerfectSquares(Family):
    """C where k is a perfect square, C / k^p elsewhere (Khanh et al. 2024, Remark G.2).

    A radius that does not tend to zero but is summable with 1/k.

    Attributes:
        scale: C > 0.
        exponent: p > 0.

    Example:
        >>> radius = PerfectSquares(0.1, 0.5)
        >>> radius.vanishes, (radius.order * Power(1.0, 1).order).summable
        (False, True)
        >>> (radius.order * Power(1.0, 0.5).order).summable  # on the squares it is 1/j
        False
    """

    scale: float
    exponent: float

    positive = ("scale", "exponent")

    def _facts(self) -> Facts:
        # Order k^-p everywhere, and 1 on the squares, whose C stays.
        everywhere = orders.Term(orders.exact(self.exponent))
        squares = orders.Term(Fraction(0), spacing=2)
        order = orders.Order(frozenset([everywhere, squares]))
        return Facts(order, self.scale, self.scale)

    def _schedule(self) -> optax.Schedule:
        return schedules.perfect_squares(self.scale, self.exponent)

    def __str__(self) -> str:
        c = f"{self.scale:g}"
        return f"{c} on perfect squares, else {c}/k^{self.exponent:g}"


@dataclasses.dataclass(frozen=True)
class PLStep(Family):
    """min((2t+1)/((t+1)^2 mu), limit), t from 0 (Oikonomou and Loizou 2025, Thm 3.5).

    Attributes:
        pl: mu > 0.
        limit: > 0.
    """

    pl: float
    limit: float

    positive = ("pl", "limit")

    def _facts(self) -> Facts:
        return Facts(orders.power_order(1), min(1 / self.pl, self.limit), 0.0)

    def _schedule(self) -> optax.Schedule:
        return unified.decreasing(self.pl, unified.Rule(1.0, self.limit)).gamma

    def __str__(self) -> str:
        return f"min((2t+1)/({self.pl:g} (t+1)^2), {self.limit:g})"


@dataclasses.dataclass(frozen=True)
class PLRadius(Family):
    """min(1/(2t+1), limit), t from 0 (Oikonomou and Loizou 2025, Theorem 3.5).

    Attributes:
        limit: > 0.
    """

    limit: float

    positive = ("limit",)

    def _facts(self) -> Facts:
        return Facts(orders.power_order(1), min(1.0, self.limit), 0.0)

    def _schedule(self) -> optax.Schedule:
        return unified.decreasing(1.0, unified.Rule(self.limit, 1.0)).rho

    def __str__(self) -> str:
        return f"min(1/(2t+1), {self.limit:g})"


def _counter(steps: int) -> str:
    return "k" if steps == 1 else f"ceil(k/{steps})"
