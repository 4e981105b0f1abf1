"""Si and Yun 2023, in the form with explicit constants of `step_sizes.si_yun`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from sam_jax.theory.conditions import requirements
from sam_jax.theory.conditions.requirements import Condition, Requirement, below, over
from sam_jax.theory.conditions.settings import Setting
from sam_jax.theory.conditions.theorems import Conclusion, Theorem
from sam_jax.theory.step_sizes import si_yun


def _step_below_inverse(factor: float, field: str) -> Requirement:
    limit_name = "1/beta" if factor == 1 else f"1/({factor:g} beta)"

    def check(s: Setting) -> Condition:
        limit = over(1.0 / factor, getattr(s, field))
        return below(
            f"eta <= {limit_name}",
            "sup eta",
            s.step_size.supremum,
            limit_name,
            limit,
            strict=False,
        )

    return check


def _variance_is_bounded(s: Setting) -> Condition:
    known = s.seen_variance
    return Condition(
        "the variance of the gradients is bounded",
        None if known is None else True,
        "sigma^2 is unknown" if known is None else f"sigma^2 = {known:.6g}",
    )


def _strongly_convex_floor(s: Setting) -> str:
    floor = _floor(
        s,
        si_yun.strongly_convex_bound,
        smoothness=s.smoothness,
        strong_convexity=s.growth_constant,
    )
    return (
        f"f(x_T) - f* comes linearly below {floor}, which is O(eta^2 rho^2); "
        "with eta ~ log T/T the rate is 1/T^2"
    )


def _convex_floor(s: Setting) -> str:
    floor = _floor(s, si_yun.convex_bound, smoothness=s.smoothness)
    return f"the mean of ||grad f||^2 is at most O(1/T) + {floor}"


def _nonconvex_floor(s: Setting) -> str:
    floor = _floor(s, si_yun.nonconvex_bound, smoothness=s.smoothness)
    return (
        f"the mean of ||grad f||^2 is at most O(1/T) + {floor}, (L rho)^2: a "
        "floor that no step size removes"
    )


def _stochastic_gap_floor(s: Setting) -> str:
    floor = _floor(
        s,
        si_yun.stochastic_strongly_convex_bound,
        smoothness=s.largest_smoothness,
        strong_convexity=s.growth_constant,
        variance=s.seen_variance,
    )
    return (
        f"E f(x_T) - f* comes linearly below {floor}; a part of order rho^2 "
        "stays for every step size"
    )


def _stochastic_mean_floor(s: Setting) -> str:
    floor = _floor(
        s,
        si_yun.stochastic_bound,
        smoothness=s.largest_smoothness,
        variance=s.seen_variance,
    )
    return (
        f"the mean of E||grad f||^2 is at most O(1/T) + {floor}; a part of "
        "order rho^2 stays for every step size"
    )


def _floor(s: Setting, bound: Callable[..., Any], **constants: float | None) -> str:
    """What is left of a bound where the start is forgotten."""
    known = {name: math.nan if x is None else x for name, x in constants.items()}
    floor = bound(s.step_size.supremum, 1, rho=s.radius.supremum, gap=0.0, **known)
    return f"{float(floor):.4g}"


THEOREMS: Sequence[Theorem] = (
    Theorem(
        "Si and Yun, Theorem 3.1 (derived form)",
        "SAM, deterministic, strongly convex",
        (
            requirements.is_sam,
            *requirements.AS_STATED,
            requirements.is_deterministic,
            requirements.is_smooth,
            requirements.is_convex,
            requirements.has_pl,
            *requirements.CONSTANTS,
            _step_below_inverse(2, "smoothness"),
        ),
        (Conclusion(_strongly_convex_floor),),
    ),
    Theorem(
        "Si and Yun, Theorem 3.3 (derived form)",
        "SAM, deterministic, convex",
        (
            requirements.is_sam,
            *requirements.AS_STATED,
            requirements.is_deterministic,
            requirements.is_smooth,
            requirements.is_convex,
            requirements.is_bounded_below,
            *requirements.CONSTANTS,
            _step_below_inverse(2, "smoothness"),
        ),
        (Conclusion(_convex_floor),),
    ),
    Theorem(
        "Si and Yun, Theorem 3.4 (derived form)",
        "SAM, deterministic, non-convex",
        (
            requirements.is_sam,
            *requirements.AS_STATED,
            requirements.is_deterministic,
            requirements.is_smooth,
            requirements.is_bounded_below,
            *requirements.CONSTANTS,
            _step_below_inverse(1, "smoothness"),
        ),
        (Conclusion(_nonconvex_floor),),
    ),
    Theorem(
        "Si and Yun, Theorem 4.1 (derived form)",
        "SAM, stochastic, strongly convex",
        (
            requirements.is_sam,
            *requirements.AS_STATED,
            *requirements.UNBIASED,
            requirements.has_pl,
            _variance_is_bounded,
            *requirements.CONSTANTS,
            _step_below_inverse(2, "largest_smoothness"),
        ),
        (Conclusion(_stochastic_gap_floor),),
    ),
    Theorem(
        "Si and Yun, Theorems 4.3 and 4.5 (derived form)",
        "SAM, stochastic, convex or not",
        (
            requirements.is_sam,
            *requirements.AS_STATED,
            *requirements.UNBIASED,
            requirements.is_bounded_below,
            _variance_is_bounded,
            *requirements.CONSTANTS,
            _step_below_inverse(1, "largest_smoothness"),
        ),
        (Conclusion(_stochastic_mean_floor),),
    ),
)
