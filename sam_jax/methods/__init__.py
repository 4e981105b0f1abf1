"""The library: every method as an Optax transformation, one file per method.

A method's file carries the name of the factory in it (``sam.py`` holds ``sam``); by
that rule `names` and `factory` find it, and the tests do. The other files are shared:
``core.py`` (the second gradient), ``ascent.py`` (building blocks), ``numerics.py``,
``checks.py``.
"""

import importlib
import pkgutil
from collections.abc import Callable

import optax


def names() -> tuple[str, ...]:
    """Names of all methods, sorted.

    Example:
        >>> "sam" in names()
        True
    """
    return tuple(
        sorted(m.name for m in pkgutil.iter_modules(__path__) if _find(m.name))
    )


def factory(name: str) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """The factory of a method.

    Args:
        name: one of `names`.

    Returns:
        The factory, such as ``sam_jax.sam``.

    Raises:
        KeyError: if there is no such method.
    """
    found = _find(name) if name.isidentifier() else None
    if found is None:
        raise KeyError(name)
    return found


def eval_params(name: str) -> Callable[..., optax.Params] | None:
    """Which weights to evaluate, for a method that trains others.

    Args:
        name: of a method.

    Returns:
        ``(state, params) -> params``, such as ``sam_jax.momentum_sam_eval_params``;
        None if the weights trained are those to evaluate.
    """
    if _find(name) is None:
        return None
    module = importlib.import_module(f"{__name__}.{name}")
    return getattr(module, f"{name}_eval_params", None)


def _find(name: str) -> Callable[..., optax.GradientTransformationExtraArgs] | None:
    if not any(m.name == name for m in pkgutil.iter_modules(__path__)):
        return None
    return getattr(importlib.import_module(f"{__name__}.{name}"), name, None)
