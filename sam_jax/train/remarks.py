"""What a configuration asks for and never happens, said at the start of a run."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from sam_jax import data
from sam_jax.train import (
    averaging,
    build,
    cadence,
    coefficients,
    method,
    schedule,
    settings,
)


def of(run: build.Run) -> Iterator[str]:
    """What has no effect in a run; none of it is a mistake in itself.

    Example:
        >>> chosen = {"data": {"name": "digits"}, "model": {"name": "mlp"}, "epochs": 3}
        >>> chosen["schedule"] = {"name": "step", "boundaries": (1, 60)}
        >>> print(*of(build.build(settings.read(chosen))))
        config.schedule.boundaries: the run ends before epoch 60
    """
    config, unit = run.config, schedule.Unit(run.steps_per_epoch, run.total_steps)
    if np.float32(config.learning_rate) == 0:
        yield "config.learning_rate is 0 in every update: the weights stay as they are"
    yield from _of_schedule("config.schedule", config.schedule, unit)
    for key, value in config.method.coefficients.items():
        setting = f"config.method.{key}"
        if isinstance(value, coefficients.Scheduled):
            yield from _of_schedule(setting, value.schedule, unit)
        if key == "rho" and _is_zero(key, value, run, unit):
            yield f"{setting} is 0 in every update: {config.method.name} climbs nowhere"
    yield from _of_cadence(config, unit)
    yield from _of_data(config.data, run.dataset.train)


def of_more_epochs(run: build.Run, planned: int, start: int) -> Iterator[str]:
    """What it means that a run continues for more epochs than it was planned with."""
    config = run.config
    plans = [
        _plan(config, schedule.Unit(run.steps_per_epoch, epochs * run.steps_per_epoch))
        for epochs in (planned, config.epochs)
    ]
    # In runs of many updates not all of them.
    updates = np.unique(np.linspace(0, run.total_steps - 1, 100_000).round()).astype(
        int
    )
    updates = np.union1d(updates, [start])
    same = True
    for setting in plans[0]:
        before, now = (np.asarray(jax.vmap(p[setting])(updates)) for p in plans)
        other = before != now
        same = same and not np.any(other[updates < start])
        if np.any(other):
            old, new = (float(x[updates == start][0]) for x in (before, now))
            yield (
                f"{setting} is stretched over {config.epochs} epochs: {new:.3g} in the "
                f"next update, {old:.3g} by the plan of {planned}"
            )
    yield f"{config.epochs} epochs instead of the {planned} that were planned: " + (
        "the run is the one that it were with all of them from the start"
        if same
        else f"the {start} updates done were those of the other plan, so this is not "
        f"the run that {config.epochs} epochs make from the start"
    )


def _plan(
    config: settings.Settings, unit: schedule.Unit
) -> dict[str, Callable[[Any], Any]]:
    """What depends on the length of a run, as functions of the update."""
    rate = schedule.make_schedule(config.schedule, config.learning_rate, unit)
    found: dict[str, Callable[[Any], Any]] = {"config.learning_rate": rate}
    for key, value in config.method.coefficients.items():
        if isinstance(value, coefficients.Scheduled):
            made = method.coefficient(key, value, unit, rate)
            found[f"config.method.{key}"] = made
    if isinstance(config.cadence, settings.LatePhase):
        first, last = cadence.phase(config.cadence, unit)
        found["config.cadence.late_phase"] = lambda x: (first <= x) & (x < last)
    stays = averaging.share(config, unit.total_steps)
    if config.swa_start is not None and stays:
        found["config.swa_start, as the share of the average that stays,"] = stays
    return found


def _of_schedule(
    setting: str, kind: coefficients.AnySchedule, unit: schedule.Unit
) -> Iterator[str]:
    if isinstance(kind, coefficients.WarmUp) and kind.warmup_epochs:
        steps = round(kind.warmup_epochs * unit.steps_per_epoch)
        what = f"{setting}.warmup_epochs={kind.warmup_epochs:g}"
        if steps == 0:
            yield f"{what} is less than half an update: there is no warm-up"
        elif steps == 1:
            yield f"{what} is one update, of the value 0: the warm-up loses a batch"
    if isinstance(kind, coefficients.Step):
        late = [f"{b:g}" for b in kind.boundaries if _step(b, unit) >= unit.total_steps]
        if late:
            yield f"{setting}.boundaries: the run ends before epoch {', '.join(late)}"


def _step(epoch: float, unit: schedule.Unit) -> int:
    return round(epoch * unit.steps_per_epoch)


def _is_zero(key: str, value: Any, run: build.Run, unit: schedule.Unit) -> bool:
    """Whether a coefficient is 0 in every update."""
    if isinstance(value, str):
        return False
    value = method.coefficient(key, value, unit, run.optimizer.learning_rate)
    values = schedule.sampled(value, unit)[:-1] if callable(value) else value
    return not np.any(np.asarray(values, np.float32))


def _of_cadence(config: settings.Settings, unit: schedule.Unit) -> Iterator[str]:
    chosen = config.cadence
    where = f"config.cadence.name={chosen.name}"
    total = unit.total_steps
    match chosen:
        case settings.Always():
            return
        case _ if config.method.name == coefficients.BASELINE:
            yield f"{where}: there is no method to use, config.method.name is 'none'"
        case settings.EveryK(k) if k >= total > 1:
            yield f"{where}: with k={k}, only the first of {total} updates has a method"
        case settings.LatePhase():
            first, last = cadence.phase(chosen, unit)
            if first >= last:
                yield f"{where}: none of the {total} updates has a method"
        case settings.Stochastic(0):
            yield f"{where}: with probability 0, no update has a method"


def _of_data(config: settings.Data, train: data.Source) -> Iterator[str]:
    if config.cutout and not config.cutout_probability:
        yield "config.data.cutout: its cutout_probability is 0"
    if isinstance(train, data.SampledSource) and not np.ptp(train.probabilities):
        yield "config.data.sampling: every example has the same chance"
    if not (config.label_noise and isinstance(train, data.ArraySource)):
        return
    if np.array_equal(train.split.labels, train.split.true_labels):
        yield f"config.data.label_noise={config.label_noise:g} makes no label wrong"
