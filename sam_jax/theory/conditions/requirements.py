"""Conditions that several theorems share."""

import math
from collections.abc import Callable
from typing import NamedTuple

from sam_jax.theory import families
from sam_jax.theory.conditions import method_classes
from sam_jax.theory.conditions.settings import Setting


class Condition(NamedTuple):
    """A condition of a theorem in a setting.

    Attributes:
        text: the condition.
        holds: True, False, or None if that is unknown.
        reason: why it holds or fails, with both sides' values.
    """

    text: str
    holds: bool | None
    reason: str


Requirement = Callable[[Setting], Condition]


def asks(
    text: str, holds: Callable[[Setting], bool | None], why: Callable[[Setting], str]
) -> Requirement:
    """A condition, whether it holds in a setting, and why."""
    return lambda s: Condition(text, holds(s), why(s))


def method_is(what: str, methods: method_classes.Methods) -> Requirement:
    """The method is in a table of `method_classes`."""
    return asks(
        f"the method is {what}",
        lambda s: method_classes.is_one_of(s, methods),
        lambda s: f"it is {name_of(s)}",
    )


def name_of(s: Setting) -> str:
    """The method, with its lambda if it has one."""
    lam = s.coefficients.get("lam")
    return s.method if lam is None else f"{s.method} with lam = {lam}"


def fact(text: str, field: str) -> Requirement:
    """A known property of the function: a truth value, or a constant that is not 0."""

    def check(s: Setting) -> Condition:
        value = getattr(s, field)
        holds = None if value is None else bool(value)
        reason = {True: "yes", False: "no", None: "unknown"}[holds]
        return Condition(text, holds, reason)

    return check


def is_given(text: str, **constants: float | None) -> Condition:
    """Constants are known, whatever their values."""
    if None in constants.values():
        plural = "is" if len(constants) == 1 else "are"
        return Condition(text, None, f"{', '.join(constants)} {plural} unknown")
    values = (f"{name} = {value:.6g}" for name, value in constants.items())
    return Condition(text, True, ", ".join(values))


# What a step is.
is_sam = method_is("SAM (normalized, ascent along the gradient)", method_classes.SAM)
is_plain = asks(
    "steps x - t_k g_k and nothing else (no momentum)",
    lambda s: not s.others,
    lambda s: f"there is {', '.join(s.others)}" if s.others else "nothing else",
)
decays_inside = asks(
    "weight decay, if any, is part of f",
    lambda s: s.outside_decay == 0,
    lambda s: (
        f"{s.outside_decay:g} w is added to the direction"
        if s.outside_decay
        else "no weight decay outside f"
    ),
)
is_every_update = asks(
    "the method is used in every update",
    lambda s: s.every_update,
    lambda s: (
        "in every update" if s.every_update else "some updates are plain gradients"
    ),
)
constant_step = asks(
    "the step size is constant, > 0",
    lambda s: isinstance(s.step_size, families.Constant) and s.step_size.value > 0,
    lambda s: f"it is {s.step_size}",
)
constant_radius = asks(
    "the radius is constant",
    lambda s: isinstance(s.radius, families.Constant),
    lambda s: f"it is {s.radius}",
)

# What it sees.
is_deterministic = asks(
    "full gradients (deterministic)",
    lambda s: not s.stochastic,
    lambda s: "a step sees a sample of f" if s.stochastic else "a step sees all of f",
)
has_fresh_samples = asks(
    "samples, if any, are drawn independently for every step",
    lambda s: s.fresh_samples or not s.stochastic,
    lambda s: (
        "they are"
        if s.fresh_samples or not s.stochastic
        else "examples are shuffled: each is seen once per epoch"
    ),
)


def smooth_samples(s: Setting) -> Condition:
    """The gradient of what a step sees is Lipschitz continuous."""
    value = s.largest_smoothness
    finite = None if value is None else math.isfinite(value)
    return Condition(
        "every sampled function is smooth",
        False if s.smooth is False else finite,
        "L of the samples is unknown" if value is None else f"L_max = {value:.6g}",
    )


# What f is.
is_convex = fact("f is convex", "convex")
is_bounded_below = fact("inf f(x^k) > -infinity", "bounded_below")
is_strongly_convex = fact("f is strongly convex", "strong_convexity")


def is_smooth(s: Setting) -> Condition:
    """The gradient of f is Lipschitz continuous."""
    smooth = s.smooth
    if smooth is None and s.smoothness is not None:
        smooth = math.isfinite(s.smoothness)
    known = "" if s.smoothness is None else f", L = {s.smoothness:g}"
    reason = {True: f"it is{known}", False: "it is not", None: "no L is known"}
    return Condition("the gradient is Lipschitz continuous", smooth, reason[smooth])


def has_descent(s: Setting) -> Condition:
    """The L-descent condition, which a Lipschitz continuous gradient implies."""
    smooth, text = is_smooth(s), "f satisfies the L-descent condition"
    if smooth.holds:
        return Condition(text, True, "its gradient is Lipschitz continuous")
    reason = {True: "yes", False: "no", None: "no L is known"}[s.descent]
    return Condition(text, s.descent, reason)


def has_pl(s: Setting) -> Condition:
    """There is a mu > 0."""
    mu = s.growth_constant
    given = is_given("f is Polyak-Lojasiewicz or strongly convex, mu > 0", mu=mu)
    return given if mu is None else given._replace(holds=mu > 0)


CONSTANTS = (constant_step, constant_radius)
AS_STATED = (is_plain, decays_inside, is_every_update)
UNBIASED = (smooth_samples, has_fresh_samples)  # hold for full gradients too


def below(
    text: str,
    name: str,
    value: float | None,
    limit_name: str,
    limit: float | None,
    *,
    strict: bool = True,
) -> Condition:
    """A comparison of two numbers, unknown if one of them is.

    0 is below an unknown limit: all limits are positive.
    """
    if value == 0 and limit is None:
        return Condition(text, True, f"{name} = 0")
    if value is None or limit is None:
        unknown = name if value is None else limit_name
        side = "" if value is None else f"{name} = {value:.6g}; "
        return Condition(text, None, f"{side}{unknown} is unknown")
    # A constant at its limit may have been rounded.
    holds = value < limit if strict else value <= limit * (1 + 1e-12)
    sign = ("<" if strict else "<=") if holds else (">=" if strict else ">")
    return Condition(
        text, holds, f"{name} = {value:.6g} {sign} {limit_name} = {limit:.6g}"
    )


def over(numerator: float, denominator: float | None) -> float | None:
    """A limit that is a quotient: None if unknown, infinite if there is no limit."""
    if denominator is None:
        return None
    return numerator / denominator if denominator else math.inf
