import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax import checks, methods

NAN, INF = float("nan"), float("inf")
NO_NUMBERS = [None, "0.1", True, [0.1], np.ones(2), 1j, NAN, INF, -INF, 10**400]


@pytest.mark.parametrize("value", [0, 1, 0.05, np.float32(2), jnp.array(0.5)])
def test_nonnegative_takes_any_real_scalar(value):
    checks.nonnegative("rho", value)


@pytest.mark.parametrize("value", [*NO_NUMBERS, -1, -1e-9, jnp.array(-0.5)])
def test_nonnegative_refuses_the_rest(value):
    message = r"^rho must be a finite number >= 0 or a schedule, got "
    with pytest.raises(ValueError, match=message):
        checks.nonnegative("rho", value, schedule=True)
    with pytest.raises(checks.BadValue, match=message.replace(" or a schedule", "")):
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
        checks.between("lam", value, 0, 1, schedule=True)


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
    schedule = optax.constant_schedule(-1.0)
    for check, *bounds in (
        [checks.nonnegative],
        [checks.positive],
        [checks.finite],
        [checks.below_one],
        [checks.between, 0, 1],
    ):
        check("rho", schedule, *bounds, schedule=True)
        with pytest.raises(checks.BadValue, match=r"^rho must be a .*, not a schedule"):
            check("rho", schedule, *bounds)


@pytest.mark.parametrize("name", methods.names())
def test_a_floor_is_no_schedule(name):
    """It would fail at the first update, far from where it was written."""
    factory = methods.factory(name)
    is_optimizer = "learning_rate" in inspect.signature(factory).parameters
    required = {"learning_rate": 0.1} if is_optimizer else {}
    with pytest.raises(ValueError, match=r"eps must be a finite number >= 0, not a"):
        factory(eps=lambda count: 1e-12, **required)


@pytest.mark.parametrize("value", [3, 4, 2**31 - 1, np.int32(3), np.uint8(7)])
def test_integer_takes_any_large_enough(value):
    checks.integer("k", value, 3)


@pytest.mark.parametrize(
    "value", [*NO_NUMBERS[:-1], 2, -3, 3.0, np.float32(4), np.array([4])]
)
def test_integer_refuses_the_rest(value):
    with pytest.raises(ValueError, match=r"^k must be an integer >= 3, got "):
        checks.integer("k", value, 3)


def test_integer_is_no_schedule_no_boolean_and_not_traced():
    with pytest.raises(ValueError, match=r"^k must be an integer >= 0, got True"):
        checks.integer("k", True, 0)
    with pytest.raises(ValueError, match=r"^k must be an integer >= 1, got <function"):
        checks.integer("k", lambda count: 5, 1)

    def traced(value):
        checks.integer("k", value, 1)
        return value

    with pytest.raises(ValueError, match=r"^k must be a Python value, not an array"):
        jax.jit(traced)(5)


@pytest.mark.parametrize("value", ["filter", 2, 2.0, float("inf")])
def test_one_of_takes_those_allowed(value):
    checks.one_of("p", value, ("filter", 2, float("inf")))


@pytest.mark.parametrize(
    "value", ["Filter", "", "fil", 3, NAN, None, ["filter"], np.ones(2), lambda c: 2]
)
def test_one_of_refuses_the_rest_and_lists_those_allowed(value):
    message = r"^p must be one of 'filter', 2, inf, got "
    with pytest.raises(ValueError, match=message):
        checks.one_of("p", value, ("filter", 2, INF))


@pytest.mark.parametrize("value", [-1, 2**32, 1.5, "1", True])
def test_refuses_seeds(value):
    with pytest.raises(ValueError, match="seed must be"):
        checks.seed("seed", value)


def test_an_array_is_a_seed_but_no_static_value():
    checks.seed("seed", jnp.asarray(1))
    for check in (checks.integer, checks.one_of):
        with pytest.raises(ValueError, match=r"static_args=\('k',\)"):
            check("k", jnp.asarray(5), (1, 5) if check is checks.one_of else 1)


def test_inject_hyperparams_is_told_what_is_static():
    with pytest.raises(ValueError, match=r"static_args=\('k',\)"):
        optax.inject_hyperparams(sam_jax.looksam)(rho=0.1).init(jnp.ones(2))
