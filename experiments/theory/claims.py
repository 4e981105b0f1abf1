"""The statement of an experiment, and its outcome."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, NamedTuple, ParamSpec

import numpy as np
from matplotlib import figure


@dataclasses.dataclass(frozen=True)
class Claim:
    """The statement of a file of this laboratory, in Markdown.

    Attributes:
        title: one line.
        source: paper, theorem or figure; ``"ours"`` for what goes beyond the papers.
        statement: the claim, with its conditions.
        recipe: what is run: problem, constants, starts, steps.
        criterion: when the verdict is PASS.
        refuted: the reason if the claim is known not to hold as published: the expected
            verdict is then FAIL. Empty for all others.
        survivors: mutations of the ascent that may go unnoticed by all checks -> the
            reason; see `mutations`.
    """

    title: str
    source: str
    statement: str
    recipe: str
    criterion: str
    refuted: str = ""
    survivors: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def expected(self) -> str:
        """The expected verdict."""
        return "FAIL" if self.refuted else "PASS"


class Check(NamedTuple):
    """One comparison.

    Attributes:
        what: the quantity, with its unit or setting.
        predicted: the prediction of the claim, as text.
        measured: the measured value, as text.
        passed: whether they agree.
    """

    what: str
    predicted: str
    measured: str
    passed: bool


class Outcome(NamedTuple):
    """The outcome of an experiment.

    Attributes:
        checks: comparisons; the index shows the first one.
        picture: for ``figure.svg`` and ``figure.png``.
        data: of the picture: name -> numbers, lists or arrays, with any nesting.
    """

    checks: Sequence[Check]
    picture: figure.Figure
    data: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """PASS if all checks passed, else FAIL."""
        return "PASS" if all(check.passed for check in self.checks) else "FAIL"


def close(
    what: str, measured: Any, predicted: Any, *, rtol: float = 0.0, atol: float = 0.0
) -> Check:
    """A number, or every number of an array, near its prediction.

    Args:
        what: the quantity.
        measured: number or array; one that is not finite does not pass.
        predicted: number or array that broadcasts with it.
        rtol: tolerance relative to the prediction.
        atol: absolute tolerance; both are added.

    Returns:
        The check; for an array it shows the worst entry and the number of entries.

    Example:
        >>> close("x", 1.001, 1.0, rtol=0.01)
        Check(what='x', predicted='1 ± 1 %', measured='1.001', passed=True)
    """
    found, expected = np.broadcast_arrays(_array(measured), _array(predicted))
    allowed = atol + rtol * np.abs(expected)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        excess = np.abs(found - expected) - allowed
    excess = np.where(np.isfinite(found), excess, np.inf)
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    sizes = {f"{100 * rtol:g} %": rtol, f"{atol:g}": atol}
    spread = " + ".join(text for text, size in sizes.items() if size > 0)
    return Check(
        what + _of_worst(found),
        number(expected[worst]) + (f" ± {spread}" if spread else ""),
        number(found[worst]),
        bool((excess <= 0).all()),
    )


def at_most(what: str, measured: Any, bound: Any) -> Check:
    """A number, or every number of an array, not above its bound.

    Example:
        >>> at_most("gap", [1.0, 3.0], [2.0, 2.0])
        Check(what='gap (worst of 2)', predicted='<= 2', measured='3', passed=False)
    """
    found, limit = np.broadcast_arrays(_array(measured), _array(bound))
    return _one_sided(what, found, limit, "<=", found <= limit, _excess(found, limit))


def at_least(what: str, measured: Any, bound: Any) -> Check:
    """A number, or every number of an array, not below its bound.

    Example:
        >>> at_least("gap", 1.0, 0.5).passed
        True
    """
    found, limit = np.broadcast_arrays(_array(measured), _array(bound))
    return _one_sided(what, found, limit, ">=", found >= limit, _excess(limit, found))


def says(what: str, measured: object, predicted: object) -> Check:
    """A statement (text, boolean) that must be the same."""
    return Check(what, str(predicted), str(measured), measured == predicted)


P = ParamSpec("P")


def _adds(function: Callable[P, Check]) -> Callable[Concatenate["Checks", P], None]:
    def add(self: "Checks", *args: P.args, **settings: P.kwargs) -> None:
        self.append(function(*args, **settings))

    return add


class Checks(list[Check]):
    """The checks of a claim; each method appends the check of its function.

    Example:
        >>> checks = Checks()
        >>> checks.at_most("gap", 1.0, 2.0)
        >>> [check.passed for check in checks]
        [True]
    """

    close, at_most = _adds(close), _adds(at_most)
    at_least, says = _adds(at_least), _adds(says)


def _one_sided(
    what: str,
    found: np.ndarray,
    limit: np.ndarray,
    sign: str,
    passed: np.ndarray,
    excess: np.ndarray,
) -> Check:
    # NaN compares as false and is the worst of all. No number meets a bound that is
    # not finite: it may have diverged with what is measured.
    passed = passed & np.isfinite(limit)
    excess = np.where(np.isnan(found) | ~np.isfinite(limit), np.inf, excess)
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    return Check(
        what + _of_worst(found),
        f"{sign} {number(limit[worst])}",
        number(found[worst]),
        bool(passed.all()),
    )


def _excess(larger: np.ndarray, smaller: np.ndarray) -> np.ndarray:
    scale = np.maximum(np.maximum(np.abs(larger), np.abs(smaller)), 1e-300)
    with np.errstate(invalid="ignore"):
        return (larger - smaller) / scale


def _array(values: Any) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.size == 0:
        raise ValueError("nothing to compare: the array is empty")
    return array


def _of_worst(found: np.ndarray) -> str:
    return f" (worst of {found.size})" if found.size > 1 else ""


def number(value: Any) -> str:
    """Six significant digits; ``diverged`` for a number that is not finite.

    Example:
        >>> number(1 / 3), number(float("nan"))
        ('0.333333', 'diverged')
    """
    return f"{float(value):.6g}" if math.isfinite(value) else "diverged"
