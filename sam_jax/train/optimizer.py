"""From a configuration to one Optax chain: method, clipping, decay, optimizer."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from ml_collections import config_dict

from sam_jax import errors, methods
from sam_jax.methods import cadence, masks
from sam_jax.train import config as config_lib
from sam_jax.train import schedule


class OptState(NamedTuple):
    """What is kept from update to update.

    Attributes:
        method: state of the method; all groups of a batch keep the same.
        base: state of clipping, decay and the base optimizer.
    """

    method: optax.OptState
    base: optax.OptState


class Optimizer(NamedTuple):
    """What the step needs to update the weights.

    Attributes:
        method: gradient at the weights -> direction, with the keywords of a method; or
            -> updates, for a method that takes the step by itself.
        base: direction -> updates.
        learning_rate: the schedule, for the log.
        loss_decay: ``params -> scalar`` to add to the loss.
        eval_params: ``(OptState, params) -> params`` to evaluate.
    """

    method: optax.GradientTransformationExtraArgs
    base: optax.GradientTransformationExtraArgs
    learning_rate: optax.Schedule
    loss_decay: Callable[[optax.Params], jax.Array]
    eval_params: Callable[[OptState, optax.Params], optax.Params]

    def init(self, params: optax.Params) -> OptState:
        """The state before the first update."""
        return OptState(self.method.init(params), self.base.init(params))


def make_optimizer(config: config_lib.Config, steps_per_epoch: int) -> Optimizer:
    """Builds the chain in the order in which a direction passes through it.

    Args:
        config: of the run.
        steps_per_epoch: updates in an epoch.

    Returns:
        Method and base, their learning rate, the weight decay that belongs into the
        loss, and which weights to evaluate.

    Raises:
        UserError: if a name or a value is not allowed.
    """
    _check_averages(config)
    unit = schedule.Unit(steps_per_epoch, config.epochs * steps_per_epoch)
    learning_rate = schedule.make_schedule(config.schedule, config.learning_rate, unit)

    def base(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        # A method may call it with another count than the run's: so may the decay.
        decay = make_weight_decay(config.weight_decay, learning_rate)
        return optax.chain(
            make_clipping(config.clip_norm),
            decay.of_direction,
            make_base(config.optimizer, learning_rate),
            decay.of_updates,
        )

    method = make_method(config.method, unit, learning_rate)
    with_cadence = make_cadence(config.cadence, unit)
    takes = inspect.signature(method).parameters
    if "learning_rate" not in takes:
        parts = with_cadence(method()), base(learning_rate)
    else:
        parts = _full_optimizer(config, method, learning_rate, base)
    of_method, of_base = (_with_user_errors(x, config.method.name) for x in parts)
    return Optimizer(
        of_method,
        of_base,
        learning_rate,
        make_weight_decay(config.weight_decay, learning_rate).of_loss,
        eval_params(config.method, config.optimizer),
    )


def _check_averages(config: config_lib.Config) -> None:
    """Refuses a change of the weights that schedule-free averages would not see."""
    decay = config.weight_decay
    averages = config.optimizer.name.startswith("schedule_free")
    if averages and decay.value and decay.kind == "decoupled":
        raise errors.UserError(
            f"config.weight_decay.kind=decoupled moves the weights past "
            f"{config.optimizer.name}, which averages its own steps: set "
            "config.weight_decay.kind=gradient or loss"
        )


def _with_user_errors(
    tx: optax.GradientTransformation, method: str
) -> optax.GradientTransformationExtraArgs:
    """What a method refuses only when it sees the parameters, in one line."""
    tx = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> optax.OptState:
        try:
            return tx.init(params)
        except ValueError as error:
            raise errors.UserError(f"config.method ({method}): {error}") from error

    return optax.GradientTransformationExtraArgs(init, tx.update)


def describe(config: config_lib.Config) -> dict[str, str]:
    """Method, cadence and optimizer in words, for the head of a run's log.

    Args:
        config: of the run.

    Returns:
        ``method`` and ``optimizer``.
    """
    settings = {k: v for k, v in dict(config.method).items() if v is not None}
    method = _with_settings(settings.pop("name"), settings)
    cadence_name = config.cadence.name
    if cadence_name != ALWAYS:
        method += ", " + _with_settings(
            cadence_name, dict(config.cadence[cadence_name])
        )
    name = config.method.name
    takes_step = name in methods.names() and {"learning_rate", "weight_decay"} <= set(
        inspect.signature(methods.factory(name)).parameters
    )
    return {
        "method": method,
        "optimizer": f"{'its own' if takes_step else config.optimizer.name}, "
        f"learning rate {config.learning_rate:g} ({config.schedule.name}), weight "
        f"decay {config.weight_decay.value:g} ({config.weight_decay.kind})",
    }


def _with_settings(name: str, settings: Mapping[str, Any]) -> str:
    listed = ", ".join(f"{key} {value}" for key, value in sorted(settings.items()))
    return f"{name} ({listed})" if listed else name


def _full_optimizer(
    config: config_lib.Config,
    method: Callable[..., optax.GradientTransformation],
    learning_rate: optax.Schedule,
    base: Callable[[optax.ScalarOrSchedule], optax.GradientTransformation],
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """A method that takes the step by itself, around the base or instead of it.

    Returns:
        The method, and what is left for after it.
    """
    name = config.method.name
    if config.cadence.name != ALWAYS:
        raise errors.UserError(
            f"config.cadence.name={config.cadence.name} needs a method that only turns "
            f"the gradient; {name} takes the step by itself: set "
            f"config.cadence.name={ALWAYS}"
        )
    if "base" in inspect.signature(method).parameters:
        return method(learning_rate=learning_rate, base=base), optax.identity()
    if config.clip_norm is not None:
        raise errors.UserError(
            f"{name} takes the step by itself and clips nothing: set "
            "config.clip_norm=None"
        )
    decay = config.weight_decay
    if decay.value and decay.exclude_bias_and_norm and decay.kind == "gradient":
        raise errors.UserError(
            f"{name} takes the step by itself and decays every parameter: set "
            "config.weight_decay.exclude_bias_and_norm=False, or "
            "config.weight_decay.kind=loss"
        )
    own = decay.value if decay.kind == "gradient" else 0.0
    of_updates = make_weight_decay(decay, learning_rate).of_updates
    return method(learning_rate=learning_rate, weight_decay=own), of_updates


# ── Method ───────────────────────────────────────────────────────────────────────────


def make_method(
    settings: config_lib.Config,
    unit: schedule.Unit,
    learning_rate: optax.Schedule | None = None,
) -> Callable[..., optax.GradientTransformation]:
    """A method from ``config.method``; the identity for the plain base optimizer.

    A coefficient that is a mapping is a schedule: ``value`` is its highest value, the
    other keys are those of ``config.schedule``. With the name ``learning_rate`` it
    follows the learning rate, from ``value`` down to ``low``.

    Args:
        settings: name and coefficients.
        unit: length of an epoch and of the run, for schedules.
        learning_rate: of the run.

    Returns:
        Makes an element for the front of a chain; for a method that takes the step by
        itself, a full optimizer from ``learning_rate`` and what else it has a parameter
        for.

    Raises:
        UserError: if the method, a coefficient's name or its value is not allowed.

    Example:
        >>> rho = {"name": "constant", "value": 0.1, "warmup_epochs": 1}
        >>> tx = make_method({"name": "sam", "rho": rho}, schedule.Unit(10, 100))()
    """
    coefficients = dict(settings)
    name = coefficients.pop("name")
    if name == config_lib.BASELINE:
        return optax.identity
    allowed = config_lib.default_coefficients(name)
    for key in coefficients:
        if key not in allowed:
            message = errors.unknown(f"setting of {name}", key, allowed)
            raise errors.UserError(f"{message}; a card's :{name} suffix sets them all")
    mask = _mask(coefficients.pop("mask", None))
    factory = methods.factory(name)

    @functools.wraps(factory)
    def make(**others: Any) -> optax.GradientTransformation:
        try:
            return factory(
                **{
                    key: _coefficient(key, value, unit, learning_rate)
                    for key, value in coefficients.items()
                },
                mask=mask,
                **others,
            )
        except (TypeError, ValueError) as error:
            raise errors.UserError(f"config.method ({name}): {error}") from error

    return make


def _coefficient(
    name: str, value: Any, unit: schedule.Unit, learning_rate: optax.Schedule | None
) -> Any:
    if not isinstance(value, Mapping | config_dict.ConfigDict):
        return value
    spec = dict(value)
    if "value" not in spec or "name" not in spec:
        raise ValueError(
            "a coefficient's schedule needs 'name' and 'value' (its highest value), "
            f"got {spec!r}"
        )
    peak = spec.pop("value")
    if spec["name"] == "learning_rate" and learning_rate is not None:
        return schedule.tied(spec, peak, learning_rate, unit)
    return schedule.make_schedule(spec, peak, unit, f"config.method.{name}.value")


MASKS: Mapping[str, Callable[[optax.Params], Any]] = {
    "norm_layers": masks.norm_layers_mask,
    "weights": masks.weights_mask,
}


def _mask(name: str | None) -> Callable[[optax.Params], Any] | None:
    if name is None:
        return None
    if name not in MASKS:
        raise errors.UserError(errors.unknown("config.method.mask", name, MASKS))
    return MASKS[name]


# ── Cadence ──────────────────────────────────────────────────────────────────────────

ALWAYS = "always"


def make_cadence(
    settings: config_lib.Config, unit: schedule.Unit
) -> Callable[[optax.GradientTransformation], optax.GradientTransformation]:
    """In which updates the method is used, from ``config.cadence``.

    Args:
        settings: a name, and the settings of each cadence under its name.
        unit: length of the run.

    Returns:
        Wraps a method.

    Raises:
        UserError: if the name or a value is not allowed.
    """
    name = settings.name
    if name not in _CADENCES:
        raise errors.UserError(errors.unknown("config.cadence.name", name, _CADENCES))
    options = dict(settings.get(name, {}))

    def wrap(method: optax.GradientTransformation) -> optax.GradientTransformation:
        try:
            return _CADENCES[name](method, unit, **options)
        except (TypeError, ValueError) as error:
            raise errors.UserError(f"config.cadence.{name}: {error}") from error

    return wrap


def _late_phase(
    method: optax.GradientTransformation,
    unit: schedule.Unit,
    start: float,
    stop: float,
) -> optax.GradientTransformation:
    for key, share in {"start": start, "stop": stop}.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{key} must be a share of the run in [0, 1], got {share}")
    first, last = (round(share * unit.total_steps) for share in (start, stop))
    return cadence.late_phase(method, first, last)


_CADENCES: Mapping[str, Callable[..., optax.GradientTransformation]] = {
    ALWAYS: lambda method, unit: method,
    "every_k": lambda method, unit, k: cadence.every_k(method, k),
    "late_phase": _late_phase,
    "stochastic": lambda method, unit, probability: cadence.stochastic(
        method, probability
    ),
}


# ── Weights to evaluate ──────────────────────────────────────────────────────────────


def eval_params(
    method: config_lib.Config, optimizer: config_lib.Config
) -> Callable[[optax.OptState, optax.Params], optax.Params]:
    """Which weights to evaluate, for methods and optimizers that train others.

    Args:
        method: ``config.method``.
        optimizer: ``config.optimizer``.

    Returns:
        ``(state of the chain, params) -> params``.
    """
    of_method = methods.eval_params(method.name)
    if of_method is not None:
        return of_method
    if optimizer.name.startswith("schedule_free"):
        return schedule_free_eval_params
    return lambda state, params: params


def schedule_free_eval_params(
    state: optax.OptState, params: optax.Params
) -> optax.Params:
    """Those of ``optax.contrib.schedule_free``, anywhere in a chain."""

    def found(node: Any) -> bool:
        return isinstance(node, optax.contrib.ScheduleFreeState)

    [inner] = [x for x in jax.tree.leaves(state, is_leaf=found) if found(x)]
    return optax.contrib.schedule_free_eval_params(inner, params)


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
    settings: config_lib.Config, learning_rate: optax.ScalarOrSchedule
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
    mask = masks.weights_mask if settings.exclude_bias_and_norm else all_mask
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


def all_mask(params: optax.Params) -> Any:
    """True for every parameter."""
    return jax.tree.map(lambda _: True, params)


def _decoupled(
    add: optax.GradientTransformation, learning_rate: optax.ScalarOrSchedule
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
    settings: config_lib.Config, learning_rate: optax.ScalarOrSchedule
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
    "sm3": "takes a number as learning rate, no schedule",
    "sophia": "needs the loss as a function, for its Hessian",
}
