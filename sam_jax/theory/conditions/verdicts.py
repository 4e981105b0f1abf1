"""Checks a setting against every theorem."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sam_jax.theory.conditions import khanh, si_yun, unified
from sam_jax.theory.conditions.requirements import Condition
from sam_jax.theory.conditions.settings import Setting
from sam_jax.theory.conditions.theorems import Theorem

THEOREMS: Sequence[Theorem] = (*khanh.THEOREMS, *si_yun.THEOREMS, *unified.THEOREMS)

# The paper's implications, and (3) => (1), which is immediate. (2) => (1) would need
# that ||x^k|| does not tend to infinity.
_IMPLIED: Mapping[int, frozenset[int]] = {
    3: frozenset({1, 2}),
    5: frozenset({1, 2, 3, 4}),
}


class Verdict(NamedTuple):
    """A theorem checked against a setting.

    Attributes:
        theorem: the theorem.
        conditions: all that it needs.
        follows: its conclusions here: those whose own conditions also hold; empty
            unless the theorem applies.
        properties: which of `PROPERTIES` they state or imply.
    """

    theorem: Theorem
    conditions: Sequence[Condition]
    follows: Sequence[str]
    properties: frozenset[int]

    @property
    def applies(self) -> bool | None:
        """True, False, or None if it depends on an unknown constant."""
        return _all(self.conditions)

    @property
    def failures(self) -> list[Condition]:
        """The conditions that fail."""
        return [c for c in self.conditions if c.holds is False]

    @property
    def unknown(self) -> list[Condition]:
        """The conditions that are unknown."""
        return [c for c in self.conditions if c.holds is None]


def assess(setting: Setting) -> list[Verdict]:
    """Checks a setting against every theorem.

    Args:
        setting: what is run.

    Returns:
        A verdict for each of `THEOREMS`, in their order.

    Example:
        >>> from sam_jax.theory import families
        >>> setting = Setting(
        ...     step_size=families.Power(0.1, 0.5001),
        ...     radius=families.Power(0.05, 0.001),
        ...     smoothness=1.0,
        ...     bounded_below=True,
        ... )
        >>> verdict = assess(setting)[1]
        >>> verdict.theorem.name, verdict.applies
        ('Khanh et al., Theorem 3.3 and Corollary 3.5', False)
        >>> print(verdict.failures[0].reason)
        t_k rho_k ~ k^-0.5011: the exponent of 1/k is 0.5011 < 1
    """
    return [_verdict(theorem, setting) for theorem in THEOREMS]


def _verdict(theorem: Theorem, setting: Setting) -> Verdict:
    found = [need(setting) for need in theorem.needs]
    follows: list[str] = []
    properties_: frozenset[int] = frozenset()
    if _all(found):
        for conclusion in theorem.gives:
            if not _all([need(setting) for need in conclusion.needs]):
                continue
            text = conclusion.text
            follows.append(text if isinstance(text, str) else text(setting))
            properties_ |= conclusion.properties
    for number in sorted(properties_):
        properties_ |= _IMPLIED.get(number, frozenset())
    return Verdict(theorem, found, follows, properties_)


def properties(verdicts: Sequence[Verdict]) -> frozenset[int]:
    """Which of `PROPERTIES` follow from all theorems together."""
    return frozenset().union(*(verdict.properties for verdict in verdicts))


def _all(conditions: Sequence[Condition]) -> bool | None:
    values = [condition.holds for condition in conditions]
    if False in values:
        return False
    return None if None in values else True
