"""The library: every method as an Optax transformation, one file per method.

A method's file carries the name of the factory in it (``sam.py`` holds ``sam``), and
the package's stub, ``sam_jax/__init__.pyi``, names both; by that rule `names` and
`factory` find it, and the tests do.
The other files are shared: ``core.py`` (the second gradient), ``calls.py``,
``devices.py``, ``observations.py`` (diagnostics), ``ascent.py`` (building blocks),
``averages.py``, ``cadence.py``, ``masks.py``, ``sparse_masks.py``, ``widths.py``,
``noise.py``, ``numerics.py``, ``trees.py`` (what a tree of parameters must be),
``optimizers.py`` (methods that take the step), ``mistakes.py`` (`sam_jax.check`),
``finite.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import sam_jax
from sam_jax import exports

if TYPE_CHECKING:
    import optax


def names() -> tuple[str, ...]:
    """Names of all methods, sorted.

    Example:
        >>> "sam" in names()
        True
    """
    return tuple(
        sorted(
            name
            for name, module in exports.MODULES.items()
            if module == f"{__name__}.{name}"
        )
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
    if name not in names():
        raise KeyError(name)
    return getattr(sam_jax, name)


def eval_params(name: str) -> Callable[..., optax.Params] | None:
    """Which weights to evaluate, for a method that trains others.

    Args:
        name: of a method.

    Returns:
        ``(state, params) -> params``, such as ``sam_jax.momentum_sam_eval_params``;
        None if the weights trained are those to evaluate.
    """
    return getattr(sam_jax, f"{name}_eval_params", None)
