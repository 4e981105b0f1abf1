"""Oikonomou and Loizou 2025: Unified SAM under the expected residual condition."""

import math
from collections.abc import Sequence

from sam_jax.theory import families
from sam_jax.theory.conditions import method_classes, requirements
from sam_jax.theory.conditions.requirements import Condition, below
from sam_jax.theory.conditions.settings import Setting
from sam_jax.theory.conditions.theorems import Conclusion, Theorem
from sam_jax.theory.step_sizes import unified

_is_unified = requirements.asks(
    "the method is Unified SAM with a constant lambda",
    lambda s: method_classes.lam(s) is not None,
    lambda s: (
        f"it is {requirements.name_of(s)}"
        if method_classes.lam(s) is None
        else f"lambda = {method_classes.lam(s):g}"
    ),
)


def _is_exact_usam(s: Setting) -> Condition:
    known = method_classes.lam(s)
    free = s.radius.supremum == 0
    return Condition(
        "lambda = 0 (USAM), or no radius",
        None if known is None else known == 0 or free,
        f"it is {requirements.name_of(s)}",
    )


def _has_residual(s: Setting) -> Condition:
    text = "expected residual: E||g||^2 <= 2A (f - f^inf) + B||grad f||^2 + C"
    known = s.seen_residual
    constants = dict.fromkeys("ABC") if known is None else known._asdict()
    return requirements.is_given(text, **constants)


def _interpolates(s: Setting) -> Condition:
    c = None if s.seen_residual is None else s.seen_residual.C
    given = requirements.is_given("C = 0 (interpolation, or full gradients)", C=c)
    return given if c is None else given._replace(holds=c == 0)


def _constants(s: Setting) -> unified.Constants | None:
    """Constants of the theorems for PL functions, if all are known and possible."""
    mu, smoothness, residual = s.growth_constant, s.largest_smoothness, s.seen_residual
    if not mu or smoothness is None or residual is None:
        return None
    known = unified.Constants(mu, smoothness, residual)
    return known if mu <= smoothness < math.inf and known.growth > 0 else None


def _below_largest_radius(s: Setting) -> Condition:
    known, lam = _constants(s), method_classes.lam(s)
    limit = None
    if known is not None and lam is not None:
        limit = unified.largest_radius(known, lam)
    return below("rho < rho*", "sup rho", s.radius.supremum, "rho*", limit)


def _below_largest_step(s: Setting) -> Condition:
    known, lam, rho = _constants(s), method_classes.lam(s), s.radius.supremum
    limit = None
    if known is not None and lam is not None:
        inside = rho < unified.largest_radius(known, lam)
        limit = unified.largest_step_size(known, lam, rho) if inside else 0.0
    return below(
        "gamma <= gamma*(rho)",
        "sup gamma",
        s.step_size.supremum,
        "gamma*(rho)",
        limit,
        strict=False,
    )


def _follows_rule(s: Setting) -> Condition:
    step, radius = s.step_size, s.radius
    right = isinstance(step, families.PLStep) and isinstance(radius, families.PLRadius)
    mu = s.growth_constant
    same = isinstance(step, families.PLStep) and (mu is None or step.pl == mu)
    return Condition(
        "the decreasing rule gamma_t = min((2t+1)/((t+1)^2 mu), gamma*), "
        "rho_t = min(1/(2t+1), rho*)",
        right and same,
        f"t_k is {step}, rho_k is {radius}",
    )


def _small_nonconvex_constants(s: Setting) -> Condition:
    """Whether the gradient keeps half of its weight: gamma (1 - L rho) >= 2 B Q."""
    smoothness, residual = s.largest_smoothness, s.seen_residual
    lam = method_classes.lam(s)
    if smoothness is None or residual is None or lam is None:
        return Condition("gamma (1 - L rho) >= 2 B Q", None, "L, B or Q is unknown")
    gamma, rho = s.step_size.supremum, s.radius.supremum
    spread = 2 * smoothness**2 * rho**2 * (1 - lam) ** 2 + 1
    q = gamma * smoothness * (rho * (1 - lam) ** 2 + gamma * spread)
    return below(
        "gamma (1 - L rho) >= 2 B Q",
        "2 B Q",
        2 * residual.B * q,
        "gamma (1 - L rho)",
        gamma * (1 - smoothness * rho),
        strict=False,
    )


def _unified_floor(s: Setting) -> str:
    known, lam = _constants(s), method_classes.lam(s)
    assert known is not None and lam is not None
    rule = unified.Rule(s.radius.supremum, s.step_size.supremum)
    rate = rule.gamma * known.mu
    return (
        f"E f(x_t) - f* <= (1 - {rate:.4g})^t (f(x_0) - f*) + N with "
        f"N = {unified.floor(known, lam, rule):.4g}"
    )


def _unified_mean_floor(s: Setting) -> str:
    residual, lam = s.seen_residual, method_classes.lam(s)
    assert residual is not None and lam is not None
    assert s.largest_smoothness is not None
    known = unified.Constants(0.0, s.largest_smoothness, residual)
    # At its limit gamma may have been rounded.
    rule = unified.Rule(s.radius.supremum, s.step_size.supremum * (1 - 1e-9))
    steps = s.horizon or 1
    [floor] = unified.nonconvex_bound(known, lam, rule, 0.0, [steps])
    grows = "" if residual.A == 0 else ", its first term as long as 2 A Q T <= 1"
    return f"min E||grad f||^2 is at most O(1/T) + {floor:.4g}{grows}"


_OF_VANISHING_GAP = (
    Conclusion(
        "so the gradients and the values converge (ours)",
        frozenset({3, 4}),
        (requirements.is_deterministic,),
    ),
    Conclusion(
        "so the iterates converge to the minimizer (ours)",
        frozenset({5}),
        (requirements.is_deterministic, requirements.is_strongly_convex),
    ),
)

_DRAWN_STEPS = (*requirements.AS_STATED, *requirements.UNBIASED)
_SMALL_ENOUGH = (_below_largest_radius, _below_largest_step)

THEOREMS: Sequence[Theorem] = (
    Theorem(
        "Oikonomou and Loizou, Theorem 3.2",
        "Unified SAM, stochastic, PL: linear to a neighbourhood",
        (
            _is_unified,
            *_DRAWN_STEPS,
            requirements.has_pl,
            _has_residual,
            *requirements.CONSTANTS,
            *_SMALL_ENOUGH,
        ),
        (Conclusion(_unified_floor),),
    ),
    Theorem(
        "Oikonomou and Loizou, Corollaries 3.3 and 3.4",
        "USAM, interpolation or full gradients, PL: linear to the minimum",
        (
            _is_unified,
            _is_exact_usam,
            *_DRAWN_STEPS,
            requirements.has_pl,
            _interpolates,
            *requirements.CONSTANTS,
            *_SMALL_ENOUGH,
        ),
        (Conclusion("E f(x_t) - f* -> 0 at a linear rate"), *_OF_VANISHING_GAP),
    ),
    Theorem(
        "Oikonomou and Loizou, Theorem 3.5",
        "Unified SAM, PL, decreasing steps and radius: 1/t for every lambda",
        (
            _is_unified,
            *_DRAWN_STEPS,
            requirements.has_pl,
            _has_residual,
            _follows_rule,
            *_SMALL_ENOUGH,
        ),
        (Conclusion("E f(x_t) - f* = O(1/t)"), *_OF_VANISHING_GAP),
    ),
    Theorem(
        "Oikonomou and Loizou, Theorem 3.7 (derived form)",
        "Unified SAM, stochastic, non-convex: a bound for a number of steps",
        (
            _is_unified,
            *_DRAWN_STEPS,
            requirements.is_bounded_below,
            _has_residual,
            *requirements.CONSTANTS,
            _small_nonconvex_constants,
        ),
        (Conclusion(_unified_mean_floor),),
    ),
)
