"""What methods that take the step themselves share, with or without a base."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import core, devices, observations, trees

# An optimizer as a function of its learning rate, for methods that bring a step size.
Base = Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]


class FullOptimizer(optax.GradientTransformationExtraArgs):
    """A method that takes the step itself, learning rate and all."""


class WithBaseState(NamedTuple):
    """State of a full optimizer around a base.

    Attributes:
        count: updates done so far. Scalar, int32.
        ascent: state of the ascent.
        base: state of the base optimizer.
        diagnostics: what the last update saw; read it with `diagnostics`.
    """

    count: core.Count
    ascent: optax.OptState
    base: optax.OptState
    diagnostics: observations.Diagnostics


def full_optimizer(
    init: Callable[..., Any], update: Callable[..., tuple[optax.Updates, Any]]
) -> FullOptimizer:
    """As `core.transformation`, for a method that takes the step itself."""

    def update_fn(
        updates: optax.Updates, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[optax.Updates, Any]:
        # The step and what is kept are the same on all devices, the gradients are not.
        extra_args = devices.called_as(extra_args, params)
        if params is not None:
            updates = devices.vary_as(updates, params)
        return update(updates, state, devices.shared(params), **extra_args)

    return FullOptimizer(*trees.checked(init, update_fn))


def init_with_base(
    ascent: optax.GradientTransformation, base: optax.GradientTransformation
) -> Callable[[optax.Params], WithBaseState]:
    """Makes the init of a full optimizer around a base."""

    def init_fn(params: optax.Params) -> WithBaseState:
        return WithBaseState(
            count=jnp.zeros([], jnp.int32),
            ascent=ascent.init(params),
            base=base.init(params),
            diagnostics=observations.no_diagnostics(params),
        )

    return init_fn


def momentum_sgd(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformation:
    """SGD with momentum 0.9, the base of methods that bring their own step size."""
    return optax.sgd(learning_rate, momentum=0.9)


def make_base(
    base: Base, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    """The optimizer that a full optimizer wraps.

    Args:
        base: learning rate -> optimizer.
        learning_rate: step size, a number or a schedule.

    Returns:
        The optimizer, which takes all keywords.

    Raises:
        ValueError: if ``base`` is an optimizer already, or makes none.
    """
    made = base(learning_rate) if callable(base) else None
    if not isinstance(made, optax.GradientTransformation):
        raise checks.BadValue(
            "base must be a function from a learning rate to an optimizer, such as "
            "optax.sgd and not optax.sgd(0.1); to optax.inject_hyperparams give "
            'static_args=("base",)'
        )
    return optax.with_extra_args_support(made)
