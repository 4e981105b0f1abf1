"""How a method differs from the usual one; read by the contract suite.

A test file ``test_<method>.py`` may define ``TRAITS = Traits(...)``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax


def sgd(learning_rate):
    return optax.sgd(learning_rate, momentum=0.9)


class Traits(NamedTuple):
    """What the contract suite must know about a method.

    Attributes:
        base: learning rate -> what the method is at rho = 0; None if no optimizer.
        exact: rho = 0 gives the bits of the base, not only its values (a method that
            recombines two gradients cannot).
        any_value: numeric coefficients for which negative values have a meaning.
        calls: evaluations of the loss in the first five updates, the caller's own
            included; None is five times the documented number of gradients.
        flops: of an update, in units of one gradient; None is the documented number.
        needs: keywords of the update whose absence is refused.
        unused_gradient: the caller's gradient is not used, not even for diagnostics.
        examples: the method chooses among the examples of the batch.
        pair: whether there are two gradients to compare in the diagnostics.
        rate: learning rate with which it converges on the small objectives.
        settings: coefficients for the suite's runs, where the defaults will not do.
    """

    base: Callable[[float], optax.GradientTransformation] | None = sgd
    exact: bool = True
    any_value: frozenset[str] = frozenset({"seed"})
    calls: int | None = None
    flops: float | None = None
    needs: tuple[str, ...] = ("params", "grad_fn")
    unused_gradient: bool = False
    examples: bool = False
    pair: bool = True
    rate: float = 0.02
    settings: Mapping[str, Any] = {}
