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


# Of each check: further arguments, what it takes, what it refuses, and its words.
CHECKS = {
    "nonnegative": (
        (),
        [0, 1, 0.05, np.float32(2), jnp.array(0.5)],
        [*NO_NUMBERS, -1, -1e-9, jnp.array(-0.5)],
        "a finite number >= 0",
    ),
    "positive": ((), [1e-30], [*NO_NUMBERS, 0, -1, 1e-40], "a finite number > 0"),
    "below_one": (
        (),
        [0, 0.5, 0.9999999],
        [*NO_NUMBERS, -0.01, 1, 0.99999999],  # in float32 the last is one
        r"a number in \[0, 1\)",
    ),
    "between": (
        (0, 1),
        [0, 0.5, 1],
        [*NO_NUMBERS, -0.01, 1.01],
        r"a number in \[0, 1\]",
    ),
    "integer": (
        (3,),
        [3, 4, 2**31 - 1, np.int32(3), np.uint8(7)],
        [*NO_NUMBERS[:-1], 2, -3, 3.0, np.float32(4), np.array([4])],
        "an integer >= 3",
    ),
    "one_of": (
        (("filter", 2, INF),),
        ["filter", 2, 2.0, INF],
        ["Filter", "", "fil", 3, NAN, None, ["filter"], np.ones(2), lambda c: 2],
        "one of 'filter', 2, inf",
    ),
    "seed": ((), [0, 2**32 - 1, jnp.asarray(1)], [-1, 2**32, 1.5, "1", True], "an"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_takes_what_is_in_range_and_refuses_the_rest(name):
    further, good, bad, words = CHECKS[name]
    check = getattr(checks, name)
    for value in good:
        check("x", value, *further)
    for value in bad:
        with pytest.raises(checks.BadValue, match=rf"^x must be {words}.*got "):
            check("x", value, *further)
        if name in ("nonnegative", "positive", "between"):
            with pytest.raises(ValueError, match=rf"^x must be {words} or a schedule"):
                check("x", value, *further, schedule=True)


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


def test_an_array_is_no_static_value():
    for check in (checks.integer, checks.one_of):
        with pytest.raises(ValueError, match=r"static_args=\('k',\)"):
            check("k", jnp.asarray(5), (1, 5) if check is checks.one_of else 1)


def test_inject_hyperparams_is_told_what_is_static():
    with pytest.raises(ValueError, match=r"static_args=\('k',\)"):
        optax.inject_hyperparams(sam_jax.looksam)(rho=0.1).init(jnp.ones(2))
