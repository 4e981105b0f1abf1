"""From a configuration to one Optax chain: method, clipping, decay, optimizer."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from ml_collections import config_dict

from sam_jax import errors, methods
from sam_jax.train import config as config_lib
from sam_jax.train import schedule


class Optimizer(NamedTuple):
    """What the step needs to update the weights.

    Attributes:
        tx: gradient at the weights -> updates, with the keywords of a method.
        learning_rate: the schedule, for the log.
        loss_decay: ``params -> scalar`` to add to the loss.
    """

    tx: optax.GradientTransformationExtraArgs
    learning_rate: optax.Schedule
    loss_decay: Callable[[optax.Params], jax.Array]


def make_optimizer(config: config_lib.Config, steps_per_epoch: int) -> Optimizer:
    """Builds the chain in the order in which a direction passes through it.

    Args:
        config: of the run.
        steps_per_epoch: updates in an epoch.

    Returns:
        The chain, its learning rate and the weight decay that belongs into the loss.

    Raises:
        UserError: if a name or a value is not allowed.
    """
    unit = schedule.Unit(steps_per_epoch, config.epochs * steps_per_epoch)
    learning_rate = schedule.make_schedule(config.schedule, config.learning_rate, unit)
    decay = make_weight_decay(config.weight_decay, learning_rate)
    tx = optax.chain(
        make_method(config.method, unit),
        make_clipping(config.clip_norm),
        decay.of_direction,
        make_base(config.optimizer, learning_rate),
        decay.of_updates,
    )
    return Optimizer(tx, learning_rate, decay.of_loss)


# ── Method ───────────────────────────────────────────────────────────────────────────


def make_method(
    settings: config_lib.Config, unit: schedule.Unit
) -> optax.GradientTransformation:
    """A method from ``config.method``; the identity for the plain base optimizer.

    A coefficient that is a mapping is a schedule: ``value`` is its highest value, the
    other keys are those of ``config.schedule``.

    Args:
        settings: name and coefficients.
        unit: length of an epoch and of the run, for schedules.

    Returns:
        An element for the front of a chain.

    Raises:
        UserError: if the method, a coefficient's name or its value is not allowed.

    Example:
        >>> rho = {"name": "constant", "value": 0.1, "warmup_epochs": 1}
        >>> tx = make_method({"name": "sam", "rho": rho}, schedule.Unit(10, 100))
    """
    coefficients = dict(settings)
    name = coefficients.pop("name")
    if name == config_lib.BASELINE:
        return optax.identity()
    allowed = config_lib.default_coefficients(name)
    for key in coefficients:
        if key not in allowed:
            message = errors.unknown(f"setting of {name}", key, allowed)
            raise errors.UserError(f"{message}; a card's :{name} suffix sets them all")
    try:
        return methods.factory(name)(
            **{k: _coefficient(k, v, unit) for k, v in coefficients.items()}
        )
    except (TypeError, ValueError) as error:
        raise errors.UserError(f"config.method ({name}): {error}") from error


def _coefficient(name: str, value: Any, unit: schedule.Unit) -> Any:
    if not isinstance(value, Mapping | config_dict.ConfigDict):
        return value
    spec = dict(value)
    if "value" not in spec or "name" not in spec:
        raise ValueError(
            "a coefficient's schedule needs 'name' and 'value' (its highest value), "
            f"got {spec!r}"
        )
    peak = spec.pop("value")
    return schedule.make_schedule(spec, peak, unit, f"config.method.{name}.value")


# ── Clipping and weight decay ────────────────────────────────────────────────────────


def make_clipping(clip_norm: float | None) -> optax.GradientTransformation:
    """Clips the global norm of the method's direction; ``None`` is off.

    Raises:
        UserError: if ``clip_norm`` is not above zero.
    """
    if clip_norm is None:
        return optax.identity()
    if not 0 < clip_norm < float("inf"):
        raise errors.UserError(
            f"config.clip_norm must be a finite number > 0 or None, got {clip_norm!r}"
        )
    return optax.clip_by_global_norm(clip_norm)


class WeightDecay(NamedTuple):
    """One of the three is the decay, the others do nothing."""

    of_loss: Callable[[optax.Params], jax.Array]
    of_direction: optax.GradientTransformation
    of_updates: optax.GradientTransformation


def make_weight_decay(
    settings: config_lib.Config, learning_rate: optax.Schedule
) -> WeightDecay:
    """Weight decay of one of the kinds of ``config.weight_decay``.

    Args:
        settings: value, kind and which parameters.
        learning_rate: of the run, for decoupled decay.

    Returns:
        The decay in its place.

    Raises:
        UserError: if the kind is unknown or the value negative.
    """
    value = settings.value
    if not 0 <= value < float("inf"):
        raise errors.UserError(
            f"config.weight_decay.value must be a finite number >= 0, got {value!r}"
        )
    mask = weights_mask if settings.exclude_bias_and_norm else all_mask
    add = optax.add_decayed_weights(value, mask) if value else optax.identity()
    off = WeightDecay(lambda _: jnp.zeros([]), optax.identity(), optax.identity())
    kinds = {
        "gradient": off._replace(of_direction=add),
        "decoupled": off._replace(of_updates=_decoupled(add, learning_rate)),
        "loss": off._replace(of_loss=_half_squared_norm(value, mask)),
    }
    if settings.kind not in kinds:
        raise errors.UserError(
            errors.unknown("config.weight_decay.kind", settings.kind, kinds)
        )
    return kinds[settings.kind] if value else off


def weights_mask(params: optax.Params) -> Any:
    """True for weights, which have two or more dimensions; not for bias and norm."""
    return jax.tree.map(lambda w: jnp.ndim(w) >= 2, params)


def all_mask(params: optax.Params) -> Any:
    """True for every parameter."""
    return jax.tree.map(lambda _: True, params)


def _decoupled(
    add: optax.GradientTransformation, learning_rate: optax.Schedule
) -> optax.GradientTransformation:
    """Adds ``-learning_rate * value * w`` to finished updates."""
    decay = optax.chain(
        optax.set_to_zero(), add, optax.scale_by_learning_rate(learning_rate)
    )

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, optax.OptState]:
        decays, state = decay.update(updates, state, params)
        return optax.tree.add(updates, decays), state

    return optax.GradientTransformation(decay.init, update_fn)


def _half_squared_norm(
    value: float, mask: Callable[[optax.Params], Any]
) -> Callable[[optax.Params], jax.Array]:
    def loss(params: optax.Params) -> jax.Array:
        kept = jax.tree.map(
            lambda w, keep: jnp.sum(jnp.square(w)) if keep else 0.0,
            params,
            mask(params),
        )
        return value / 2 * jnp.asarray(optax.tree.sum(kept))

    return loss


# ── Base optimizer ───────────────────────────────────────────────────────────────────


def make_base(
    settings: config_lib.Config, learning_rate: optax.Schedule
) -> optax.GradientTransformation:
    """An optimizer of Optax by its name, with the settings under that name, if any.

    Args:
        settings: ``config.optimizer``.
        learning_rate: of the run.

    Returns:
        The optimizer.

    Raises:
        UserError: if Optax has no such optimizer, or it has no such setting.
    """
    known = optimizers()
    name = settings.name
    if name not in known:
        raise errors.UserError(errors.unknown("optimizer", name, known))
    options = dict(settings[name]) if name in settings else {}
    allowed = list(inspect.signature(known[name]).parameters)[1:]
    for key in options:
        if key not in allowed:
            raise errors.UserError(errors.unknown(f"setting of {name}", key, allowed))
    try:
        return known[name](learning_rate, **options)
    except (TypeError, ValueError) as error:
        raise errors.UserError(f"config.optimizer.{name}: {error}") from error


def optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Every optimizer of Optax and ``optax.contrib`` that needs a learning rate only.

    Those in ``_UNFIT`` are none of them.

    Example:
        >>> {"sgd", "adamw", "lion", "lars", "muon"} <= optimizers().keys()
        True
    """
    found = {}
    for module in (optax.contrib, optax):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            first = next(iter(inspect.signature(function).parameters), None)
            public = not name.startswith(("_", "scale_by_"))
            if public and first == "learning_rate" and name not in _UNFIT:
                found[name] = function
    return found


# Optimizers of Optax that the trainer cannot drive, and why.
_UNFIT = {
    "dpsgd": "needs the gradient of each example",
    "lbfgs": "its line search evaluates the loss by itself",
    "noisy_sgd": "needs a PRNG key, which no configuration can hold",
    "optimistic_adam": "deprecated for optimistic_adam_v2",
    "rprop": "takes a number as learning rate, no schedule",
    "schedule_free_adamw": "evaluates other weights than it trains",
    "schedule_free_sgd": "evaluates other weights than it trains",
    "sm3": "takes a number as learning rate, no schedule",
    "sophia": "needs the loss as a function, for its Hessian",
}
