"""What all families have, and the simplest of them."""

import abc
import dataclasses

import optax

from sam_jax import checks
from sam_jax.theory import orders


class Family(abc.ABC):
    """A sequence of step sizes or radii, k from 1."""

    @property
    @abc.abstractmethod
    def order(self) -> orders.Order:
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
        checks.nonnegative("value", self.value)

    @property
    def order(self) -> orders.Order:
        """1."""
        return level(self.value)

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


def level(value: float) -> orders.Order:
    """The order of a sequence that ends at a value >= 0."""
    return orders.ONE if value > 0 else orders.ZERO
