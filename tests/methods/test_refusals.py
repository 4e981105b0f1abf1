"""Coefficients outside of their range, by the message that says what is allowed.

Negative, infinite and other numbers that no coefficient takes are in the contract.
"""

import pytest

from tests.methods.contract.cases import method

NAN, INF = float("nan"), float("inf")
INTEGER = "must be an integer >= 1, got "
INTERVAL = r"must be a number in \[0, 1\]"


def schedule(count):
    return 1


CASES = [
    ("adam_sam", "b1", [-0.1, 1.0], r"must be a number in \[0, 1\), got "),
    ("adam_sam", "b2", [-0.1, 1.0], r"must be a number in \[0, 1\), got "),
    ("ae_sam", "threshold", [NAN, INF, "?", None], "must be a finite number or"),
    ("asam", "p", [1, 0, -1, "2", NAN, None, [2]], "must be one of 2, inf, got "),
    ("async_sam", "delay", [-1, 0.5, True, schedule], "must be an integer >= 0, got"),
    ("bsam", "num_examples", [0, 2.5, "many"], INTEGER),
    (
        "decoupled_wsam",
        "learning_rate",
        [-0.1, NAN, None],
        "must be a finite number >= 0",
    ),
    ("dynamic_sparse_sam", "every", [0, 2.5, schedule], INTEGER),
    ("esam", "beta", [0, 1.5], "must be a .*number .*, got "),
    ("esam", "gamma", [0, 1.5], "must be a .*number .*, got "),
    ("gnp", "alpha", [-0.1, 1.1], INTERVAL),
    (
        "momentum_sam",
        "learning_rate",
        [-0.1, NAN, None],
        "must be a finite number >= 0",
    ),
    ("multistep_sam", "steps", [0, 1.5, True, schedule], INTEGER),
    (
        "random_sam",
        "noise",
        ["Filter", "", None, 1],
        "must be one of 'filter', 'tensor', 'plain', got ",
    ),
    ("sam_sps", "f_min", [NAN, INF, -INF, "0"], "must be a finite number or .*, got "),
    ("sparse_sam", "num_samples", [0, 2.5, True, schedule], INTEGER),
    ("sparse_sam", "every", [0, 2.5, True, schedule], INTEGER),
    ("unified_sam", "lam", ["1/T", "t", ""], "must be .*one of '1/t', '1-1/t', got '"),
    ("vasso", "lam", ["1/T"], "must be .*one of '1/t', '1-1/t', got '"),
    ("sam_sps", "lam", ["1/T"], "must be .*one of '1/t', '1-1/t', got '"),
    ("unified_sam", "lam", [-0.1, 1.1, NAN, None], INTERVAL),
    ("vasso", "theta", [-0.1, 1.1, None], INTERVAL),
    ("vasso", "lam", [-0.1, 1.1, None], INTERVAL),
    ("wsam", "gamma", [1, 1.5, -0.1, 0.99999999], r"must be a number in \[0, 1\) or"),
]


@pytest.mark.parametrize("name, coefficient, values, message", CASES)
def test_is_refused(name, coefficient, values, message):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{coefficient} {message}"):
            method(name, **{coefficient: value})
