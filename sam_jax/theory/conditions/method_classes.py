"""Which methods the theorems cover, by their direction."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from sam_jax import methods as methods_lib
from sam_jax.theory.conditions.settings import Setting

# Coefficients that a method must have.
Methods = Mapping[str, Mapping[str, Any]]

_LAMBDAS: Mapping[str, float] = {"sam": 1.0, "usam": 0.0, "sgd": 0.0}

# Methods whose direction is grad f(x + rho d/||d||) with some d: Algorithm 1a. Where a
# coefficient decides, its value.
NORMALIZED: Methods = {
    "sgd": {},
    "sam": {},
    "friendly_sam": {},
    "random_sam": {},
    "async_sam": {},
    "vasso": {"lam": 1.0},
    "unified_sam": {"lam": 1.0},
}
# Those with d = grad f(x), all of it.
SAM: Methods = {
    "sgd": {},
    "sam": {"mask": None},
    "unified_sam": {"lam": 1.0, "mask": None},
}
# Methods whose direction is grad f(x +- rho d), d the gradient or a part of it; and
# every direction with a relative error.
UNNORMALIZED: Methods = {
    "sgd": {},
    "igdr": {},
    "usam": {},
    "extragradient": {},
    "unified_sam": {"lam": 0.0},
}
# c with ||g - grad f(x)|| <= c L rho, from the definitions of the methods (ours): steps
# with an absolute error, which Theorem 3.3 covers, though the paper does not name them.
_ERRORS: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "igd": lambda c: 1.0,
    "ae_sam": lambda c: 1.0,
    "le_sam": lambda c: 1.0,
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
# Methods that no theorem covers; every other one is in a table above.
NO_THEOREM = frozenset(
    {
        "asam",
        "adam_sam",
        "bsam",
        "focal_sam",
        "functional_sam",
        "lookbehind",
        "looksam",
        "momentum_sam",
        "sam_sps",
        "sampa",
    }
)


def methods() -> frozenset[str]:
    """Names of all methods that some theorem covers, for some coefficients.

    Example:
        >>> "vasso" in methods(), "looksam" in methods()
        (True, False)
    """
    return frozenset().union(NORMALIZED, UNNORMALIZED, _ERRORS, _LAMBDAS)


def is_one_of(setting: Setting, methods: Methods) -> bool:
    """Whether a method and its coefficients are in a table of methods."""
    needed = methods.get(setting.method)
    if needed is None:
        return False
    given = _coefficients(setting)
    return all(given.get(k) == v for k, v in needed.items())


def _coefficients(setting: Setting) -> Mapping[str, Any]:
    """Those of a method; what is not given has its default."""
    if setting.method not in methods_lib.names():
        return setting.coefficients
    parameters = inspect.signature(methods_lib.factory(setting.method)).parameters
    defaults = {
        name: each.default
        for name, each in parameters.items()
        if each.default is not each.empty
    }
    return defaults | dict(setting.coefficients)


def error_factor(setting: Setting) -> float | None:
    """The c of ||g^k - grad f(x^k)|| <= c L rho_k for the method's direction g^k.

    Args:
        setting: what is run.

    Returns:
        The factor; None if none is known.

    Example:
        >>> from sam_jax.theory import families
        >>> step_size = families.Constant(0.1)
        >>> error_factor(
        ...     Setting(method="gsam", coefficients={"alpha": 0.4}, step_size=step_size)
        ... )
        1.4
    """
    if is_one_of(setting, NORMALIZED):
        return 1.0
    if setting.method not in _ERRORS:
        return None
    try:
        factor = float(_ERRORS[setting.method](_coefficients(setting)))
    except (KeyError, TypeError, ZeroDivisionError):  # unknown, or a schedule
        return None
    return factor if math.isfinite(factor) else None


def lam(setting: Setting) -> float | None:
    """Lambda of Unified SAM; None for another method, or if lambda varies."""
    value: Any = _LAMBDAS.get(setting.method)
    if setting.method == "unified_sam":
        value = _coefficients(setting).get("lam")
    whole = setting.coefficients.get("mask") is None
    fixed = isinstance(value, int | float) and 0 <= value <= 1
    return float(value) if fixed and whole else None
