"""How a method differs from the usual one; read by the contract suite.

A test file ``test_<method>.py`` may define ``TRAITS = Traits(...)``.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax


def sgd(learning_rate):
    return optax.sgd(learning_rate, momentum=0.9)


class Traits(NamedTuple):
    """What the contract suite must know about a method.

    Attributes:
        base: learning rate -> what the method is at rho = 0; None if no optimizer.
        at_base: coefficients besides rho = 0 with which it is the base.
        exact: rho = 0 gives the bits of the base, not only its values (a method that
            recombines two gradients cannot).
        any_value: numeric coefficients for which negative values have a meaning.
        calls: evaluations of the loss in the first five updates, the caller's own
            included; None is five times the documented number of gradients.
        flops: of an update, in units of one gradient; None is the documented number.
        needs: keywords of the update whose absence is refused.
        unused_gradient: the diagnostics are of a gradient of the method's own (drawn,
            stored), not of the caller's.
        perturbed_call: which of the gradients that the method takes itself in an update
            is the one at the perturbed weights, as an index; the last, unless it looks
            elsewhere afterwards.
        examples: the method chooses among the examples of the batch.
        pair: whether there are two gradients to compare in the diagnostics.
        rate: learning rate with which it converges on the small objectives.
        settings: coefficients for the suite's runs, where the defaults will not do.
    """

    base: Callable[[float], optax.GradientTransformation] | None = sgd
    at_base: Mapping[str, Any] = {}
    exact: bool = True
    any_value: frozenset[str] = frozenset({"seed"})
    calls: int | None = None
    flops: float | None = None
    needs: tuple[str, ...] = ("params", "grad_fn")
    unused_gradient: bool = False
    perturbed_call: int = -1
    examples: bool = False
    pair: bool = True
    rate: float = 0.02
    settings: Mapping[str, Any] = {}


USUAL = Traits()


def has_test_file(name):
    return importlib.util.find_spec(f"tests.methods.test_{name}") is not None


def traits(name):
    """What the test file of a method says about it; the usual traits without a file."""
    if not has_test_file(name):
        return USUAL
    module = importlib.import_module(f"tests.methods.test_{name}")
    return getattr(module, "TRAITS", USUAL)
