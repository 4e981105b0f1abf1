"""Si and Yun 2023, in the form with explicit constants of `step_sizes.si_yun`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from sam_jax.theory.conditions import requirements
from sam_jax.theory.conditions.requirements import Condition, Requirement, below, over
from sam_jax.theory.conditions.settings import Setting
from sam_jax.theory.conditions.theorems import Conclusion, Theorem
from sam_jax.theory.step_sizes import Constants, Rule, si_yun


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
    text = "the variance of the gradients is bounded"
    return requirements.is_given(text, **{"sigma^2": s.seen_variance})


def _theorem(
    numbers: str,
    about: str,
    needs: Sequence[Requirement],
    largest_step: Requirement,
    bound: Callable[[Constants, Rule, float, int], Any],
    text: str,
) -> Theorem:
    """A theorem on SAM with constants; its text gives the bound without the start."""

    def conclusion(s: Setting) -> str:
        known = Constants(
            s.growth_constant or 0.0,
            s.largest_smoothness or math.nan,
            variance=math.inf if s.seen_variance is None else s.seen_variance,
        )
        rule = Rule(s.radius.supremum, s.step_size.supremum)
        return text.format(f"{float(bound(known, rule, 0.0, 1)):.4g}")

    return Theorem(
        f"Si and Yun, {numbers} (derived form)",
        f"SAM, {about}",
        (
            requirements.is_sam,
            *requirements.AS_STATED,
            *needs,
            *requirements.CONSTANTS,
            largest_step,
        ),
        (Conclusion(conclusion),),
    )


_DETERMINISTIC = (requirements.is_deterministic, requirements.is_smooth)

THEOREMS: Sequence[Theorem] = (
    _theorem(
        "Theorem 3.1",
        "deterministic, strongly convex",
        (*_DETERMINISTIC, requirements.is_convex, requirements.has_pl),
        _step_below_inverse(2, "smoothness"),
        si_yun.strongly_convex_bound,
        "f(x_T) - f* falls linearly below {}, which is O(eta^2 rho^2); "
        "with eta ~ log T/T the rate is 1/T^2",
    ),
    _theorem(
        "Theorem 3.3",
        "deterministic, convex",
        (*_DETERMINISTIC, requirements.is_convex, requirements.is_bounded_below),
        _step_below_inverse(2, "smoothness"),
        si_yun.convex_bound,
        "the mean of ||grad f||^2 is at most O(1/T) + {}",
    ),
    _theorem(
        "Theorem 3.4",
        "deterministic, non-convex",
        (*_DETERMINISTIC, requirements.is_bounded_below),
        _step_below_inverse(1, "smoothness"),
        si_yun.nonconvex_bound,
        "the mean of ||grad f||^2 is at most O(1/T) + {}, (L rho)^2: a "
        "floor that no step size removes",
    ),
    _theorem(
        "Theorem 4.1",
        "stochastic, strongly convex",
        (*requirements.UNBIASED, requirements.has_pl, _variance_is_bounded),
        _step_below_inverse(2, "largest_smoothness"),
        si_yun.stochastic_strongly_convex_bound,
        "E f(x_T) - f* falls linearly below {}; a part of order rho^2 "
        "stays for every step size",
    ),
    _theorem(
        "Theorems 4.3 and 4.5",
        "stochastic, convex or not",
        (*requirements.UNBIASED, requirements.is_bounded_below, _variance_is_bounded),
        _step_below_inverse(1, "largest_smoothness"),
        si_yun.stochastic_bound,
        "the mean of E||grad f||^2 is at most O(1/T) + {}; a part of "
        "order rho^2 stays for every step size",
    ),
)
