"""Which cases of a test are in the fast tier, and why the others are slow."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def cases(fast: Collection[Any], every: Iterable[Any], why: str) -> list[Any]:
    """Cases for ``parametrize``: all, those that are not in ``fast`` marked as slow."""
    slow = pytest.mark.slow(why)

    def case(each):
        if each in fast:
            return each
        return pytest.param(*(each if type(each) is tuple else (each,)), marks=slow)

    return [case(each) for each in every]
