"""Learning rates and coefficients over a run, by name, counted in epochs."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax import errors, schedules
from sam_jax.train import config as config_lib


class Unit(NamedTuple):
    """Length of an epoch and of the run, in updates."""

    steps_per_epoch: int
    total_steps: int


def make_schedule(
    spec: Mapping[str, Any],
    peak: Any,
    unit: Unit,
    setting: str = "config.learning_rate",
) -> optax.Schedule:
    """A schedule by name, after a linear warm-up from zero.

    Args:
        spec: ``config.schedule``, or a mapping with some of its keys.
        peak: the highest value; finite, >= 0.
        unit: length of an epoch and of the run.
        setting: what ``peak`` is called, for messages.

    Returns:
        A schedule of the update count, from 0.

    Raises:
        UserError: if a key, the name or a value is not allowed.

    Example:
        >>> spec = {"name": "linear", "warmup_epochs": 1}
        >>> schedule = make_schedule(spec, 0.4, Unit(4, 12))
        >>> print([round(float(schedule(count)), 2) for count in (0, 2, 4, 8, 12)])
        [0.0, 0.2, 0.4, 0.2, 0.0]
    """
    defaults = dict(config_lib.default_config().schedule)
    for key in spec:
        if key not in defaults:
            raise errors.UserError(
                errors.unknown("setting of a schedule", key, defaults)
            )
    settings = defaults | dict(spec)
    name = settings.pop("name")
    warmup = settings.pop("warmup_epochs")
    if name not in _SCHEDULES:
        raise errors.UserError(errors.unknown("schedule", name, _SCHEDULES))
    if not isinstance(peak, int | float) or not 0 <= peak < float("inf"):
        raise errors.UserError(f"{setting} must be a finite number >= 0, got {peak!r}")
    epochs = unit.total_steps / unit.steps_per_epoch
    if not 0 <= warmup < epochs:
        raise errors.UserError(
            f"warmup_epochs of {setting} must be in [0, {epochs:g}), the run's epochs, "
            f"got {warmup!r}"
        )
    warmup_steps = round(warmup * unit.steps_per_epoch)
    try:
        main = _SCHEDULES[name](peak, unit, warmup_steps, **settings)
    except (TypeError, ValueError) as error:
        raise errors.UserError(f"schedule {name!r}: {error}") from error
    if warmup_steps == 0:
        return main
    ramp = optax.linear_schedule(0.0, peak, warmup_steps)
    return lambda count: jnp.where(count < warmup_steps, ramp(count), main(count))


def tied(
    spec: Mapping[str, Any], high: Any, learning_rate: optax.Schedule, unit: Unit
) -> optax.Schedule:
    """A coefficient that follows the learning rate of the run, as GSAM's radius.

    Args:
        spec: the name, and ``low``, the coefficient at the end of the run; 0 if it is
            not there.
        high: the coefficient where the learning rate is highest.
        learning_rate: of the run.
        unit: length of the run.

    Returns:
        A schedule of the update count, from 0.

    Raises:
        UserError: if a key or a value is not allowed.
    """
    for key in spec:
        if key not in ("name", "low"):
            raise errors.UserError(
                errors.unknown(
                    "setting of a schedule 'learning_rate'", key, ("low", "value")
                )
            )
    counts = jnp.arange(unit.total_steps + 1)
    rates = np.asarray(jax.vmap(learning_rate)(counts)).tolist()
    try:
        return schedules.tied_to(
            learning_rate,
            spec.get("low", 0.0),
            high,
            lr_min=rates[-1],
            lr_max=max(rates),
        )
    except (TypeError, ValueError) as error:
        raise errors.UserError(
            f"a coefficient that follows the learning rate: {error}"
        ) from error


# Each gets the update count of the run, warm-up included.


def _constant(peak: float, unit: Unit, warmup: int, **_: Any) -> optax.Schedule:
    del unit, warmup
    return optax.constant_schedule(peak)


def _cosine(
    peak: float, unit: Unit, warmup: int, *, final_fraction: float, **_: Any
) -> optax.Schedule:
    _check_fraction("final_fraction", final_fraction)
    decay = optax.cosine_decay_schedule(
        peak, unit.total_steps - warmup, alpha=final_fraction
    )
    return lambda count: decay(jnp.maximum(count - warmup, 0))


def _linear(
    peak: float, unit: Unit, warmup: int, *, final_fraction: float, **_: Any
) -> optax.Schedule:
    _check_fraction("final_fraction", final_fraction)
    return optax.linear_schedule(
        peak, peak * final_fraction, unit.total_steps - warmup, transition_begin=warmup
    )


def _step(
    peak: float,
    unit: Unit,
    warmup: int,
    *,
    boundaries: tuple[float, ...],
    factor: float,
    **_: Any,
) -> optax.Schedule:
    del warmup
    if not 0 <= factor < float("inf"):
        raise ValueError(f"factor must be a finite number >= 0, got {factor!r}")
    steps = [round(epoch * unit.steps_per_epoch) for epoch in boundaries]
    if sorted(set(steps)) != steps or (steps and steps[0] <= 0):
        raise ValueError(
            f"boundaries must be increasing positive epochs, got {boundaries!r}"
        )
    return optax.piecewise_constant_schedule(peak, dict.fromkeys(steps, factor))


def _diminish(exponent: float) -> Callable[..., optax.Schedule]:
    def build(peak: float, unit: Unit, warmup: int, **_: Any) -> optax.Schedule:
        del warmup
        return schedules.power_decay(peak, exponent, unit.steps_per_epoch)

    return build


def _diminish3(peak: float, unit: Unit, warmup: int, **_: Any) -> optax.Schedule:
    del warmup
    return schedules.log_decay(peak, unit.steps_per_epoch)


_SCHEDULES: Mapping[str, Callable[..., optax.Schedule]] = {
    "constant": _constant,
    "cosine": _cosine,
    "linear": _linear,
    "step": _step,
    "diminish1": _diminish(1.0),
    "diminish2": _diminish(0.5001),
    "diminish3": _diminish3,
}


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")
