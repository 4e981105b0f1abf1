r"""Step sizes and radii as symbolic objects: which of their infinite sums converge.

A finite number of terms says nothing about an infinite sum: that of 1/(k log k) passes
4 after 10^23 terms, and diverges. So each family knows its `Order`, what it is like for
k to infinity up to constant factors, and sums are decided by comparing exponents, in
exact fractions: 2 * 0.5001 is above 1, 0.5001 + 0.4999 is not.
"""

import abc
import dataclasses
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import schedules
from sam_jax.theory.step_sizes import unified

# ── Orders ───────────────────────────────────────────────────────────────────────────


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
    """A sequence up to constant factors: a sum of terms; none is 0 from some k on.

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
        """What decides whether the sum over all k is finite, with both sides."""
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
        return f"{scope} 1 and that of 1/log k {decimal(log)} {_sign(log)} 1"

    def __str__(self) -> str:
        return " + ".join(map(str, sorted(self.terms))) or "0 from some k on"


def _sign(log: Fraction) -> str:
    return ">" if log > 1 else "<="


def power_order(power: float | Fraction, log: float | Fraction = 0) -> Order:
    """The order k^-power (log k)^-log; decimals are meant as they are written."""
    return _order([Term(exact(power), exact(log))])


def exact(value: float | Fraction) -> Fraction:
    """The fraction that a decimal number is written as.

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


_ZERO, _ONE = Order(), power_order(0)


def _level(value: float) -> Order:
    return _ONE if value > 0 else _ZERO


# ── Families ─────────────────────────────────────────────────────────────────────────


class Family(abc.ABC):
    """A sequence of step sizes or radii, k from 1."""

    @property
    @abc.abstractmethod
    def order(self) -> Order:
        """What it is like for k to infinity."""

    @property
    @abc.abstractmethod
    def supremum(self) -> float:
        """Its largest value."""

    @property
    @abc.abstractmethod
    def limsup(self) -> float:
        """Its largest value in the long run."""

    @abc.abstractmethod
    def schedule(self) -> optax.Schedule:
        """The same sequence for an optimizer: a schedule of the count, from 0."""

    @property
    def vanishes(self) -> bool:
        """Whether it tends to zero."""
        return self.order.vanishes

    @property
    def sum_diverges(self) -> bool:
        """Whether its sum is infinite."""
        return not self.order.summable

    @property
    def square_summable(self) -> bool:
        """Whether the sum of its squares is finite."""
        return (self.order * self.order).summable

    def summable_with(self, other: "Family") -> bool:
        """Whether the sum of the products with another family is finite."""
        return (self.order * other.order).summable

    @property
    def depends_on_horizon(self) -> bool:
        """Whether the sequence is laid out for a given number of steps."""
        return False


@dataclasses.dataclass(frozen=True)
class Constant(Family):
    """The same value for ever.

    Attributes:
        value: finite, >= 0.

    Example:
        >>> Constant(0.1).sum_diverges, Constant(0.1).square_summable
        (True, False)
    """

    value: float

    def __post_init__(self) -> None:
        _check_nonnegative("value", self.value)

    @property
    def order(self) -> Order:
        """1."""
        return _level(self.value)

    @property
    def supremum(self) -> float:
        """The value."""
        return self.value

    @property
    def limsup(self) -> float:
        """The value."""
        return self.value

    def schedule(self) -> optax.Schedule:
        """Optax's constant schedule."""
        return optax.constant_schedule(self.value)

    def __str__(self) -> str:
        return f"constant {self.value:g}"


class _Vanishing(Family):
    """A family that tends to zero, though it never is."""

    @property
    def limsup(self) -> float:
        """0."""
        return 0.0


@dataclasses.dataclass(frozen=True)
class Power(_Vanishing):
    """c / n^p, where n = ceil(k / steps) counts steps, or epochs.

    Attributes:
        scale: c > 0.
        exponent: p > 0.
        steps: for which n stays the same.

    Example:
        >>> Power(0.1, 1).square_summable, Power(0.1, 0.5).square_summable
        (True, False)
        >>> Power(0.1, 0.5001).summable_with(Power(1.0, 0.001))
        False
    """

    scale: float
    exponent: float
    steps: int = 1

    def __post_init__(self) -> None:
        _check_positive("scale", self.scale)
        _check_positive("exponent", self.exponent)

    @property
    def order(self) -> Order:
        """k^-p: an epoch of s steps multiplies it by at most s^p."""
        return power_order(self.exponent)

    @property
    def supremum(self) -> float:
        """The first value."""
        return self.scale

    def schedule(self) -> optax.Schedule:
        """`sam_jax.schedules.power_decay`."""
        return schedules.power_decay(self.scale, self.exponent, self.steps)

    def __str__(self) -> str:
        power = "" if self.exponent == 1 else f"^{self.exponent:g}"
        return f"{self.scale:g}/{_counter(self.steps)}{power}"


@dataclasses.dataclass(frozen=True)
class PowerLog(_Vanishing):
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

    def __post_init__(self) -> None:
        _check_positive("scale", self.scale)
        _check_positive("exponent", self.exponent)
        _check_nonnegative("log_exponent", self.log_exponent)

    @property
    def order(self) -> Order:
        """k^-p (log k)^-q."""
        return power_order(self.exponent, self.log_exponent)

    @property
    def supremum(self) -> float:
        """The first value; m is 2 unless the period is 1."""
        m = 1 // self.period + 2
        return self.scale / (m**self.exponent * math.log(m) ** self.log_exponent)

    def schedule(self) -> optax.Schedule:
        """Of the formula; for p = q = 1 it is `sam_jax.schedules.log_decay`."""

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

    A radius that does not tend to zero and yet is summable with 1/k.

    Attributes:
        scale: C > 0.
        exponent: p > 0.

    Example:
        >>> radius = PerfectSquares(0.1, 0.5)
        >>> radius.vanishes, radius.summable_with(Power(1.0, 1))
        (False, True)
        >>> radius.summable_with(Power(1.0, 0.5))  # on the squares it is 1/j
        False
    """

    scale: float
    exponent: float

    def __post_init__(self) -> None:
        _check_positive("scale", self.scale)
        _check_positive("exponent", self.exponent)

    @property
    def order(self) -> Order:
        """k^-p everywhere, and 1 on the squares."""
        everywhere, squares = Term(exact(self.exponent)), Term(Fraction(0), spacing=2)
        return _order([everywhere, squares])

    @property
    def supremum(self) -> float:
        """C."""
        return self.scale

    @property
    def limsup(self) -> float:
        """C."""
        return self.scale

    def schedule(self) -> optax.Schedule:
        """`sam_jax.schedules.perfect_squares`."""
        return schedules.perfect_squares(self.scale, self.exponent)

    def __str__(self) -> str:
        c = f"{self.scale:g}"
        return f"{c} on perfect squares, else {c}/k^{self.exponent:g}"


class _Levelling(Family):
    """A family that ends at a level, its limsup, after a given number of steps."""

    @property
    def order(self) -> Order:
        """That of its end."""
        return _level(self.limsup)

    @property
    def depends_on_horizon(self) -> bool:
        """It does."""
        return True


@dataclasses.dataclass(frozen=True)
class _Fall(_Levelling):
    peak: float
    horizon: int
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_levels(self.peak, self.final, self.horizon)

    @property
    def supremum(self) -> float:
        """The peak."""
        return self.peak

    @property
    def limsup(self) -> float:
        """The last value."""
        return self.final

    def _text(self, shape: str) -> str:
        return f"{shape} from {self.peak:g} to {self.final:g} in {self.horizon} steps"


@dataclasses.dataclass(frozen=True)
class Cosine(_Fall):
    """Half a cosine from the peak down to ``final`` after ``horizon`` steps.

    Attributes:
        peak: first value, > 0.
        horizon: steps.
        final: last value, in [0, peak].

    Example:
        >>> Cosine(0.1, 1000).vanishes, Cosine(0.1, 1000).sum_diverges
        (True, False)
    """

    def schedule(self) -> optax.Schedule:
        """Optax's cosine."""
        return optax.cosine_decay_schedule(
            self.peak, self.horizon, alpha=self.final / self.peak
        )

    def __str__(self) -> str:
        return self._text("cosine")


@dataclasses.dataclass(frozen=True)
class Linear(_Fall):
    """A straight line from the peak down to ``final`` after ``horizon`` steps.

    Attributes:
        peak: first value, > 0.
        horizon: steps.
        final: last value, in [0, peak].
    """

    def schedule(self) -> optax.Schedule:
        """Optax's linear schedule."""
        return optax.linear_schedule(self.peak, self.final, self.horizon)

    def __str__(self) -> str:
        return self._text("linear")


@dataclasses.dataclass(frozen=True)
class StepDecay(_Levelling):
    """The peak, multiplied by a factor at each of finitely many boundaries.

    In the end it is a constant, which does not tend to zero.

    Attributes:
        peak: first value, > 0.
        boundaries: steps, increasing.
        factor: >= 0.

    Example:
        >>> schedule = StepDecay(0.1, (60, 120), 0.1)
        >>> schedule.vanishes, round(schedule.limsup, 9)
        (False, 0.001)
    """

    peak: float
    boundaries: tuple[int, ...]
    factor: float

    def __post_init__(self) -> None:
        _check_positive("peak", self.peak)
        _check_nonnegative("factor", self.factor)

    @property
    def limsup(self) -> float:
        """The value after the last boundary."""
        return self.peak * self.factor ** len(self.boundaries)

    @property
    def supremum(self) -> float:
        """The largest of all levels."""
        return max(self.peak, self.limsup)

    def schedule(self) -> optax.Schedule:
        """Optax's piecewise constant schedule."""
        return optax.piecewise_constant_schedule(
            self.peak, dict.fromkeys(self.boundaries, self.factor)
        )

    def __str__(self) -> str:
        drops = f"{len(self.boundaries)} drops"
        return f"step decay from {self.peak:g} to {self.limsup:g} in {drops}"


@dataclasses.dataclass(frozen=True)
class Following(_Levelling):
    """A radius that follows a step size down to ``final`` after ``horizon`` steps.

    Attributes:
        step_size: to follow; it falls.
        peak: where the step size is largest, > 0.
        horizon: steps.
        final: where it is smallest, in [0, peak].
    """

    step_size: Family
    peak: float
    horizon: int
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_levels(self.peak, self.final, self.horizon)

    @property
    def supremum(self) -> float:
        """The peak."""
        return self.peak

    @property
    def limsup(self) -> float:
        """The last value."""
        return self.final

    def schedule(self) -> optax.Schedule:
        """`sam_jax.schedules.tied_to`."""
        rate = self.step_size.schedule()
        return schedules.tied_to(
            rate,
            self.final,
            self.peak,
            lr_min=float(rate(self.horizon)),  # pyright: ignore[reportArgumentType]
            lr_max=self.step_size.supremum,
        )

    def __str__(self) -> str:
        return f"from {self.peak:g} to {self.final:g} with the step size"


@dataclasses.dataclass(frozen=True)
class CosineRestarts(Family):
    """A cosine from the peak to 0 that starts again after each period.

    Attributes:
        peak: > 0.
        period: steps of a cycle.

    Example:
        >>> restarts = CosineRestarts(0.1, 100)
        >>> restarts.vanishes, restarts.sum_diverges, restarts.limsup
        (False, True, 0.1)
    """

    peak: float
    period: int

    def __post_init__(self) -> None:
        _check_positive("peak", self.peak)
        _check_positive("period", self.period)

    @property
    def order(self) -> Order:
        """1: the last step of a cycle comes before the zero."""
        return _ONE

    @property
    def supremum(self) -> float:
        """The peak."""
        return self.peak

    @property
    def limsup(self) -> float:
        """The peak."""
        return self.peak

    def schedule(self) -> optax.Schedule:
        """Optax's cosine of the place in the cycle."""
        cycle = optax.cosine_decay_schedule(self.peak, self.period)
        return lambda count: cycle(jnp.asarray(count) % self.period)

    def __str__(self) -> str:
        return f"cosine from {self.peak:g}, restarted every {self.period} steps"


@dataclasses.dataclass(frozen=True)
class WarmUp(Family):
    """A linear rise from 0 to the first value of another family, then that one.

    Finitely many steps change none of the sums.

    Attributes:
        steps: of the rise.
        then: what follows, counted from the end of the rise.
    """

    steps: int
    then: Family

    @property
    def order(self) -> Order:
        """That of what follows."""
        return self.then.order

    @property
    def supremum(self) -> float:
        """That of what follows."""
        return self.then.supremum

    @property
    def limsup(self) -> float:
        """That of what follows."""
        return self.then.limsup

    @property
    def depends_on_horizon(self) -> bool:
        """As what follows."""
        return self.then.depends_on_horizon

    def schedule(self) -> optax.Schedule:
        """Optax's linear schedule, joined to what follows."""
        then = self.then.schedule()
        rise = optax.linear_schedule(0.0, float(then(0)), self.steps)  # pyright: ignore[reportArgumentType]
        return optax.join_schedules([rise, then], [self.steps])

    def __str__(self) -> str:
        return f"{self.then}, after {self.steps} steps of warm-up"


@dataclasses.dataclass(frozen=True)
class PLStep(_Vanishing):
    """min((2t+1)/((t+1)^2 mu), limit), t from 0 (Oikonomou and Loizou 2025, Thm 3.5).

    Attributes:
        pl: mu > 0.
        limit: > 0.
    """

    pl: float
    limit: float

    def __post_init__(self) -> None:
        _check_positive("pl", self.pl)
        _check_positive("limit", self.limit)

    @property
    def order(self) -> Order:
        """1/k."""
        return power_order(1)

    @property
    def supremum(self) -> float:
        """The first value."""
        return min(1 / self.pl, self.limit)

    def schedule(self) -> optax.Schedule:
        """`sam_jax.theory.step_sizes.unified.decreasing`."""
        return unified.decreasing(self.pl, unified.Rule(1.0, self.limit)).gamma

    def __str__(self) -> str:
        return f"min((2t+1)/({self.pl:g} (t+1)^2), {self.limit:g})"


@dataclasses.dataclass(frozen=True)
class PLRadius(_Vanishing):
    """min(1/(2t+1), limit), t from 0 (Oikonomou and Loizou 2025, Theorem 3.5).

    Attributes:
        limit: > 0.
    """

    limit: float

    def __post_init__(self) -> None:
        _check_positive("limit", self.limit)

    @property
    def order(self) -> Order:
        """1/k."""
        return power_order(1)

    @property
    def supremum(self) -> float:
        """The first value."""
        return min(1.0, self.limit)

    def schedule(self) -> optax.Schedule:
        """`sam_jax.theory.step_sizes.unified.decreasing`."""
        return unified.decreasing(1.0, unified.Rule(self.limit, 1.0)).rho

    def __str__(self) -> str:
        return f"min(1/(2t+1), {self.limit:g})"


def _counter(steps: int) -> str:
    return "k" if steps == 1 else f"ceil(k/{steps})"


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number > 0, got {value!r}")


def _check_nonnegative(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")


def _check_levels(peak: float, final: float, horizon: int) -> None:
    _check_positive("peak", peak)
    _check_positive("horizon", horizon)
    if not 0 <= final <= peak:
        raise ValueError(f"final must be in [0, peak], got {final!r} for {peak!r}")
