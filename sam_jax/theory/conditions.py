r"""Which theorem applies: every condition by itself, and what follows.

A `Setting` says what is run: a method, a step size and a radius as symbolic
`families`, and what is known of the function. `assess` holds it against every theorem
of the three papers, condition by condition; `properties` collects which of the five
fundamental convergence properties (Khanh et al. 2024, Table 1) follow.

A condition holds, fails, or is unknown, because a constant is not known. Theorems of
Si and Yun 2023 stand here in the form with explicit constants that
`sam_jax.theory.step_sizes.si_yun` derives.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from sam_jax.theory import families, finite_sums, problems, sampling
from sam_jax.theory.step_sizes import khanh, si_yun, unified

# The five fundamental convergence properties.
PROPERTIES: Mapping[int, str] = {
    1: "liminf ||grad f(x^k)|| = 0",
    2: "every accumulation point of the iterates is stationary",
    3: "lim ||grad f(x^k)|| = 0",
    4: "f(x^k) converges to the value of a stationary point",
    5: "the iterates converge to a stationary point",
}
# The paper's implications, and (3) => (1), which is immediate. (2) => (1) would need
# that ||x^k|| does not tend to infinity.
_IMPLIED: Mapping[int, frozenset[int]] = {
    3: frozenset({1, 2}),
    5: frozenset({1, 2, 3, 4}),
}


_NO_RADIUS = families.Constant(0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is run, and on what. None is unknown.

    Attributes:
        method: name of a method of `sam_jax`, ``"sgd"`` for none (also with full
            gradients), or ``"igd"`` for steps along any g^k with
            ||g^k - grad f(x^k)|| <= eps_k, where ``radius`` stands for eps_k.
        step_size: t_k.
        radius: rho_k.
        coefficients: of the method, such as ``{"lam": 0.5}``.
        smooth: whether the gradient is Lipschitz continuous.
        smoothness: L, its constant.
        sampled_smoothness: the largest L of what a single step sees; ``smoothness`` if
            steps see all of f.
        convex: whether f is convex.
        strong_convexity: mu; 0 if f is not strongly convex.
        pl: Polyak-Lojasiewicz constant; 0 if there is none.
        bounded_below: whether inf f(x^k) > -infinity.
        bounded_level_set: whether f has one that is bounded and not empty.
        kl_exponent: q of the Kurdyka-Lojasiewicz function M t^(1-q), in [0, 1).
        stochastic: whether a step sees a sample of f.
        residual: A, B, C of the expected residual condition of the samples.
        variance: upper bound of E||g - grad f||^2.
        others: what else happens to a step besides x - t g, such as ``"momentum 0.9"``.
        outside_decay: coefficient of a weight decay that is added to the direction
            instead of the function.
        every_update: whether the method is used in every update; if not, the others
            are plain gradient steps.
        horizon: number of steps, where it is fixed in advance.
    """

    method: str = "sam"
    step_size: families.Family
    radius: families.Family = _NO_RADIUS
    coefficients: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    smooth: bool | None = None
    smoothness: float | None = None
    sampled_smoothness: float | None = None
    convex: bool | None = None
    strong_convexity: float | None = None
    pl: float | None = None
    bounded_below: bool | None = None
    bounded_level_set: bool | None = None
    kl_exponent: float | None = None
    stochastic: bool = False
    residual: sampling.ExpectedResidual | None = None
    variance: float | None = None
    others: Sequence[str] = ()
    outside_decay: float = 0.0
    every_update: bool = True
    horizon: int | None = None

    def __post_init__(self) -> None:
        for name in ("strong_convexity", "pl"):
            mu = getattr(self, name) or 0.0
            if self.smoothness is not None and not 0 <= mu <= self.smoothness:
                raise ValueError(
                    f"{name} must be in [0, L], got mu = {mu:g} and L = "
                    f"{self.smoothness:g}"
                )
        if self.kl_exponent is not None and not 0 <= self.kl_exponent < 1:
            raise ValueError(f"kl_exponent must be in [0, 1), got {self.kl_exponent!r}")

    @property
    def largest_smoothness(self) -> float | None:
        """L of what a step sees."""
        return self.sampled_smoothness if self.stochastic else self.smoothness

    @property
    def seen_residual(self) -> sampling.ExpectedResidual | None:
        """A, B and C; those of full gradients if there are no samples."""
        return self.residual if self.stochastic else unified.EXACT

    @property
    def seen_variance(self) -> float | None:
        """The bound of the variance; 0 of full gradients."""
        return self.variance if self.stochastic else 0.0

    @property
    def growth_constant(self) -> float | None:
        """The Polyak-Lojasiewicz constant, which a strong convexity is too."""
        known = [mu for mu in (self.pl, self.strong_convexity) if mu is not None]
        return max(known, default=None)

    @property
    def lam(self) -> float | None:
        """Lambda if the method is a Unified SAM; None if it is none, or it varies."""
        value = _LAMBDAS.get(self.method, self.coefficients.get("lam"))
        is_unified = self.method in _LAMBDAS or self.method == "unified_sam"
        whole = self.coefficients.get("mask") is None
        number = isinstance(value, int | float)
        return float(value) if is_unified and whole and number else None


def on(problem: problems.Problem, **others: Any) -> Setting:
    """A setting on a problem whose constants are known.

    Args:
        problem: the function; with ``scheme=...``, a finite sum whose samples the steps
            see.
        **others: fields of `Setting`, and ``scheme``, a `sampling.Sampling`.

    Returns:
        The setting.

    Raises:
        ValueError: if constants contradict each other.
        TypeError: if ``scheme`` is given for a problem that is no finite sum.

    Example:
        >>> problem = problems.quadratic([1.0, 10.0], [1.0, 1.0])
        >>> setting = on(problem, method="usam", step_size=families.Constant(0.1))
        >>> sorted(properties(assess(setting)))
        [1, 2, 3, 4, 5]
    """
    known: dict[str, Any] = {
        "smooth": math.isfinite(problem.smoothness),
        "smoothness": problem.smoothness,
        "convex": problem.convex,
        "strong_convexity": problem.strong_convexity,
        "pl": problem.pl,
        "bounded_below": True,
        "bounded_level_set": True if problem.strong_convexity > 0 else None,
        "kl_exponent": 0.5 if problem.pl > 0 else None,
    }
    scheme = others.pop("scheme", None)
    if scheme is not None:
        if not isinstance(problem, finite_sums.FiniteSum):
            raise TypeError("a sampling scheme needs a finite sum")
        known |= {
            "stochastic": True,
            "sampled_smoothness": problem.largest_smoothness,
            "residual": sampling.expected_residual(scheme, problem),
        }
    return Setting(**(known | others))


# ── Methods ──────────────────────────────────────────────────────────────────────────

_LAMBDAS: Mapping[str, float] = {"sam": 1.0, "usam": 0.0, "sgd": 0.0}

# Methods whose direction is grad f(x + rho d/||d||) with some d: Algorithm 1a. Where a
# coefficient decides, its value.
_NORMALIZED: Mapping[str, Mapping[str, Any]] = {
    "sgd": {},
    "sam": {},
    "friendly_sam": {},
    "random_sam": {},
    "async_sam": {},
    "vasso": {"lam": 1.0},
    "unified_sam": {"lam": 1.0},
}
# Those with d = grad f(x), all of it.
_SAM: Mapping[str, Mapping[str, Any]] = {
    "sgd": {},
    "sam": {"mask": None},
    "unified_sam": {"lam": 1.0, "mask": None},
}
# Methods whose direction is grad f(x +- rho d), d the gradient or a part of it.
_UNNORMALIZED: Mapping[str, Mapping[str, Any]] = {
    "sgd": {},
    "usam": {},
    "extragradient": {},
    "unified_sam": {"lam": 0.0},
}
# c with ||g - grad f(x)|| <= c L rho, from the definitions of the methods (ours): steps
# with an absolute error, which Theorem 3.3 covers, though the paper does not name them.
_ERRORS: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "igd": lambda c: 1.0,
    "ae_sam": lambda c: 1.0,
    "sparse_sam": lambda c: 1.0,
    "dynamic_sparse_sam": lambda c: 1.0,
    "fisher_sam": lambda c: 1.0,
    "multistep_sam": lambda c: 1.0 if c.get("project", True) else c["steps"],
    "stable_sam": lambda c: 2.0,
    "gnp": lambda c: math.inf if c.get("normalize_clean") else c["alpha"],
    "gsam": lambda c: 1.0 + c["alpha"],
    "wsam": lambda c: c["gamma"] / (1.0 - c["gamma"]),
    "decoupled_wsam": lambda c: c["gamma"] / (1.0 - c["gamma"]),
    "cr_sam": lambda c: 1.0 + 2.0 * c["gamma"] + 2.0 * c["beta"],
    "eigen_sam": lambda c: math.hypot(1.0, c["alpha"]),
    "esam": lambda c: 1.0 / c["beta"] if c["gamma"] == 1 else math.inf,
}


def methods() -> frozenset[str]:
    """Names of all methods of which some theorem speaks, for some coefficients.

    Example:
        >>> "vasso" in methods(), "looksam" in methods()
        (True, False)
    """
    return frozenset().union(_NORMALIZED, _UNNORMALIZED, _ERRORS, _LAMBDAS)


def _is_one_of(
    setting: Setting, methods: Mapping[str, Mapping[str, Any]]
) -> bool | None:
    needed = methods.get(setting.method)
    if needed is None:
        return False
    return all(setting.coefficients.get(k) == v for k, v in needed.items())


def error_factor(setting: Setting) -> float | None:
    """The c of ||g^k - grad f(x^k)|| <= c L rho_k for the method's direction g^k.

    Args:
        setting: what is run.

    Returns:
        The factor; None if none is known.

    Example:
        >>> step_size = families.Constant(0.1)
        >>> error_factor(
        ...     Setting(method="gsam", coefficients={"alpha": 0.4}, step_size=step_size)
        ... )
        1.4
    """
    if _is_one_of(setting, _NORMALIZED):
        return 1.0
    if setting.method not in _ERRORS:
        return None
    try:
        factor = float(_ERRORS[setting.method](setting.coefficients))
    except (KeyError, TypeError, ZeroDivisionError):  # unknown, or a schedule
        return None
    return factor if math.isfinite(factor) else None


# ── Conditions ───────────────────────────────────────────────────────────────────────


class Condition(NamedTuple):
    """A condition of a theorem in a setting.

    Attributes:
        text: the condition.
        holds: True, False, or None if that is unknown.
        reason: why, with both sides' values.
        remedy: what to change for it to hold, in words; empty if nothing can.
    """

    text: str
    holds: bool | None
    reason: str
    remedy: str = ""


Requirement = Callable[[Setting], Condition]


def _method_is(
    what: str, methods: Mapping[str, Mapping[str, Any]], remedy: str
) -> Requirement:
    def check(s: Setting) -> Condition:
        return Condition(
            f"the method is {what}", _is_one_of(s, methods), f"it is {_name(s)}", remedy
        )

    return check


def _name(s: Setting) -> str:
    lam = s.coefficients.get("lam")
    return s.method if lam is None else f"{s.method} with lam = {lam}"


_is_sam = _method_is("SAM (normalized, ascent along the gradient)", _SAM, "use sam")
_is_unnormalized = _method_is(
    "USAM or extragradient", _UNNORMALIZED, "use usam or extragradient"
)


def _has_absolute_error(s: Setting) -> Condition:
    factor = error_factor(s)
    named = _is_one_of(s, _NORMALIZED)
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
        f"{_name(s)}: {found}",
        "use sam, friendly_sam, vasso or random_sam",
    )


def _is_unified(s: Setting) -> Condition:
    return Condition(
        "the method is Unified SAM with a constant lambda",
        s.lam is not None,
        f"it is {_name(s)}" if s.lam is None else f"lambda = {s.lam:g}",
        "use sam, usam, or unified_sam with a number for lam",
    )


def _is_exact_usam(s: Setting) -> Condition:
    known = s.lam
    free = s.method == "sgd" or s.radius.supremum == 0
    return Condition(
        "lambda = 0 (USAM), or no radius",
        None if known is None else known == 0 or free,
        f"it is {_name(s)}",
        "use usam",
    )


def _is_deterministic(s: Setting) -> Condition:
    return Condition(
        "full gradients (deterministic)",
        not s.stochastic,
        "a step sees a sample of f" if s.stochastic else "a step sees all of f",
        "full batches, without augmentation or dropout",
    )


def _is_plain(s: Setting) -> Condition:
    return Condition(
        "steps x - t_k g_k and nothing else (no momentum)",
        not s.others,
        f"there is {', '.join(s.others)}" if s.others else "nothing else",
        "plain SGD: no momentum, no clipping",
    )


def _decays_inside(s: Setting) -> Condition:
    return Condition(
        "weight decay, if any, is part of f",
        s.outside_decay == 0,
        f"{s.outside_decay:g} w is added to the direction"
        if s.outside_decay
        else "there is none outside of f",
        "put the weight decay into the loss, or leave it out",
    )


def _decays_as_gradient(s: Setting) -> Condition:
    decay = f"{s.outside_decay:g}"
    return Condition(
        "weight decay, if any, is the gradient of a part of f",
        True,
        f"f stands for f + {decay}/2 ||w||^2: the error is the same (ours)"
        if s.outside_decay
        else "there is none outside of f",
    )


def _is_every_update(s: Setting) -> Condition:
    return Condition(
        "the method is used in every update",
        s.every_update,
        "in every update" if s.every_update else "some updates are plain gradients",
        "use the method in every update",
    )


def _is_smooth(s: Setting) -> Condition:
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


def _fact(text: str, field: str) -> Requirement:
    def check(s: Setting) -> Condition:
        value = getattr(s, field)
        holds = None if value is None else bool(value)
        return Condition(
            text, holds, {True: "yes", False: "no", None: "unknown"}[holds]
        )

    return check


_is_convex = _fact("f is convex", "convex")
_is_bounded_below = _fact("inf f(x^k) > -infinity", "bounded_below")
_has_level_set = _fact("f has a bounded level set", "bounded_level_set")
_is_strongly_convex = _fact("f is strongly convex", "strong_convexity")
_has_kl = _fact("f has the KL property with phi = M t^(1-q)", "kl_exponent")


def _has_pl(s: Setting) -> Condition:
    mu = s.growth_constant
    return Condition(
        "f is Polyak-Lojasiewicz or strongly convex, mu > 0",
        None if mu is None else mu > 0,
        "mu is unknown" if mu is None else f"mu = {mu:g}",
    )


def _sum_diverges(s: Setting) -> Condition:
    order = s.step_size.order
    return Condition(
        "sum t_k = infinity",
        s.step_size.sum_diverges,
        _series("t_k", order),
        "a step size that does not end: constant or C/k^p with p <= 1",
    )


def _series(name: str, order: families.Order) -> str:
    return f"{name} ~ {order}: {order.why()}" if order.terms else f"{name} is {order}"


def _squares_sum(s: Setting) -> Condition:
    order = s.step_size.order * s.step_size.order
    return Condition(
        "sum t_k^2 < infinity",
        s.step_size.square_summable,
        _series("t_k^2", order),
        "a step size C/k^p with 1/2 < p <= 1",
    )


def _steps_vanish(s: Setting) -> Condition:
    return Condition(
        "t_k tends to 0",
        s.step_size.vanishes,
        f"t_k ~ {s.step_size.order}" if s.step_size.order.terms else "it ends at 0",
        "a step size C/k^p with p <= 1",
    )


def _products_sum(s: Setting) -> Condition:
    order = s.step_size.order * s.radius.order
    return Condition(
        "sum t_k rho_k < infinity",
        order.summable,
        _series("t_k rho_k", order),
        "a radius C/k^p with the exponents of t_k and rho_k adding up to more than 1",
    )


def _radius_is_bounded(s: Setting) -> Condition:
    return Condition("sup rho_k < infinity", True, f"sup rho_k = {s.radius.supremum:g}")


def _below(
    text: str,
    name: str,
    value: float | None,
    limit_name: str,
    limit: float | None,
    *,
    strict: bool = True,
    remedy: str = "",
) -> Condition:
    """A comparison of two numbers, unknown if one of them is; 0 is below any limit."""
    remedy = remedy or f"make {name} smaller"
    if value == 0:
        return Condition(text, True, f"{name} = 0", remedy)
    if value is None or limit is None:
        unknown = name if value is None else limit_name
        side = "" if value is None else f"{name} = {value:.6g}; "
        return Condition(text, None, f"{side}{unknown} is unknown", remedy)
    # A constant at its limit may have been rounded.
    holds = value < limit if strict else value <= limit * (1 + 1e-12)
    sign = ("<" if strict else "<=") if holds else (">=" if strict else ">")
    return Condition(
        text, holds, f"{name} = {value:.6g} {sign} {limit_name} = {limit:.6g}", remedy
    )


def _over(numerator: float, denominator: float | None) -> float | None:
    return None if denominator is None else numerator / denominator


def _error_below_two(s: Setting) -> Condition:
    factor = error_factor(s)
    scale = 1.0 if s.method == "igd" else s.smoothness
    product = None if factor is None or scale is None else factor * scale
    what = "eps_k" if s.method == "igd" else "rho_k"
    limit = "2/L" if factor in (None, 1.0) else f"2/({factor:.3g} L)"
    return _below(
        f"limsup {what} < {'2' if s.method == 'igd' else limit}",
        f"limsup {what}",
        s.radius.limsup,
        "2" if s.method == "igd" else limit,
        _over(2.0, product),
    )


def _relative_error(s: Setting) -> float | None:
    """The nu in the long run: the theorem may be started at a late iterate."""
    limit = s.radius.limsup
    return 0.0 if limit == 0 else _times(s.smoothness, limit)


def _times(a: float | None, b: float) -> float | None:
    return None if a is None else a * b


def _relative_error_below_one(s: Setting) -> Condition:
    return _below(
        "rho_k <= nu/L with nu < 1 from some k on",
        "limsup rho_k",
        s.radius.limsup,
        "1/L",
        _over(1.0, s.smoothness),
    )


def _steps_below_relative_limit(s: Setting) -> Condition:
    nu, smoothness = _relative_error(s), s.smoothness
    limit = None
    if nu is not None and smoothness is not None:
        limit = 2 * max(1 - nu, 0.0) / (smoothness * (1 + nu) ** 2)
    return _below(
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
    remedy = "a radius that falls faster"
    if q is None:
        return Condition(text, None, "q is unknown", remedy)
    if not products.summable:
        return Condition(text, False, "the inner sum is infinite", remedy)
    if not products.terms:
        return Condition(text, q > 0, "the inner sum is 0 from some k on", remedy)
    tails = products.tail().root(families.exact(q)) if q else _level_order()
    order = s.step_size.order * tails
    return Condition(
        text, order.summable, f"its terms ~ {order}: {order.why()}", remedy
    )


def _level_order() -> families.Order:
    return families.power_order(Fraction(0))


def _stays_away(s: Setting) -> Condition:
    return Condition(
        "t_k is bounded away from 0",
        s.step_size.order.bounded_away,
        f"t_k ~ {s.step_size.order}",
        "a constant step size",
    )


def _is_constant(what: str, field: str) -> Requirement:
    def check(s: Setting) -> Condition:
        family = getattr(s, field)
        return Condition(
            f"the {what} is constant",
            isinstance(family, families.Constant),
            f"it is {family}",
            f"a constant {what}",
        )

    return check


_constant_step = _is_constant("step size", "step_size")
_constant_radius = _is_constant("radius", "radius")


def _step_below_inverse(factor: float, field: str) -> Requirement:
    limit_name = "1/beta" if factor == 1 else f"1/({factor:g} beta)"

    def check(s: Setting) -> Condition:
        limit = _over(1.0 / factor, getattr(s, field))
        return _below(
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


def _has_residual(s: Setting) -> Condition:
    r = s.seen_residual
    return Condition(
        "expected residual: E||g||^2 <= 2A (f - f^inf) + B||grad f||^2 + C",
        None if r is None else True,
        "A, B, C are unknown"
        if r is None
        else f"A = {r.A:.6g}, B = {r.B:.6g}, C = {r.C:.6g}",
    )


def _interpolates(s: Setting) -> Condition:
    r = s.seen_residual
    return Condition(
        "C = 0 (interpolation, or full gradients)",
        None if r is None else r.C == 0,
        "C is unknown" if r is None else f"C = {r.C:.6g}",
    )


def _constants(s: Setting) -> unified.Constants | None:
    """Of Unified SAM's theorems, if all are known and there is a mu."""
    mu, smoothness, residual = (
        s.growth_constant,
        s.largest_smoothness,
        s.seen_residual,
    )
    if not mu or smoothness is None or residual is None or mu > smoothness:
        return None
    return unified.Constants(mu, smoothness, residual)


def _below_largest_radius(s: Setting) -> Condition:
    known, lam = _constants(s), s.lam
    limit = None
    if known is not None and lam is not None:
        limit = unified.largest_radius(known, lam)
    return _below("rho < rho*", "sup rho", s.radius.supremum, "rho*", limit)


def _below_largest_step(s: Setting) -> Condition:
    known, lam, rho = _constants(s), s.lam, s.radius.supremum
    limit = None
    if known is not None and lam is not None:
        inside = rho < unified.largest_radius(known, lam)
        limit = unified.largest_step_size(known, lam, rho) if inside else 0.0
    return _below(
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
        "the rule sam_jax.theory.step_sizes.unified.decreasing",
    )


def _smooth_samples(s: Setting) -> Condition:
    value = s.largest_smoothness
    return Condition(
        "every sampled function is smooth",
        False
        if s.smooth is False
        else (None if value is None else math.isfinite(value)),
        "L of the samples is unknown" if value is None else f"L_max = {value:.6g}",
    )


def _small_nonconvex_constants(s: Setting) -> Condition:
    """Whether the gradient keeps half of its weight: gamma (1 - L rho) >= 2 B Q."""
    smoothness, residual, lam = s.largest_smoothness, s.seen_residual, s.lam
    if smoothness is None or residual is None or lam is None:
        return Condition("gamma (1 - L rho) >= 2 B Q", None, "L, B or Q is unknown")
    gamma, rho = s.step_size.supremum, s.radius.supremum
    spread = 2 * smoothness**2 * rho**2 * (1 - lam) ** 2 + 1
    q = gamma * smoothness * (rho * (1 - lam) ** 2 + gamma * spread)
    return _below(
        "gamma (1 - L rho) >= 2 B Q",
        "2 B Q",
        2 * residual.B * q,
        "gamma (1 - L rho)",
        gamma * (1 - smoothness * rho),
        strict=False,
    )


# ── Theorems ─────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """What a theorem gives.

    Attributes:
        text: in words; or a function of the setting, where it has numbers.
        properties: which of `PROPERTIES`.
        needs: conditions beyond those of the theorem.
    """

    text: str | Callable[[Setting], str]
    properties: frozenset[int] = frozenset()
    needs: tuple[Requirement, ...] = ()


@dataclasses.dataclass(frozen=True)
class Theorem:
    """A theorem: its conditions and what it gives.

    Attributes:
        name: paper and number.
        about: one line.
        needs: all must hold.
        gives: each with the conditions that it needs besides.
    """

    name: str
    about: str
    needs: tuple[Requirement, ...]
    gives: tuple[Conclusion, ...]


def _ids(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


def _kl_rate(s: Setting) -> str:
    q = s.kl_exponent
    assert q is not None
    if q <= 0.5:
        return "linear convergence of iterates, gradients and values"
    rates = khanh.kl_rates(q)
    return (
        f"rates: iterates O(k^-{rates.iterates:.4g}), gradients "
        f"O(k^-{rates.gradients:.4g}), values O(k^-{rates.gap:.4g})"
    )


def _strongly_convex_floor(s: Setting) -> str:
    floor = si_yun.strongly_convex_bound(
        s.step_size.supremum,
        1,
        smoothness=_known(s.smoothness),
        strong_convexity=_known(s.growth_constant),
        rho=s.radius.supremum,
        gap=0.0,
    )
    return (
        f"f(x_T) - f* comes linearly below {_number(floor)}, which is O(eta^2 rho^2); "
        "with eta ~ log T/T the rate is 1/T^2"
    )


def _convex_floor(s: Setting) -> str:
    floor = si_yun.convex_bound(
        s.step_size.supremum,
        1,
        smoothness=_known(s.smoothness),
        rho=s.radius.supremum,
        gap=0.0,
    )
    return f"the mean of ||grad f||^2 is at most O(1/T) + {_number(floor)}"


def _nonconvex_floor(s: Setting) -> str:
    floor = si_yun.nonconvex_bound(
        s.step_size.supremum,
        1,
        smoothness=_known(s.smoothness),
        rho=s.radius.supremum,
        gap=0.0,
    )
    return (
        f"the mean of ||grad f||^2 is at most O(1/T) + {_number(floor)}: a floor of "
        "order rho^2 that no step size removes"
    )


def _stochastic_gap_floor(s: Setting) -> str:
    floor = si_yun.stochastic_strongly_convex_bound(
        s.step_size.supremum,
        1,
        smoothness=_known(s.largest_smoothness),
        strong_convexity=_known(s.growth_constant),
        rho=s.radius.supremum,
        gap=0.0,
        variance=_known(s.seen_variance),
    )
    return (
        f"E f(x_T) - f* comes linearly below {_number(floor)}; a part of order rho^2 "
        "stays for every step size"
    )


def _stochastic_mean_floor(s: Setting) -> str:
    floor = si_yun.stochastic_bound(
        s.step_size.supremum,
        1,
        smoothness=_known(s.largest_smoothness),
        rho=s.radius.supremum,
        gap=0.0,
        variance=_known(s.seen_variance),
    )
    return (
        f"the mean of E||grad f||^2 is at most O(1/T) + {_number(floor)}; a part of "
        "order rho^2 stays for every step size"
    )


def _unified_floor(s: Setting) -> str:
    known, lam = _constants(s), s.lam
    assert known is not None and lam is not None
    rule = unified.Rule(s.radius.supremum, s.step_size.supremum)
    rate = rule.gamma * known.mu
    return (
        f"E f(x_t) - f* <= (1 - {rate:.4g})^t (f(x_0) - f*) + N with "
        f"N = {_number(unified.floor(known, lam, rule))}"
    )


def _unified_mean_floor(s: Setting) -> str:
    residual, lam = s.seen_residual, s.lam
    assert residual is not None and lam is not None
    known = unified.Constants(0.0, _known(s.largest_smoothness), residual)
    # At its limit gamma may have been rounded.
    rule = unified.Rule(s.radius.supremum, s.step_size.supremum * (1 - 1e-9))
    steps = s.horizon or 1
    floor = unified.nonconvex_bound(known, lam, rule, 0.0, [steps])
    grows = "" if residual.A == 0 else ", its first term as long as 2 A Q T <= 1"
    return f"min E||grad f||^2 is at most O(1/T) + {_number(floor)}{grows}"


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _number(value: Any) -> str:
    try:
        return f"{float(value):.4g}"
    except TypeError:
        return f"{float(value[0]):.4g}"


_OF_IGD = (
    _is_deterministic,
    _is_plain,
    _decays_as_gradient,
    _is_smooth,
    _is_bounded_below,
    _sum_diverges,
    _steps_vanish,
    _products_sum,
    _error_below_two,
)
_IGD_GIVES = (
    Conclusion("lim ||grad f(x^k)|| = 0", _ids(3)),
    Conclusion(
        "f(x^k) converges to its value at an accumulation point, if there is one"
    ),
    Conclusion(
        "the iterates converge, if they have an accumulation point and stay above its "
        "value",
        _ids(5),
        (_has_kl, _kl_sum),
    ),
    Conclusion(
        "the iterates converge to the minimizer (ours)", _ids(5), (_is_strongly_convex,)
    ),
)
_CONSTANTS = (_constant_step, _constant_radius)
_AS_STATED = (_is_plain, _decays_inside, _is_every_update)

THEOREMS: Sequence[Theorem] = (
    Theorem(
        "Khanh et al., Theorem 3.2",
        "SAM on convex functions, a constant radius is allowed",
        (
            _is_sam,
            _is_deterministic,
            _is_plain,
            _decays_inside,
            _is_convex,
            _is_smooth,
            _is_bounded_below,
            _sum_diverges,
            _squares_sum,
            _radius_is_bounded,
        ),
        (
            Conclusion("liminf ||grad f(x^k)|| = 0", _ids(1)),
            Conclusion(
                "accumulation points are minimizers, f(x^k) -> min f",
                _ids(2, 4),
                (_has_level_set,),
            ),
            Conclusion(
                "the iterates converge to the minimizer",
                _ids(5),
                (_is_strongly_convex,),
            ),
        ),
    ),
    Theorem(
        "Khanh et al., Theorem 3.3 and Corollary 3.5",
        "SAM and other methods with an absolute error, diminishing steps",
        (_has_absolute_error, *_OF_IGD),
        _IGD_GIVES,
    ),
    Theorem(
        "Khanh et al., Theorems 4.1 and 4.2",
        "USAM and extragradient, constant steps and radii are allowed",
        (
            _is_unnormalized,
            _is_deterministic,
            _is_plain,
            _decays_inside,
            _is_smooth,
            _is_bounded_below,
            _sum_diverges,
            _relative_error_below_one,
            _steps_below_relative_limit,
        ),
        (
            Conclusion("lim ||grad f(x^k)|| = 0", _ids(3)),
            Conclusion("f(x^k) falls to its value at an accumulation point, if any"),
            Conclusion(
                "the iterates converge, if they have an accumulation point",
                _ids(5),
                (_has_kl,),
            ),
            Conclusion(_kl_rate, frozenset(), (_has_kl, _stays_away)),
        ),
    ),
    Theorem(
        "Si and Yun, Theorem 3.1 (derived form)",
        "SAM, deterministic, strongly convex",
        (
            _is_sam,
            *_AS_STATED,
            _is_deterministic,
            _is_smooth,
            _is_convex,
            _has_pl,
            *_CONSTANTS,
            _step_below_inverse(2, "smoothness"),
        ),
        (Conclusion(_strongly_convex_floor),),
    ),
    Theorem(
        "Si and Yun, Theorem 3.3 (derived form)",
        "SAM, deterministic, convex",
        (
            _is_sam,
            *_AS_STATED,
            _is_deterministic,
            _is_smooth,
            _is_convex,
            _is_bounded_below,
            *_CONSTANTS,
            _step_below_inverse(2, "smoothness"),
        ),
        (Conclusion(_convex_floor),),
    ),
    Theorem(
        "Si and Yun, Theorem 3.4 (derived form)",
        "SAM, deterministic, non-convex",
        (
            _is_sam,
            *_AS_STATED,
            _is_deterministic,
            _is_smooth,
            _is_bounded_below,
            *_CONSTANTS,
            _step_below_inverse(1, "smoothness"),
        ),
        (Conclusion(_nonconvex_floor),),
    ),
    Theorem(
        "Si and Yun, Theorem 4.1 (derived form)",
        "SAM, stochastic, strongly convex",
        (
            _is_sam,
            *_AS_STATED,
            _smooth_samples,
            _has_pl,
            _variance_is_bounded,
            *_CONSTANTS,
            _step_below_inverse(2, "largest_smoothness"),
        ),
        (Conclusion(_stochastic_gap_floor),),
    ),
    Theorem(
        "Si and Yun, Theorems 4.3 and 4.5 (derived form)",
        "SAM, stochastic, convex or not",
        (
            _is_sam,
            *_AS_STATED,
            _smooth_samples,
            _is_bounded_below,
            _variance_is_bounded,
            *_CONSTANTS,
            _step_below_inverse(1, "largest_smoothness"),
        ),
        (Conclusion(_stochastic_mean_floor),),
    ),
    Theorem(
        "Oikonomou and Loizou, Theorem 3.2",
        "Unified SAM, stochastic, PL: linear to a neighbourhood",
        (
            _is_unified,
            *_AS_STATED,
            _smooth_samples,
            _has_pl,
            _has_residual,
            *_CONSTANTS,
            _below_largest_radius,
            _below_largest_step,
        ),
        (Conclusion(_unified_floor),),
    ),
    Theorem(
        "Oikonomou and Loizou, Corollaries 3.3 and 3.4",
        "USAM, interpolation or full gradients, PL: linear to the minimum",
        (
            _is_unified,
            _is_exact_usam,
            *_AS_STATED,
            _smooth_samples,
            _has_pl,
            _interpolates,
            *_CONSTANTS,
            _below_largest_radius,
            _below_largest_step,
        ),
        (
            Conclusion("E f(x_t) - f* -> 0 at a linear rate"),
            Conclusion(
                "so the gradients and the values converge (ours)",
                _ids(3, 4),
                (_is_deterministic,),
            ),
            Conclusion(
                "so the iterates converge to the minimizer (ours)",
                _ids(5),
                (_is_deterministic, _is_strongly_convex),
            ),
        ),
    ),
    Theorem(
        "Oikonomou and Loizou, Theorem 3.5",
        "Unified SAM, PL, decreasing steps and radius: 1/t for every lambda",
        (
            _is_unified,
            *_AS_STATED,
            _smooth_samples,
            _has_pl,
            _has_residual,
            _follows_rule,
            _below_largest_radius,
            _below_largest_step,
        ),
        (
            Conclusion("E f(x_t) - f* = O(1/t)"),
            Conclusion(
                "so the gradients and the values converge (ours)",
                _ids(3, 4),
                (_is_deterministic,),
            ),
        ),
    ),
    Theorem(
        "Oikonomou and Loizou, Theorem 3.7 (derived form)",
        "Unified SAM, stochastic, non-convex: a bound for a number of steps",
        (
            _is_unified,
            *_AS_STATED,
            _smooth_samples,
            _is_bounded_below,
            _has_residual,
            *_CONSTANTS,
            _small_nonconvex_constants,
        ),
        (Conclusion(_unified_mean_floor),),
    ),
)


# ── Verdicts ─────────────────────────────────────────────────────────────────────────


class Verdict(NamedTuple):
    """A theorem held against a setting.

    Attributes:
        theorem: which.
        conditions: all that it needs.
        follows: what it gives here: those of its conclusions whose own conditions hold
            too; empty unless the theorem applies.
        properties: which of `PROPERTIES` those are, with what they imply.
    """

    theorem: Theorem
    conditions: Sequence[Condition]
    follows: Sequence[str]
    properties: frozenset[int]

    @property
    def applies(self) -> bool | None:
        """True, False, or None if it depends on what is unknown."""
        return _all(self.conditions)

    @property
    def failures(self) -> list[Condition]:
        """The conditions that fail."""
        return [c for c in self.conditions if c.holds is False]

    @property
    def unknown(self) -> list[Condition]:
        """The conditions of which nothing is known."""
        return [c for c in self.conditions if c.holds is None]


def assess(setting: Setting) -> list[Verdict]:
    """Holds a setting against every theorem.

    Args:
        setting: what is run.

    Returns:
        A verdict for each of `THEOREMS`, in their order.

    Example:
        >>> setting = Setting(
        ...     step_size=families.Power(0.1, 0.5001),
        ...     radius=families.Power(0.05, 0.001),
        ...     smoothness=1.0,
        ...     bounded_below=True,
        ... )
        >>> verdict = assess(setting)[1]
        >>> verdict.theorem.name, verdict.applies
        ('Khanh et al., Theorem 3.3 and Corollary 3.5', False)
        >>> print(verdict.failures[0].reason)
        t_k rho_k ~ k^-0.5011: the exponent of 1/k is 0.5011 < 1
    """
    return [_verdict(theorem, setting) for theorem in THEOREMS]


def _verdict(theorem: Theorem, setting: Setting) -> Verdict:
    found = [need(setting) for need in theorem.needs]
    follows: list[str] = []
    properties_: frozenset[int] = frozenset()
    if _all(found):
        for conclusion in theorem.gives:
            if not _all([need(setting) for need in conclusion.needs]):
                continue
            text = conclusion.text
            follows.append(text if isinstance(text, str) else text(setting))
            properties_ |= conclusion.properties
    for number in sorted(properties_):
        properties_ |= _IMPLIED.get(number, frozenset())
    return Verdict(theorem, found, follows, properties_)


def properties(verdicts: Sequence[Verdict]) -> frozenset[int]:
    """Which of `PROPERTIES` follow from all theorems together."""
    return frozenset().union(*(verdict.properties for verdict in verdicts))


def _all(conditions: Sequence[Condition]) -> bool | None:
    values = [condition.holds for condition in conditions]
    if False in values:
        return False
    return None if None in values else True
