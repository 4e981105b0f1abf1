"""Theorems, and the five convergence properties."""

import dataclasses
from collections.abc import Callable, Mapping

from sam_jax.theory.conditions.requirements import Requirement
from sam_jax.theory.conditions.settings import Setting

# The five fundamental convergence properties (Khanh et al. 2024, Table 1).
PROPERTIES: Mapping[int, str] = {
    1: "liminf ||grad f(x^k)|| = 0",
    2: "every accumulation point of the iterates is stationary",
    3: "lim ||grad f(x^k)|| = 0",
    4: "f(x^k) converges to the value of a stationary point",
    5: "the iterates converge to a stationary point",
}


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """A conclusion of a theorem.

    Attributes:
        text: in words; or a function of the setting, where it has numbers.
        properties: which of `PROPERTIES`.
        needs: conditions beyond those of the theorem.
    """

    text: str | Callable[[Setting], str]
    properties: frozenset[int] = frozenset()
    needs: tuple[Requirement, ...] = ()


@dataclasses.dataclass(frozen=True)
class Theorem:
    """A theorem: its conditions and its conclusions.

    Attributes:
        name: paper and number.
        about: one line.
        needs: all must hold.
        gives: conclusions, each with the additional conditions that it needs.
    """

    name: str
    about: str
    needs: tuple[Requirement, ...]
    gives: tuple[Conclusion, ...]
