"""A method from its settings, and which weights it wants evaluated."""

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import optax
import optax.contrib

from sam_jax import methods, plugins
from sam_jax.methods import masks, trees
from sam_jax.train import base, coefficients, mistakes, schedule, settings


def make_method(
    method: coefficients.Method,
    unit: schedule.Unit,
    learning_rate: optax.Schedule,
) -> Callable[..., optax.GradientTransformation]:
    """A method; the identity for the plain base optimizer.

    Args:
        method: name and coefficients.
        unit: length of an epoch and of the run, for schedules.
        learning_rate: of the run, for coefficients that follow it.

    Returns:
        Makes an element for the front of a chain; for a method that takes the step
        itself, a full optimizer from ``learning_rate`` and what else it has a parameter
        for.

    Raises:
        UserError: if the value of a coefficient is not allowed; also when the method is
            made.

    Example:
        >>> sam = coefficients.Method.read({"name": "sam", "rho": 0.1}, "config.method")
        >>> tx = make_method(sam, schedule.Unit(10, 100), optax.constant_schedule(1))()
    """
    if method.name == coefficients.BASELINE:
        return optax.identity
    given = {
        key: coefficient(key, value, unit, learning_rate)
        for key, value in method.coefficients.items()
    }
    factory = coefficients.factory(method.name)

    @functools.wraps(factory)
    def make(**others: Any) -> optax.GradientTransformation:
        with mistakes_of(method):
            made = factory(**given, **others)
        return base.transformation(made, f"config.method.name ({method.name})")

    return make


def mistakes_of(method: coefficients.Method) -> AbstractContextManager[None]:
    """Turns what a method refuses into one sentence about its settings."""
    names = {key: f"config.method.{key}" for key in method.coefficients}
    return mistakes.in_settings(f"config.method ({method.name})", names)


def takes_step(name: str) -> bool:
    """Whether a method is an optimizer of its own, without a base."""
    if name == coefficients.BASELINE:
        return False
    parameters = inspect.signature(coefficients.factory(name)).parameters
    return "learning_rate" in parameters and "base" not in parameters


MASKS: Mapping[coefficients.Mask, Callable[[optax.Params], Any]] = {
    "norm_layers": masks.norm_layers_mask,
    "weights": masks.weights_mask,
}


def coefficient(
    key: str, value: Any, unit: schedule.Unit, learning_rate: optax.Schedule
) -> Any:
    """A coefficient as the factory of the method takes it."""
    if key == "mask" and value is not None:
        return MASKS[value]
    if not isinstance(value, coefficients.Scheduled):
        return value
    setting = f"config.method.{key}"
    match value.schedule:
        case coefficients.Tied(low):
            return schedule.tied(low, value.value, learning_rate, unit, setting)
        case kind:
            return schedule.make_schedule(kind, value.value, unit, setting)


def eval_params(
    method: coefficients.Method, optimizer: settings.Optimizer
) -> Callable[[Any, optax.Params], optax.Params]:
    """Which weights to evaluate, for methods and optimizers that train others.

    An ``optax.contrib.schedule_free`` is found wherever it is in the base's state, also
    in an optimizer of the user's.

    Returns:
        ``(state of method and base, params) -> params``.
    """
    of_method = methods.eval_params(method.name)
    if plugins.is_reference(method.name):
        of_method = plugins.find(f"{method.name}_eval_params")
    own = plugins.is_reference(optimizer.name)
    if of_method is None and not (own or optimizer.name.startswith("schedule_free")):
        return as_trained

    def evaluated(state: Any, params: optax.Params) -> optax.Params:
        if of_method is not None:
            params = of_method(state, params)
        for inner in trees.nodes(state, optax.contrib.ScheduleFreeState):
            # Behind optax.masked it has some of the weights only.
            z = jax.tree.map(
                lambda w, z: w if isinstance(z, optax.MaskedNode) else z,
                *(params, inner.z),
            )
            inner = inner._replace(z=z)
            params = optax.contrib.schedule_free_eval_params(inner, params)
        return params

    return evaluated


def as_trained(state: Any, params: optax.Params) -> optax.Params:
    """The weights themselves, whatever the state of method and base."""
    del state
    return params
