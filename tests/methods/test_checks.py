import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sam_jax import methods
from sam_jax.methods import checks

NAN, INF = float("nan"), float("inf")
NO_NUMBERS = [None, "0.1", True, [0.1], np.ones(2), 1j, NAN, INF, -INF, 10**400]


@pytest.mark.parametrize("value", [0, 1, 0.05, np.float32(2), jnp.array(0.5)])
def test_nonnegative_takes_any_real_scalar(value):
    checks.nonnegative("rho", value)


@pytest.mark.parametrize("value", [*NO_NUMBERS, -1, -1e-9, jnp.array(-0.5)])
def test_nonnegative_refuses_the_rest(value):
    message = r"^rho must be a finite number >= 0 or a schedule, got "
    with pytest.raises(ValueError, match=message):
        checks.nonnegative("rho", value)


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, -1])
def test_positive_refuses_zero_as_well(value):
    with pytest.raises(ValueError, match=r"^theta must be a finite number > 0"):
        checks.positive("theta", value)


def test_positive_takes_a_positive_number():
    checks.positive("theta", 1e-30)


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_between_takes_the_closed_interval(value):
    checks.between("lam", value, 0, 1)


@pytest.mark.parametrize("value", [*NO_NUMBERS, -0.01, 1.01])
def test_between_refuses_the_rest(value):
    with pytest.raises(ValueError, match=r"^lam must be a number in \[0, 1\] or a sch"):
        checks.between("lam", value, 0, 1)


def test_the_message_has_the_value():
    with pytest.raises(ValueError, match=r"got -0\.25$"):
        checks.nonnegative("rho", -0.25)


def test_values_that_are_not_known_yet_pass():
    def traced(value):
        checks.nonnegative("rho", value)
        checks.positive("theta", value)
        checks.between("lam", value, 0, 1)
        return value

    assert jax.jit(traced)(-1.0) == -1
    for check in (checks.nonnegative, checks.positive):
        check("rho", optax.constant_schedule(-1.0))
    checks.between("lam", optax.constant_schedule(-1.0), 0, 1)


@pytest.mark.parametrize("name", methods.names())
def test_a_floor_is_no_schedule(name):
    """It would fail at the first update, far from where it was written."""
    with pytest.raises(ValueError, match="eps must be a finite number >= 0, not a"):
        methods.factory(name)(eps=lambda count: 1e-12)
