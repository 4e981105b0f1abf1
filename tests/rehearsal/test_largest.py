"""The largest batch that fits."""

from hypothesis import given
from hypothesis import strategies as st

from sam_jax.rehearsal import processes


@given(st.integers(0, 5000))
def test_the_largest_batch_by_bisection(most):
    tried = []
    found = processes.largest(lambda share: tried.append(share) or share <= most)
    assert found == max((x for x in processes.SHARES if x <= most), default=None)
    assert len(tried) <= 6


@given(st.integers(0, 5000), st.integers(1, 300))
def test_a_number_that_is_refused_says_nothing_of_the_others(most, group):
    found = processes.largest(
        lambda share: share <= most if share % group == 0 else None
    )
    good = (x for x in processes.SHARES if x <= most and x % group == 0)
    assert found == max(good, default=None)
