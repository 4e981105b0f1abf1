"""The network of a run: of the package by its name, or one that the user brings."""

import functools
import inspect
from typing import Any

from sam_jax import errors, models, plugins
from sam_jax.methods.devices import GROUP_AXIS
from sam_jax.train import settings


def network(
    config: settings.Settings,
    num_classes: int,
    own: Any = None,
    *,
    over_all: bool = False,
) -> models.Model:
    """The network of a run.

    Args:
        config: of the run.
        num_classes: number of logits.
        own: another network: a `models.Model`, or what `models.own.build` takes.
        over_all: whether BatchNorm takes its statistics over all groups.
    """
    if own is not None or plugins.is_reference(config.model.name):
        return _own_network(config, num_classes, own, over_all)
    for key in config.model.options:
        if key in _NO_OPTIONS:
            raise errors.UserError(
                f"config.model.options: {key!r} is not an option of a model; "
                "config.model.width, config.model.dtype and config.remat are settings"
            )
    return models.build(
        config.model.name,
        num_classes=num_classes,
        width=config.model.width,
        dtype=config.model.dtype,
        remat=config.remat,
        norm_axis=GROUP_AXIS if over_all else None,
        norm_examples=_number(config.batch_norm),
        **config.model.options,
    )


def name_of(own: Any) -> str:
    """What a network that the user brings is called: by its class or function.

    Example:
        >>> name_of(models.Model)
        'Model'
    """
    own = own.func if isinstance(own, functools.partial) else own
    return getattr(own, "__name__", type(own).__name__)


def _number(batch_norm: str | int) -> int | None:
    """Examples by which BatchNorm normalizes, where a number says it."""
    return batch_norm if isinstance(batch_norm, int) else None


# What `models.build` takes from other settings.
_NO_OPTIONS = inspect.signature(models.build).parameters.keys() - {"options"}


def _own_network(
    config: settings.Settings, num_classes: int, own: Any, over_all: bool
) -> models.Model:
    """A network that the user brings."""
    brought, name = own is not None, "model"
    if not brought:
        name = f"config.model.name ({config.model.name})"
        own = plugins.load(config.model.name, "config.model.name")
    dtype = config.model.dtype
    made = isinstance(own, models.own.MADE)
    unfit = {
        f"config.model.dtype={dtype}": (
            made and dtype != "float32",
            "it is made already; give a function of dtype that makes it",
        ),
        "config.remat": (config.remat, "it decides itself what to keep, by nn.remat"),
        f"config.batch_norm={config.batch_norm}": (
            over_all or _number(config.batch_norm),
            "its BatchNorm sees the examples that pass together",
        ),
    }
    for setting, (chosen, reason) in unfit.items():
        if chosen:
            raise errors.UserError(
                f"{setting} is for the package's networks, not for {name}: {reason}"
            )
    given: dict[str, Any] = {}
    if not brought:
        given |= config.model.options
        given |= {"width": config.model.width} if config.model.width is not None else {}
    if dtype != "float32":
        given["dtype"] = dtype
    offered = {"num_classes": num_classes, "dtype": dtype}
    return models.own.build(own, name, given, offered)
