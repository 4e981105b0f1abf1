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
        reason: why, with both sides' values.
    """

    text: str
    holds: bool | None
    reason: str


Requirement = Callable[[Setting], Condition]


def method_is(what: str, methods: method_classes.Methods) -> Requirement:
    """The method is in a table of `method_classes`."""

    def check(s: Setting) -> Condition:
        holds = method_classes.is_one_of(s, methods)
        return Condition(f"the method is {what}", holds, f"it is {name_of(s)}")

    return check


def name_of(s: Setting) -> str:
    """The method, with its lambda if it has one."""
    lam = s.coefficients.get("lam")
    return s.method if lam is None else f"{s.method} with lam = {lam}"


is_sam = method_is("SAM (normalized, ascent along the gradient)", method_classes.SAM)


def is_deterministic(s: Setting) -> Condition:
    """Steps see all of f."""
    return Condition(
        "full gradients (deterministic)",
        not s.stochastic,
        "a step sees a sample of f" if s.stochastic else "a step sees all of f",
    )


def is_plain(s: Setting) -> Condition:
    """No momentum, no other optimizer, no clipping."""
    return Condition(
        "steps x - t_k g_k and nothing else (no momentum)",
        not s.others,
        f"there is {', '.join(s.others)}" if s.others else "nothing else",
    )


def decays_inside(s: Setting) -> Condition:
    """No weight decay beside the function."""
    return Condition(
        "weight decay, if any, is part of f",
        s.outside_decay == 0,
        f"{s.outside_decay:g} w is added to the direction"
        if s.outside_decay
        else "there is none outside of f",
    )


def is_every_update(s: Setting) -> Condition:
    """No cadence."""
    return Condition(
        "the method is used in every update",
        s.every_update,
        "in every update" if s.every_update else "some updates are plain gradients",
    )


def is_smooth(s: Setting) -> Condition:
    """The gradient of f is Lipschitz continuous."""
    smooth = s.smooth
    if smooth is None and s.smoothness is not None:
        smooth = math.isfinite(s.smoothness)
    known = "" if s.smoothness is None else f", L = {s.smoothness:g}"
    reason = {
        True: f"it is{known}",
        False: "it is not",
        None: "no L is known",
    }
    return Condition("the gradient is Lipschitz continuous", smooth, reason[smooth])


def smooth_samples(s: Setting) -> Condition:
    """So is that of what a step sees."""
    value = s.largest_smoothness
    return Condition(
        "every sampled function is smooth",
        False
        if s.smooth is False
        else (None if value is None else math.isfinite(value)),
        "L of the samples is unknown" if value is None else f"L_max = {value:.6g}",
    )


def has_fresh_samples(s: Setting) -> Condition:
    """The mean of what a step sees is the gradient, whatever happened before."""
    fresh = s.fresh_samples or not s.stochastic
    return Condition(
        "samples, if any, are drawn anew for every step",
        fresh,
        "they are" if fresh else "examples are shuffled: each is seen once per epoch",
    )


def fact(text: str, field: str) -> Requirement:
    """A truth value that is known of the function, or a constant that is not zero."""

    def check(s: Setting) -> Condition:
        value = getattr(s, field)
        holds = None if value is None else bool(value)
        return Condition(
            text, holds, {True: "yes", False: "no", None: "unknown"}[holds]
        )

    return check


is_convex = fact("f is convex", "convex")
is_bounded_below = fact("inf f(x^k) > -infinity", "bounded_below")
is_strongly_convex = fact("f is strongly convex", "strong_convexity")


def is_given(text: str, **constants: float | None) -> Condition:
    """Constants are known, whatever they are."""
    if None in constants.values():
        plural = "is" if len(constants) == 1 else "are"
        return Condition(text, None, f"{', '.join(constants)} {plural} unknown")
    values = (f"{name} = {value:.6g}" for name, value in constants.items())
    return Condition(text, True, ", ".join(values))


def has_pl(s: Setting) -> Condition:
    """There is a mu > 0."""
    mu = s.growth_constant
    return Condition(
        "f is Polyak-Lojasiewicz or strongly convex, mu > 0",
        None if mu is None else mu > 0,
        "mu is unknown" if mu is None else f"mu = {mu:g}",
    )


def constant_step(s: Setting) -> Condition:
    """The step size is a number > 0."""
    family = s.step_size
    return Condition(
        "the step size is constant, > 0",
        isinstance(family, families.Constant) and family.value > 0,
        f"it is {family}",
    )


def constant_radius(s: Setting) -> Condition:
    """The radius is a number."""
    return Condition(
        "the radius is constant",
        isinstance(s.radius, families.Constant),
        f"it is {s.radius}",
    )


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

    0 is below a limit that is not known: all of them are positive.
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
    """A limit that is a quotient: None if not known, infinite if it limits nothing."""
    if denominator is None:
        return None
    return numerator / denominator if denominator else math.inf
