"""Khanh et al. 2024: methods with an absolute or a relative error."""

import dataclasses
from collections.abc import Callable, Sequence

from sam_jax.theory import orders
from sam_jax.theory.conditions import method_classes, requirements
from sam_jax.theory.conditions.requirements import Condition, Requirement, below, over
from sam_jax.theory.conditions.settings import Setting
from sam_jax.theory.conditions.theorems import Conclusion, Theorem
from sam_jax.theory.step_sizes import khanh

_is_unnormalized = requirements.method_is(
    "USAM, extragradient or IGDr", method_classes.UNNORMALIZED
)


def _has_absolute_error(s: Setting) -> Condition:
    factor = method_classes.error_factor(s)
    named = method_classes.is_one_of(s, method_classes.NORMALIZED)
    found = "no such bound is known"
    if named:
        found = "it perturbs by a vector of length rho_k at most: eps_k = L rho_k"
    elif s.method == "igd":
        found = "eps_k is given"
    elif factor is not None:
        found = f"eps_k = {factor:.3g} L rho_k (ours, from its definition)"
    return Condition(
        "the direction is within eps_k of the gradient, eps_k a multiple of rho_k",
        factor is not None,
        f"{requirements.name_of(s)}: {found}",
    )


_decays_as_gradient = requirements.asks(
    "weight decay, if any, is the gradient of a part of f",
    lambda s: True,
    lambda s: (
        f"f stands for f + {s.outside_decay:g}/2 ||w||^2: the error is the same (ours)"
        if s.outside_decay
        else "no weight decay outside f"
    ),
)
_has_level_sets = requirements.fact("f has bounded level sets", "bounded_level_sets")


def _is_attracted(s: Setting) -> Condition:
    """Whether f attains the limit of f(x^k), which is bounded in all theorems."""
    bounded, mu = s.bounded_level_sets, s.growth_constant
    return Condition(
        "f has bounded level sets, or is Polyak-Lojasiewicz",
        bool(bounded or mu) or None,  # without, the iterates may be bounded yet
        f"bounded level sets: {bounded}, mu = {mu}",
    )


def _has_kl(s: Setting) -> Condition:
    text = "f has the KL property with phi = M t^(1-q)"
    return requirements.is_given(text, q=s.kl_exponent)


def _sum(
    name: str, finite: bool, order_of: Callable[[Setting], orders.Order]
) -> Requirement:
    def check(s: Setting) -> Condition:
        order = order_of(s)
        why = f" ~ {order}: {order.why()}" if order.terms else f" is {order}"
        text = f"sum {name} {'<' if finite else '='} infinity"
        return Condition(text, order.summable == finite, name + why)

    return check


_sum_diverges = _sum("t_k", False, lambda s: s.step_size.order)
_squares_sum = _sum("t_k^2", True, lambda s: s.step_size.order * s.step_size.order)
_products_sum = _sum("t_k rho_k", True, lambda s: s.step_size.order * s.radius.order)


_steps_vanish = requirements.asks(
    "t_k tends to 0",
    lambda s: s.step_size.vanishes,
    lambda s: (
        f"t_k ~ {s.step_size.order}" if s.step_size.order.terms else "it ends at 0"
    ),
)
_radius_is_bounded = requirements.asks(
    "sup rho_k < infinity",
    lambda s: True,
    lambda s: f"sup rho_k = {s.radius.supremum:g}",
)
_stays_away = requirements.asks(
    "t_k is bounded away from 0",
    lambda s: s.step_size.order.bounded_away,
    lambda s: f"t_k ~ {s.step_size.order}",
)


def _error_below_two(s: Setting) -> Condition:
    factor = method_classes.error_factor(s)
    scale = 1.0 if s.method == "igd" else s.smoothness
    product = None if factor is None or scale is None else factor * scale
    what = "eps_k" if s.method == "igd" else "rho_k"
    limit = "2/L" if factor in (None, 1.0) else f"2/({factor:.3g} L)"
    return below(
        f"limsup {what} < {'2' if s.method == 'igd' else limit}",
        f"limsup {what}",
        s.radius.limsup,
        "2" if s.method == "igd" else limit,
        over(2.0, product),
    )


def _error_is_relative(s: Setting) -> Condition:
    """Theorem 4.2 requires only L-descent, but its proof needs the gradient of (3)."""
    text = "the direction is within nu ||grad f|| of the gradient"
    if s.method == "igdr" or s.radius.supremum == 0:
        return Condition(text, True, "nu_k is given" if s.radius.supremum else "it is")
    smooth = requirements.is_smooth(s)
    why = "nu_k = L rho_k, if the gradient is Lipschitz continuous"
    return Condition(text, smooth.holds, f"{why}: {smooth.reason}")


def _relative_error(s: Setting) -> float | None:
    """The limit superior of nu: the theorem also applies from a late iterate on."""
    rho = s.radius.limsup
    if s.method == "igdr" or rho == 0:
        return rho
    return None if s.smoothness is None else s.smoothness * rho


def _relative_error_below_one(s: Setting) -> Condition:
    if s.method == "igdr":
        return below("limsup nu_k < 1", "limsup nu_k", s.radius.limsup, "1", 1.0)
    return below(
        "rho_k <= nu/L with nu < 1 from some k on",
        "limsup rho_k",
        s.radius.limsup,
        "1/L",
        over(1.0, s.smoothness),
    )


def _steps_below_relative_limit(s: Setting) -> Condition:
    nu, limit = _relative_error(s), None
    if s.smoothness is not None and nu is not None:
        limit = 2 * max(1 - nu, 0.0) / (s.smoothness * (1 + nu) ** 2)
    return below(
        "t_k <= (2 - 2 nu - delta)/(L (1 + nu)^2) for large k",
        "limsup t_k",
        s.step_size.limsup,
        "(2 - 2 nu)/(L (1 + nu)^2)",
        limit,
    )


def _kl_sum(s: Setting) -> Condition:
    q = s.kl_exponent
    products = s.step_size.order * s.radius.order
    text = "sum t_k (sum_{i>=k} t_i eps_i)^q < infinity, condition (9)"
    if q is None:
        return Condition(text, None, "q is unknown")
    if not products.summable:
        return Condition(text, False, "the inner sum is infinite")
    if not products.terms:
        return Condition(text, q > 0, "the inner sum is 0 from some k on")
    tails = products.tail().root(orders.exact(q)) if q else orders.ONE
    order = s.step_size.order * tails
    return Condition(text, order.summable, f"its terms ~ {order}: {order.why()}")


# log(1 + exp(-x)) has the KL property, as no point is critical, and no rate.
_IF_IT_STAYS = "if there is an accumulation point: "


def _kl_rate(s: Setting) -> str:
    q = s.kl_exponent
    assert q is not None
    if q == 0:
        return f"{_IF_IT_STAYS}it stops after finitely many steps"
    if q <= 0.5:
        return f"{_IF_IT_STAYS}linear convergence of iterates, gradients and values"
    rates = khanh.kl_rates(q)
    return (
        f"{_IF_IT_STAYS}rates: iterates O(k^-{rates.iterates:.4g}), gradients "
        f"O(k^-{rates.gradients:.4g}), values O(k^-{rates.gap:.4g})"
    )


def _descends(s: Setting) -> str:
    free = "" if s.bounded_below else "f(x^k) -> -infinity, or "
    return f"{free}every accumulation point is stationary"


_FULL_STEPS = (requirements.is_deterministic, requirements.is_plain)
_OF_F = (requirements.is_smooth, requirements.is_bounded_below, _sum_diverges)
_GRADIENTS_VANISH = Conclusion("lim ||grad f(x^k)|| = 0", frozenset({3}))
_VALUES_CONVERGE = Conclusion(
    "f(x^k) converges to its value at a stationary point",
    frozenset({4}),
    (_is_attracted,),
)

THEOREMS: Sequence[Theorem] = (
    Theorem(
        "Khanh et al., Theorem 3.2",
        "SAM on convex functions, a constant radius is allowed",
        (
            requirements.is_sam,
            *_FULL_STEPS,
            requirements.decays_inside,
            requirements.is_convex,
            *_OF_F,
            _squares_sum,
            _radius_is_bounded,
        ),
        (
            Conclusion("liminf ||grad f(x^k)|| = 0", frozenset({1})),
            Conclusion(
                "accumulation points are minimizers, f(x^k) -> min f",
                frozenset({2, 4}),
                (_has_level_sets,),
            ),
            Conclusion(
                "the iterates converge to the minimizer",
                frozenset({5}),
                (requirements.is_strongly_convex,),
            ),
        ),
    ),
    Theorem(
        "Khanh et al., Theorem 3.3 and Corollary 3.5",
        "SAM and other methods with an absolute error, diminishing steps",
        (
            _has_absolute_error,
            *_FULL_STEPS,
            _decays_as_gradient,
            *_OF_F,
            _steps_vanish,
            _products_sum,
            _error_below_two,
        ),
        (
            _GRADIENTS_VANISH,
            _VALUES_CONVERGE,
            Conclusion(
                "the iterates converge, if they have an accumulation point and stay "
                "above its value",
                needs=(_has_kl, _kl_sum),
            ),
            Conclusion(
                "the iterates converge to the minimizer (ours)",
                frozenset({5}),
                (requirements.is_strongly_convex,),
            ),
        ),
    ),
    Theorem(
        "Khanh et al., Theorems 4.1 and 4.2",
        "USAM, extragradient and IGDr, constant steps and radii are allowed",
        (
            _is_unnormalized,
            *_FULL_STEPS,
            requirements.decays_inside,
            requirements.has_descent,
            _sum_diverges,
            _error_is_relative,
            _relative_error_below_one,
            _steps_below_relative_limit,
        ),
        (
            Conclusion(_descends, frozenset({2})),
            dataclasses.replace(
                _GRADIENTS_VANISH,
                needs=(requirements.is_smooth, requirements.is_bounded_below),
            ),
            _VALUES_CONVERGE,
            Conclusion(
                "the iterates converge, if they have an accumulation point",
                needs=(_has_kl,),
            ),
            Conclusion(
                "they have one, so that the iterates converge",
                frozenset({5}),
                (_has_kl, _is_attracted),
            ),
            Conclusion(_kl_rate, needs=(_has_kl, _stays_away)),
        ),
    ),
)
