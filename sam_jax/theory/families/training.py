"""The schedules of training: designed for a number of steps, or in cycles."""

import dataclasses

import jax.numpy as jnp
import optax

from sam_jax import schedules
from sam_jax.theory.families.base import Facts, Family, level


@dataclasses.dataclass(frozen=True)
class _Fall(Family):
    peak: float
    horizon: int
    final: float = 0.0

    positive = ("peak", "horizon")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_final(self.peak, self.final)

    def _facts(self) -> Facts:
        return level(self.peak, self.final, horizon=True)

    def _text(self, shape: str) -> str:
        return f"{shape} from {self.peak:g} to {self.final:g} in {self.horizon} steps"


@dataclasses.dataclass(frozen=True)
class Cosine(_Fall):
    """Half a cosine from the peak down to ``final`` after ``horizon`` steps.

    Attributes:
        peak: first value, > 0.
        horizon: steps.
        final: last value, in [0, peak].

    Example:
        >>> Cosine(0.1, 1000).vanishes, Cosine(0.1, 1000).sum_diverges
        (True, False)
    """

    def _schedule(self) -> optax.Schedule:
        return optax.cosine_decay_schedule(
            self.peak, self.horizon, alpha=self.final / self.peak
        )

    def __str__(self) -> str:
        return self._text("cosine")


@dataclasses.dataclass(frozen=True)
class Linear(_Fall):
    """A straight line instead of a `Cosine`, with its attributes."""

    def _schedule(self) -> optax.Schedule:
        return optax.linear_schedule(self.peak, self.final, self.horizon)

    def __str__(self) -> str:
        return self._text("linear")


@dataclasses.dataclass(frozen=True)
class StepDecay(Family):
    """The peak, multiplied by a factor at each of finitely many boundaries.

    After the last boundary it is constant and does not tend to zero.

    Attributes:
        peak: first value, > 0.
        boundaries: steps, increasing.
        factor: >= 0.

    Example:
        >>> schedule = StepDecay(0.1, (60, 120), 0.1)
        >>> schedule.vanishes, round(schedule.limsup, 9)
        (False, 0.001)
    """

    peak: float
    boundaries: tuple[int, ...]
    factor: float

    positive = ("peak",)
    nonnegative = ("factor",)

    def _facts(self) -> Facts:
        # Of the value after the last boundary.
        last = self.peak * self.factor ** len(self.boundaries)
        return level(max(self.peak, last), last, horizon=True)

    def _schedule(self) -> optax.Schedule:
        return optax.piecewise_constant_schedule(
            self.peak, dict.fromkeys(self.boundaries, self.factor)
        )

    def __str__(self) -> str:
        drops = f"{len(self.boundaries)} drops"
        return f"step decay from {self.peak:g} to {self.limsup:g} in {drops}"


@dataclasses.dataclass(frozen=True)
class Following(Family):
    """A radius that follows a step size down to ``final`` after ``horizon`` steps.

    Attributes:
        step_size: to follow; it falls.
        peak: where the step size is largest, > 0.
        horizon: steps.
        final: where it is smallest, in [0, peak].
    """

    step_size: Family
    peak: float
    horizon: int
    final: float = 0.0

    positive = ("peak", "horizon")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_final(self.peak, self.final)

    def _facts(self) -> Facts:
        return level(self.peak, self.final, horizon=True)

    def _schedule(self) -> optax.Schedule:
        rate = self.step_size.schedule()
        return schedules.tied_to(
            rate,
            self.final,
            self.peak,
            lr_min=float(rate(self.horizon)),  # pyright: ignore[reportArgumentType]
            lr_max=self.step_size.supremum,
        )

    def __str__(self) -> str:
        return f"from {self.peak:g} to {self.final:g} with the step size"


@dataclasses.dataclass(frozen=True)
class CosineRestarts(Family):
    """A cosine from the peak to 0 that starts again after each period.

    Attributes:
        peak: > 0.
        period: steps of a cycle.

    Example:
        >>> restarts = CosineRestarts(0.1, 100)
        >>> restarts.vanishes, restarts.sum_diverges, restarts.limsup
        (False, True, 0.1)
    """

    peak: float
    period: int

    positive = ("peak", "period")

    def _facts(self) -> Facts:
        # Order 1: the last step of a cycle comes before the zero.
        return level(self.peak, self.peak)

    def _schedule(self) -> optax.Schedule:
        cycle = optax.cosine_decay_schedule(self.peak, self.period)
        return lambda count: cycle(jnp.asarray(count) % self.period)

    def __str__(self) -> str:
        return f"cosine from {self.peak:g}, restarted every {self.period} steps"


@dataclasses.dataclass(frozen=True)
class WarmUp(Family):
    """A linear rise from 0 to the first value of another family, then that one.

    Finitely many steps do not change whether a sum converges.

    Attributes:
        steps: of the rise.
        then: what follows, counted from the end of the rise.
    """

    steps: int
    then: Family

    def _facts(self) -> Facts:
        return self.then.facts

    def _schedule(self) -> optax.Schedule:
        then = self.then.schedule()
        rise = optax.linear_schedule(0.0, float(then(0)), self.steps)  # pyright: ignore[reportArgumentType]
        return optax.join_schedules([rise, then], [self.steps])

    def __str__(self) -> str:
        return f"{self.then}, after {self.steps} steps of warm-up"


def _check_final(peak: float, final: float) -> None:
    if not 0 <= final <= peak:
        raise ValueError(f"final must be in [0, peak], got {final!r} for {peak!r}")
