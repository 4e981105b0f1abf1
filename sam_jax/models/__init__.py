"""Networks for images, each a pair of pure functions ``init`` and ``apply``.

A family of networks is one module of this package; it is found by being there. It has

- ``MODELS``, a dict from names to factories
  ``factory(num_classes, width, make, **options) -> flax.linen.Module``, where a
  ``width`` of None means the published one, ``make`` makes the layers
  (:class:`sam_jax.models.layers.Layers`), and ``options`` are keywords with defaults
  that the user may set; and, where names carry numbers,
- ``PATTERNS``, a dict from patterns such as ``"wrn{depth}_{widen}"`` to functions that
  take these numbers by keyword and return a factory.

The module is called as ``module(images, train)``, returns float32 logits and draws
dropout from the stream ``"dropout"``.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from typing import Any

from sam_jax import errors

with errors.needing("train"):
    from flax import linen as nn

from sam_jax.models import checks, layers
from sam_jax.models import own as own
from sam_jax.models.pure import Model as Model
from sam_jax.models.pure import of_linen

DTYPES = ("float32", "bfloat16", "float16")


def names() -> tuple[str, ...]:
    """Names that :func:`build` knows, sorted.

    Returns:
        The names. Any ``wrn{depth}_{widen}`` exists besides those listed.

    Example:
        >>> "resnet18" in names()
        True
    """
    return tuple(sorted(_collect("MODELS")))


def build(
    name: str,
    *,
    num_classes: int,
    width: int | None = None,
    dtype: str = "float32",
    remat: bool = False,
    norm_axis: str | None = None,
    norm_examples: int | None = None,
    **options: Any,
) -> Model:
    """Builds a network by name.

    Args:
        name: one of :func:`names`, or a wide ResNet such as ``"wrn40_4"``.
        num_classes: number of logits.
        width: channels of the first stage (of an MLP: units per hidden layer; of a wide
            ResNet: channels before widening). None means the published width.
        dtype: what activations are computed in: ``"float32"``, ``"bfloat16"`` or
            ``"float16"``. Parameters, statistics and logits are float32 always.
        remat: keep of each residual block only its input for the gradient and compute
            the rest again: less memory, the forward pass twice, the same numbers. A
            network without blocks (``mlp``) keeps what it kept.
        norm_axis: a named axis, over which BatchNorm takes its statistics in training
            besides the batch: with ``jax.vmap(fn, axis_name=norm_axis)`` over groups of
            examples, those of all groups. Evaluation and ``init`` do not need it.
        norm_examples: consecutive examples by whose statistics BatchNorm normalizes in
            training; None for the batch. A larger batch must divide by them.
        **options: what this network alone has, such as ``dropout`` of wide ResNets.

    Returns:
        The network's ``init`` and ``apply``.

    Raises:
        UserError: for an unknown name, option or dtype, or a number out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = build("mlp", num_classes=10, width=8)
        >>> images = jnp.zeros([2, 8, 8, 1])
        >>> params, state = model.init(jax.random.key(0), images)
        >>> logits, state = model.apply(params, state, images, train=False)
        >>> logits.shape, state
        ((2, 10), {})
    """
    factory = _factory(name)
    settings = set(inspect.signature(factory).parameters) - {"num_classes", "make"}
    for option in options:
        if option not in settings:
            valid = [*settings, "dtype"]
            message = errors.unknown(f"option of model {name!r}", option, valid)
            raise errors.UserError(message)
    if dtype not in DTYPES:
        raise errors.UserError(errors.unknown("dtype", dtype, DTYPES))
    checks.count("num_classes", num_classes)
    if width is not None:
        checks.count("width", width)
    make = layers.Layers(dtype, norm_axis, remat, norm_examples)
    plain = layers.Layers(dtype)
    return of_linen(
        factory(num_classes, width, make, **options),
        initial=factory(num_classes, width, plain, **options),
    )


def _collect(table: str) -> dict[str, Any]:
    """The entries of a table, ``"MODELS"`` or ``"PATTERNS"``, of all families."""
    entries = {}
    for module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
        entries |= getattr(importlib.import_module(module.name), table, {})
    return entries


def _factory(name: str) -> Callable[..., nn.Module]:
    models, patterns = _collect("MODELS"), _collect("PATTERNS")
    if name in models:
        return models[name]
    for pattern, family in patterns.items():
        # "wrn{depth}_{widen}" reads as a pattern of numbers without leading zeros.
        regex = re.sub(r"\{(\w+)\}", r"(?P<\1>[1-9][0-9]*)", pattern)
        if match := re.fullmatch(regex, name):
            return family(**{k: int(v) for k, v in match.groupdict().items()})
    raise errors.UserError(errors.unknown("model", name, [*models, *patterns]))
