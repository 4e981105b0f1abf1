import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_jax import checks, data

rates = st.floats(0, 1, exclude_max=True, width=32)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 200), rates, st.integers(2, 12), st.integers(0, 2**40))
def test_exactly_the_share_of_labels_is_wrong(num_examples, rate, num_classes, seed):
    labels = (np.arange(num_examples) % num_classes).astype(np.int32)
    before = labels.copy()
    noisy = data.symmetric_noise(labels, rate, num_classes=num_classes, seed=seed)
    assert (noisy != labels).sum() == round(rate * num_examples)
    assert noisy.dtype == np.int32
    assert ((noisy >= 0) & (noisy < num_classes)).all()
    np.testing.assert_array_equal(labels, before)


def test_every_other_class_is_equally_likely():
    labels = np.full(9000, 3, np.int32)
    noisy = data.symmetric_noise(labels, 0.999999, num_classes=10, seed=1)
    counts = np.bincount(noisy, minlength=10)
    assert counts[3] == 0
    # 1000 each, standard deviation 30.
    assert np.delete(counts, 3).min() > 850
    assert np.delete(counts, 3).max() < 1150


def test_the_seed_decides():
    labels = np.zeros(100, np.int32)

    def noisy(seed):
        return tuple(data.symmetric_noise(labels, 0.5, num_classes=5, seed=seed))

    assert noisy(0) == noisy(0)
    assert noisy(0) != noisy(1)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2, float("nan")])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(checks.BadValue, match=r"rate must be .* \[0, 1\)"):
        data.symmetric_noise(np.zeros(3, np.int32), rate, num_classes=2, seed=0)


def test_one_class_has_no_other():
    with pytest.raises(checks.BadValue, match="num_classes must be an integer >= 2"):
        data.symmetric_noise(np.zeros(3, np.int32), 0.5, num_classes=1, seed=0)
