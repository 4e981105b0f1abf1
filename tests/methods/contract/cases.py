"""The methods of the library, as the contract's tests go through them.

A test of the contract is parametrised by `every_method`. For every method the first
tier runs what costs milliseconds or takes the one compiled step. What needs a program
of its own it runs for few methods, chosen by structure (a plain chain, an average, a
branch, a mask, a full optimizer), which decides what can go wrong there. The second
tier runs everything for all.
"""

import functools

import pytest

from sam_jax import methods, testing
from sam_jax.testing.coefficients import unjitted
from sam_jax.testing.contract import gradient_at, mixed_precision
from sam_jax.testing.method import (
    assert_close,
    assert_equal,
    assert_finite,
    signature_of,
    to_numpy,
)
from tests.methods.traits import sgd, traits

__all__ = [
    "assert_close",
    "assert_equal",
    "assert_finite",
    "gradient_at",
    "mixed_precision",
    "signature_of",
    "to_numpy",
    "unjitted",
]


def every_method(*fast, why="a compilation for each method"):
    """Parametrises by all methods; with ``fast``, the others are in the second tier.

    Stands next to the function, so that an id begins with the method's name.
    """
    slow = [pytest.mark.slow(why)]
    return pytest.mark.parametrize(
        "name",
        [
            pytest.param(name, marks=slow if fast and name not in fast else [])
            for name in methods.names()
        ],
    )


def on_devices(fast, few=2, many=8):
    """By method and number of devices: all on many devices are the second tier."""
    slow = pytest.mark.slow("programs for many devices, of every method")
    return pytest.mark.parametrize(
        "name, devices",
        [pytest.param(name, few, id=f"{name}-{few}") for name in fast]
        + [
            pytest.param(name, many, id=f"{name}-{many}", marks=slow)
            for name in methods.names()
        ],
    )


@functools.cache
def of(name):
    """A method under test."""
    factory, eval_params = methods.factory(name), methods.eval_params(name)
    return testing.Method(factory, traits(name), eval_params)


def parameters(name):
    return of(name).parameters


def is_optimizer(name):
    """Whether a method brings its own step size and base, instead of a direction."""
    return of(name).is_optimizer


def skip_optimizer(name):
    if is_optimizer(name):
        pytest.skip("brings its own base optimizer")


def method(name, *args, **coefficients):
    return of(name).make(*args, **coefficients)


def optimizer(name, learning_rate=0.1, base=sgd, **coefficients):
    return of(name).optimizer(learning_rate, base, **coefficients)


def run(name, *args, **arguments):
    return of(name).run(*args, **arguments)


def schedulable(name):
    return of(name).schedulable()
