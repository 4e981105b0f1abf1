"""Differences seed by seed, against SciPy; many of them together, against Holm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sam_jax.train.spread import Difference, Spread, significant


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(0, 3))
def test_as_scipy_computes_it(seed, pairs, alone):
    draw = np.random.default_rng(seed)
    mine, other = draw.normal(0.3, 1, (2, pairs + alone))
    # Seeds that only one of both has do not count.
    a = dict(enumerate(mine))
    b = dict(enumerate(other[:pairs]))
    found = Difference.of(a, b)
    expected = stats.ttest_rel(mine[:pairs], other[:pairs])
    assert found.spread.n == pairs
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert found.spread.mean - found.spread.half == pytest.approx(low)
    assert found.spread.mean + found.spread.half == pytest.approx(high)
    assert Difference.of(b, a).p == found.p


def test_no_test_without_pairs_or_without_a_spread():
    assert Difference.of({0: 1.0}, {1: 1.0}) is None
    assert Difference.of({0: 1.0}, {0: 3.0}) == (Spread(-2.0, None, 1), None)
    same = Difference.of({0: 0.1, 1: 0.4, 2: 0.7}, {0: 0.3, 1: 0.6, 2: 0.9})
    assert same.p is None and same.spread.half == pytest.approx(0, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.1), st.integers(3, 7)), max_size=8))
def test_holm(drawn):
    found = [Difference(Spread(1.0, 1.0, n), p) for p, n in drawn]
    allowed = sorted(p for p, n in drawn if n >= 5)
    for planned in (None, len(drawn) + 2):
        adjusted, largest = {}, 0.0
        for rank, p in enumerate(allowed):
            largest = max(largest, ((planned or len(drawn)) - rank) * p)
            adjusted.setdefault(p, largest)
        expected = [n >= 5 and adjusted[p] <= 0.05 for p, n in drawn]
        assert significant([None, *found], planned) == [False, *expected]
