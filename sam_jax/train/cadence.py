"""In which updates the method is used."""

from collections.abc import Callable
from typing import TypeAlias

import optax

from sam_jax import errors
from sam_jax.methods import cadence as wrappers
from sam_jax.train import schedule, settings

Wrap: TypeAlias = Callable[[optax.GradientTransformation], optax.GradientTransformation]


def make_cadence(cadence: settings.Cadence, unit: schedule.Unit) -> Wrap:
    """What wraps a method, so that it is used in some updates only."""
    match cadence:
        case settings.Always():
            return lambda method: method
        case settings.EveryK(k):
            return lambda method: wrappers.every_k(method, k)
        case settings.Stochastic(probability):
            return lambda method: wrappers.stochastic(method, probability)
        case settings.LatePhase(start, stop):
            if stop < start:
                raise errors.UserError(
                    "config.cadence.late_phase.stop must be at least start, got "
                    f"{stop} < {start}"
                )
            first, last = phase(cadence, unit)
            return lambda method: wrappers.late_phase(method, first, last)


def phase(cadence: settings.LatePhase, unit: schedule.Unit) -> tuple[int, int]:
    """The first update with the method, and the first one after that without it."""
    total = unit.total_steps
    return round(cadence.start * total), round(cadence.stop * total)
