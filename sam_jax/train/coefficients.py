"""A method, its coefficients and schedules, as settings of a run."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, TypeAlias

from sam_jax import errors, methods, plugins
from sam_jax.train import typed
from sam_jax.train.ranges import Finite, Nonnegative, Share, UpTo1000

BASELINE = "none"  # config.method.name of a run without a method
BASELINE_SUFFIXES = ("sgd", BASELINE)

# ── Schedules ────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class WarmUp(typed.Choice):
    """The warm-up of every schedule."""

    warmup_epochs: Nonnegative = 0.0  # linear, from zero


@dataclasses.dataclass(frozen=True)
class Constant(WarmUp):
    """The highest value throughout."""

    name = "constant"


@dataclasses.dataclass(frozen=True)
class Cosine(WarmUp):
    """Half a cosine down to a fraction of the highest value."""

    name = "cosine"
    final_fraction: Share = 0.0


@dataclasses.dataclass(frozen=True)
class Linear(WarmUp):
    """A line down to a fraction of the highest value."""

    name = "linear"
    final_fraction: Share = 0.0


@dataclasses.dataclass(frozen=True)
class Step(WarmUp):
    """Multiplied by a factor at each boundary."""

    name = "step"
    # Epochs, counted with the warm-up.
    boundaries: tuple[Nonnegative, ...] = (60, 120, 160)
    factor: UpTo1000 = 0.2


@dataclasses.dataclass(frozen=True)
class Diminish1(WarmUp):
    """The first of Khanh et al. 2024, per epoch: one over the epoch."""

    name = "diminish1"


@dataclasses.dataclass(frozen=True)
class Diminish2(WarmUp):
    """The second of Khanh et al. 2024, per epoch: nearly one over its square root."""

    name = "diminish2"


@dataclasses.dataclass(frozen=True)
class Diminish3(WarmUp):
    """The third of Khanh et al. 2024, per epoch: one over m log m."""

    name = "diminish3"


@dataclasses.dataclass(frozen=True)
class Diminish2Released(WarmUp):
    """`Diminish2` as the authors' code runs it: its first value for two epochs."""

    name = "diminish2_released"


@dataclasses.dataclass(frozen=True)
class Diminish3Released(WarmUp):
    """`Diminish3` as the authors' code runs it: the highest value, then m from 3."""

    name = "diminish3_released"


@dataclasses.dataclass(frozen=True)
class Power(WarmUp):
    """Over a power of the number of the update, or of the epoch, from 1.

    With the exponent 0.001 the almost constant radius of Khanh et al. 2024, Remark 3.6.
    """

    name = "power"
    exponent: Nonnegative = 0.001
    of: Literal["update", "epoch"] = "update"


@dataclasses.dataclass(frozen=True)
class OwnSchedule(WarmUp):
    """Yours: ``my.py:fn`` with ``fn(step) -> value``."""

    name: str = typed.OWN  # pyright: ignore[reportIncompatibleVariableOverride]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Schedule: TypeAlias = (
    Constant
    | Cosine
    | Linear
    | Step
    | Diminish1
    | Diminish2
    | Diminish3
    | Diminish2Released
    | Diminish3Released
    | Power
    | OwnSchedule
)

# ── Coefficients ─────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Tied(typed.Choice):
    """A coefficient that follows the learning rate of the run, as GSAM's radius."""

    name = "learning_rate"
    low: Finite = 0.0  # at the end of the run


AnySchedule: TypeAlias = Schedule | Tied


@dataclasses.dataclass(frozen=True)
class Scheduled:
    """A coefficient that changes over the run.

    In a configuration a mapping: ``{"name": "cosine", "value": 0.1}``.
    """

    value: float  # the highest
    schedule: AnySchedule

    @classmethod
    def read(cls, value: Any, path: str) -> Self:
        """From the settings of a schedule and its highest value."""
        spec = dict(value)
        if not {"name", "value"} <= spec.keys():
            raise errors.UserError(
                f"{path}: a coefficient's schedule needs 'name' and 'value' (its "
                f"highest value), got {spec!r}"
            )
        peak = typed.read(Nonnegative, spec.pop("value"), f"{path}.value")
        if spec["name"] == Tied.name:
            typed.refuse_unknown(spec, ("name", "low"), path)
        # `low` belongs to that one alone: the others refuse it.
        kind = Schedule if "low" in spec and spec["name"] != Tied.name else AnySchedule
        return cls(peak, typed.read(kind, spec, path))

    def plain(self) -> dict[str, Any]:
        """The mapping again."""
        return {"value": self.value} | typed.plain(self.schedule)


Coefficient: TypeAlias = (
    float | bool | str | Scheduled | Callable[..., Any] | None
)  # a callable is a schedule of Optax that a card has made


@dataclasses.dataclass(frozen=True)
class Method:
    """A method by its name, with all its coefficients; without one, the baseline."""

    name: str = BASELINE
    coefficients: Mapping[str, Coefficient] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, value: Any, path: str) -> Self:
        """From a name and coefficients; those missing are the factory's defaults."""
        typed.refuse_no_mapping(value, path)
        given = dict(value)
        name = given.pop("name", BASELINE)
        name = BASELINE if name in BASELINE_SUFFIXES else name
        known = parameters(name)
        for key in given:
            if key not in known:
                message = errors.unknown(f"setting of {name}", key, known)
                raise errors.UserError(
                    f"{message}; a card's :{name} suffix sets them all"
                )
        for key, parameter in known.items():
            if parameter.default is parameter.empty and given.get(key) is None:
                raise errors.UserError(f"{path}.{key} has no default: give a value")
        return cls(
            name,
            {
                key: _read(parameter, given[key], f"{path}.{key}")
                if key in given
                else parameter.default
                for key, parameter in known.items()
            },
        )

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The baseline."""
        return {"name": BASELINE}

    def plain(self) -> dict[str, Any]:
        """The name, with the coefficients beside it."""
        return {"name": self.name} | {
            key: typed.plain(value) for key, value in self.coefficients.items()
        }


def parameters(name: str) -> dict[str, inspect.Parameter]:
    """What a method has to set: of its factory all that no other setting decides.

    Args:
        name: a method, or `BASELINE`, which has nothing to set.
    """
    if name == BASELINE:
        return {}
    elsewhere = {"learning_rate", "base", "weight_decay"}
    signature = inspect.signature(factory(name), eval_str=True)
    return {k: v for k, v in signature.parameters.items() if k not in elsewhere}


def factory(name: str) -> Callable[..., Any]:
    """What makes a method: of the package, or the user's (``my.py:my_sam``)."""
    if plugins.is_reference(name):
        return plugins.load_function(name, "config.method.name")
    try:
        return methods.factory(name)
    except KeyError:
        known = [*methods.names(), *BASELINE_SUFFIXES]
        raise errors.UserError(errors.unknown("method", name, known)) from None


Mask: TypeAlias = Literal["norm_layers", "weights"]


def _read(parameter: inspect.Parameter, value: Any, path: str) -> Coefficient:
    """A value of the type that the factory has written for it."""
    value = typed.from_numpy(value)
    if parameter.name == "mask":
        return typed.read(Mask | None, value, path)
    written = parameter.annotation
    is_choice = typing.get_origin(written) is Literal
    hints = (written,) if is_choice else typing.get_args(written) or (written,)
    hints = tuple(str if typing.get_origin(x) is Literal else x for x in hints)
    scheduled = any(typing.get_origin(hint) is Callable for hint in hints)
    if scheduled and isinstance(value, Mapping):
        return Scheduled.read(value, path)
    plain = [hint for hint in hints if hint in _PLAIN]
    if plain and not (scheduled and callable(value)):
        others = ["a schedule"] if scheduled else []
        fits = typed.check(typing.Union[*plain], value, path, *others)
        return float(value) if fits is float else value
    return value


# Of other types the factory alone knows what is right.
_PLAIN = (bool, int, float, str, types.NoneType)
