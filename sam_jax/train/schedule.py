"""Learning rates and coefficients over a run, counted in epochs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax import checks, errors, plugins, schedules
from sam_jax.train import coefficients, mistakes


class Unit(NamedTuple):
    """Length of an epoch and of the run, in updates."""

    steps_per_epoch: int
    total_steps: int


def make_schedule(
    kind: coefficients.Schedule,
    peak: float,
    unit: Unit,
    setting: str = "config.schedule",
) -> optax.Schedule:
    """A schedule, after a linear warm-up from zero.

    Args:
        kind: with its settings.
        peak: the highest value; finite, >= 0.
        unit: length of an epoch and of the run.
        setting: where ``kind`` stands in the configuration, for messages.

    Example:
        >>> kind = coefficients.Linear(warmup_epochs=1)
        >>> schedule = make_schedule(kind, 0.4, Unit(4, 12))
        >>> print([round(float(schedule(count)), 2) for count in (0, 2, 4, 8, 12)])
        [0.0, 0.2, 0.4, 0.2, 0.0]
    """
    epochs = unit.total_steps / unit.steps_per_epoch
    if not 0 <= kind.warmup_epochs < epochs:
        raise errors.UserError(
            f"{setting}.warmup_epochs must be in [0, {epochs:g}), the run's epochs, "
            f"got {kind.warmup_epochs!r}"
        )
    warmup_steps = round(kind.warmup_epochs * unit.steps_per_epoch)
    if warmup_steps == unit.total_steps:
        raise errors.UserError(
            f"{setting}.warmup_epochs={kind.warmup_epochs!r} leaves no update after it"
        )
    main = _after_warmup(kind, peak, unit, warmup_steps, setting)
    if warmup_steps == 0:
        return main
    ramp = optax.linear_schedule(0.0, peak, warmup_steps)
    return lambda count: jnp.where(
        jnp.less(count, warmup_steps), ramp(count), main(count)
    )


def tied(
    low: float,
    high: float,
    learning_rate: optax.Schedule,
    unit: Unit,
    setting: str,
) -> optax.Schedule:
    """A coefficient that follows the learning rate of the run, as GSAM's radius.

    Args:
        low: the coefficient at the end of the run.
        high: the coefficient where the learning rate is highest.
        learning_rate: of the run.
        unit: length of the run.
        setting: where the coefficient stands in the configuration, for messages.
    """
    rates = sampled(learning_rate, unit)
    if rates.max() <= rates[-1]:
        raise errors.UserError(
            f"{setting} follows the learning rate, which ends at its highest value, "
            f"{rates[-1]:g}: take one that falls, such as "
            f"--config.schedule.name=cosine, or a number for {setting}"
        )
    names = {"high": f"{setting}.value", "low": f"{setting}.low"}
    with mistakes.in_settings(f"{setting} follows the learning rate", names):
        return schedules.tied_to(
            learning_rate, low, high, lr_min=rates[-1], lr_max=rates.max()
        )


def sampled(schedule: Callable[[jax.Array], Any], unit: Unit) -> np.ndarray:
    """The values of a schedule over the run, in order.

    Returns:
        Those of all updates and of the one after the last; of a run of more than ten
        million updates that number of evenly spaced ones.
    """
    number = min(unit.total_steps, 10_000_000) + 1
    counts = np.linspace(0, unit.total_steps, number).round().astype(np.int32)
    return np.asarray(jax.vmap(lambda count: jnp.asarray(schedule(count)))(counts))


def _after_warmup(
    kind: coefficients.Schedule, peak: float, unit: Unit, warmup: int, setting: str
) -> optax.Schedule:
    """Of the update count of the run, warm-up included."""
    steps = unit.total_steps - warmup
    match kind:
        case coefficients.Constant():
            return optax.constant_schedule(peak)
        case coefficients.Cosine(_, fraction):
            decay = optax.cosine_decay_schedule(peak, steps, alpha=fraction)
            return lambda count: decay(jnp.maximum(count - warmup, 0))
        case coefficients.Linear(_, fraction):
            return optax.linear_schedule(
                peak, peak * fraction, steps, transition_begin=warmup
            )
        case coefficients.Step(_, epochs, factor):
            ends = [round(epoch * unit.steps_per_epoch) for epoch in epochs]
            if sorted(set(ends)) != ends or (ends and ends[0] <= 0):
                raise errors.UserError(
                    f"{setting}.boundaries must be increasing positive epochs, got "
                    f"{epochs!r}"
                )
            reached = [end for end in ends if end < unit.total_steps]
            return optax.piecewise_constant_schedule(
                peak, dict.fromkeys(reached, factor)
            )
        case coefficients.Diminish1():
            return schedules.power_decay(peak, 1.0, unit.steps_per_epoch)
        case coefficients.Diminish2():
            return schedules.power_decay(peak, 0.5001, unit.steps_per_epoch)
        case coefficients.Diminish3():
            return schedules.log_decay(peak, unit.steps_per_epoch)
        case coefficients.Diminish2Released():
            return schedules.power_decay_released(peak, 0.5001, unit.steps_per_epoch)
        case coefficients.Diminish3Released():
            return schedules.log_decay_released(peak, unit.steps_per_epoch)
        case coefficients.Power(_, exponent, of):
            length = unit.steps_per_epoch if of == "epoch" else 1
            return schedules.power_decay(peak, exponent, length)
        case coefficients.OwnSchedule(_, name, options):
            offered = {"peak": peak, **unit._asdict()}
            own = plugins.bound(name, setting, options, ("step",), offered)
            return _checked(own, f"{setting}.name ({name})")


def _checked(own: Callable[..., Any], where: str) -> optax.Schedule:
    """A schedule of the user's, seen once."""

    def value(step: Any) -> Any:
        found = own(step)
        if not checks.is_real(found) or np.shape(found) != ():
            raise errors.UserError(
                f"{where} must give one number for a step, got "
                f"{errors.one_line(repr(found), 80)}"
            )
        return found

    jax.eval_shape(value, jax.ShapeDtypeStruct((), jnp.int32))
    return value
