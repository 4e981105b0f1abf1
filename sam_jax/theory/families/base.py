"""The interface of all families, and the simplest family."""

import abc
import dataclasses
from typing import ClassVar, NamedTuple

import optax

from sam_jax import checks
from sam_jax.theory import orders


class Facts(NamedTuple):
    """Known facts about a sequence.

    Attributes:
        order: its behavior for k to infinity.
        supremum: its largest value.
        limsup: its limit superior.
        depends_on_horizon: whether it is designed for a given number of steps.
    """

    order: orders.Order
    supremum: float
    limsup: float
    depends_on_horizon: bool = False


class Family(abc.ABC):
    """A sequence of step sizes or radii, k from 1."""

    positive: ClassVar[tuple[str, ...]] = ()  # fields that must be > 0
    nonnegative: ClassVar[tuple[str, ...]] = ()  # ... and those that must be >= 0

    def __post_init__(self) -> None:
        for name in self.positive:
            checks.positive(name, getattr(self, name))
        for name in self.nonnegative:
            checks.nonnegative(name, getattr(self, name))

    @abc.abstractmethod
    def _facts(self) -> Facts: ...

    @abc.abstractmethod
    def _schedule(self) -> optax.Schedule: ...

    @property
    def facts(self) -> Facts:
        """The facts from which the properties below follow."""
        return self._facts()

    def schedule(self) -> optax.Schedule:
        """The same sequence for an optimizer: a schedule of the count, from 0."""
        return self._schedule()

    @property
    def order(self) -> orders.Order:
        """Its behavior for k to infinity."""
        return self.facts.order

    @property
    def supremum(self) -> float:
        """Its largest value."""
        return self.facts.supremum

    @property
    def limsup(self) -> float:
        """Its limit superior."""
        return self.facts.limsup

    @property
    def depends_on_horizon(self) -> bool:
        """Whether it is designed for a given number of steps."""
        return self.facts.depends_on_horizon

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


def level(supremum: float, last: float, *, horizon: bool = False) -> Facts:
    """The facts of a sequence that ends at a value >= 0, perhaps after a horizon."""
    return Facts(orders.ONE if last > 0 else orders.ZERO, supremum, last, horizon)


@dataclasses.dataclass(frozen=True)
class Constant(Family):
    """The same value at every step.

    Attributes:
        value: finite, >= 0.

    Example:
        >>> Constant(0.1).sum_diverges, Constant(0.1).square_summable
        (True, False)
    """

    value: float

    nonnegative = ("value",)

    def _facts(self) -> Facts:
        return level(self.value, self.value)

    def _schedule(self) -> optax.Schedule:
        return optax.constant_schedule(self.value)

    def __str__(self) -> str:
        return f"constant {self.value:g}"
