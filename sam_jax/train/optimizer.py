"""From the settings of a run to its optimizer: method, clipping, decay, base."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from sam_jax import errors
from sam_jax.methods import observations
from sam_jax.train import base, cadence, decay, method, rates, schedule, settings, typed


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
            -> updates, for a method that takes the step itself.
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


def make_optimizer(config: settings.Settings, steps_per_epoch: int) -> Optimizer:
    """Builds the parts in the order in which a direction passes through them.

    Returns:
        Method and base, their learning rate, the weight decay that belongs in the
        loss, and which weights to evaluate.
    """
    _check_averages(config)
    unit = schedule.Unit(steps_per_epoch, config.epochs * steps_per_epoch)
    if unit.total_steps >= 2**31:
        raise errors.UserError(
            f"config.epochs={config.epochs} of {steps_per_epoch} updates are more than "
            f"int32 counts: take at most {(2**31 - 1) // steps_per_epoch}"
        )
    learning_rate = schedule.make_schedule(config.schedule, config.learning_rate, unit)
    clip_norm = config.clip_norm
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    factors = []
    if config.learning_rate_factors is not None:
        factors = [rates.scaled_by_name(config.learning_rate_factors)]

    def make_base(rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        # A method may call it with another count than the run's: so may the decay.
        decayed = decay.make_decay(config.weight_decay, rate)
        return optax.chain(
            clip,
            decayed.of_direction,
            base.make_base(config.optimizer, rate),
            decayed.of_updates,
            *factors,
        )

    make_method = method.make_method(config.method, unit, learning_rate)
    if "learning_rate" in inspect.signature(make_method).parameters:
        parts = _full_optimizer(config, make_method, learning_rate, make_base)
    else:
        in_some_updates = cadence.make_cadence(config.cadence, unit)
        parts = in_some_updates(make_method()), make_base(learning_rate)
    of_method, of_base = parts
    if not config.diagnostics:
        of_method = observations.without_diagnostics(of_method)
    return Optimizer(
        _with_user_errors(of_method, config),
        optax.with_extra_args_support(of_base),
        learning_rate,
        decay.make_decay(config.weight_decay, learning_rate).of_loss,
        method.eval_params(config.method, config.optimizer),
    )


def describe(config: settings.Settings) -> dict[str, str]:
    """Method, cadence and optimizer in words, for the head of a run's log."""
    words = _in_words(config.method.name, typed.plain(config.method))
    if not isinstance(config.cadence, settings.Always):
        of_cadence = dataclasses.asdict(config.cadence)
        words += ", " + _in_words(config.cadence.name, of_cadence)
    name = "its own" if method.takes_step(config.method.name) else config.optimizer.name
    return {
        "method": words,
        "optimizer": f"{name}, learning rate {config.learning_rate:g} "
        f"({config.schedule.name}), weight decay {config.weight_decay.value:g} "
        f"({config.weight_decay.kind})",
    }


def _in_words(name: str, values: Mapping[str, Any]) -> str:
    listed = ", ".join(
        f"{key} {value}"
        for key, value in sorted(values.items())
        if key != "name" and value is not None
    )
    return f"{name} ({listed})" if listed else name


# Methods around a base optimizer that also move the weights themselves.
_PAST_BASE = ("decoupled_wsam", "lookbehind")


def _check_averages(config: settings.Settings) -> None:
    """Refuses changes of the weights that schedule-free averages would not see."""
    weight_decay = config.weight_decay
    averages = config.optimizer.name.startswith("schedule_free")
    if not averages or method.takes_step(config.method.name):
        return
    if config.method.name in _PAST_BASE:
        raise errors.UserError(
            f"{config.method.name} moves the weights past {config.optimizer.name}, "
            "which averages its own steps: take another optimizer"
        )
    if weight_decay.value and weight_decay.kind == "decoupled":
        raise errors.UserError(
            f"config.weight_decay.kind=decoupled moves the weights past "
            f"{config.optimizer.name}, which averages its own steps: set "
            "config.weight_decay.kind=gradient or loss"
        )
    if config.learning_rate_factors is not None:
        raise errors.UserError(
            f"config.learning_rate_factors changes steps past {config.optimizer.name}, "
            "which averages its own: leave it out, or take another optimizer"
        )


def _full_optimizer(
    config: settings.Settings,
    make_method: Callable[..., optax.GradientTransformation],
    learning_rate: optax.Schedule,
    make_base: Callable[[optax.ScalarOrSchedule], optax.GradientTransformation],
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """A method that takes the step itself, around the base or instead of it."""
    name = config.method.name
    if not isinstance(config.cadence, settings.Always):
        raise errors.UserError(
            f"config.cadence.name={config.cadence.name} needs a method that only turns "
            f"the gradient; {name} takes the step itself: set "
            f"config.cadence.name={settings.Always.name}"
        )
    if config.all_reduce_dtype != "float32":
        raise errors.UserError(
            f"{name} averages its gradients itself, in float32: set "
            "config.all_reduce_dtype=float32"
        )
    if name == "decoupled_wsam" and config.learning_rate_factors is not None:
        raise errors.UserError(
            "config.learning_rate_factors would leave out the step that decoupled_wsam "
            "adds behind the base optimizer: leave it out, or take wsam"
        )
    if not method.takes_step(name):
        parts = make_method(learning_rate=learning_rate, base=make_base)
        return parts, optax.identity()
    if config.clip_norm is not None:
        raise errors.UserError(
            f"{name} takes the step itself and clips nothing: set config.clip_norm=None"
        )
    if config.learning_rate_factors is not None:
        raise errors.UserError(
            f"{name} takes the step itself, of one learning rate: leave "
            "config.learning_rate_factors out"
        )
    weights = config.weight_decay
    of_gradient = weights.value if weights.kind == "gradient" else 0.0
    if of_gradient and weights.exclude_bias_and_norm:
        raise errors.UserError(
            f"{name} takes the step itself and decays every parameter: set "
            "config.weight_decay.exclude_bias_and_norm=False, or "
            "config.weight_decay.kind=loss"
        )
    decays = "weight_decay" in inspect.signature(make_method).parameters
    if of_gradient and not decays:
        raise errors.UserError(
            f"{name} takes the step itself and has no weight_decay: set "
            "config.weight_decay.kind=decoupled or loss"
        )
    own = {"weight_decay": of_gradient} if decays else {}
    alone = make_method(learning_rate=learning_rate, **own)
    return alone, decay.make_decay(weights, learning_rate).of_updates


def _with_user_errors(
    tx: optax.GradientTransformation, config: settings.Settings
) -> optax.GradientTransformationExtraArgs:
    """What a method refuses only when it sees the parameters, in one line."""
    tx = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> optax.OptState:
        with method.mistakes_of(config.method):
            return tx.init(params)

    return optax.GradientTransformationExtraArgs(init, tx.update)
