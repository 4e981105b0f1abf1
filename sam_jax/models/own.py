"""A network that the user brings."""

import contextlib
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn
from flax import nnx
from jax import lax

from sam_jax import errors, plugins
from sam_jax.models import convolution, pure

MADE = (pure.Model, nn.Module)  # what is a network, not what makes one


def build(
    network: Any, setting: str, given: Mapping[str, Any], offered: Mapping[str, Any]
) -> pure.Model:
    """Makes a network of the user's.

    Args:
        network: a Linen module; or what makes a Flax module: its class, or a function.
            It makes one of NNX if it has a parameter ``rngs``; a function may also make
            a `Model`.
        setting: that named it, for messages.
        given: arguments that the user chose.
        offered: others, which it is given if it has them, such as ``num_classes``.

    Returns:
        Its ``init`` and ``apply``. Its convolutions are those of
        `sam_jax.models.convolution` where these can stand for them.

    Raises:
        UserError: if it is not a network, or has no such argument.

    Example:
        >>> import jax.numpy as jnp
        >>> model = build(nn.Dense, "nn.Dense", {"features": 3}, {"num_classes": 10})
        >>> params, _ = model.init(jax.random.key(0), jnp.zeros((2, 5)))
        >>> params["kernel"].shape
        (5, 3)
    """
    if given and isinstance(network, pure.Model | nn.Module):
        raise errors.UserError(
            f"{setting} is a network that is made already: it takes no "
            f"{', '.join(given)}; leave config.model.options out, and set "
            "config.model.width=None"
        )
    if isinstance(network, pure.Model):
        return network
    if isinstance(network, nnx.Module):
        raise errors.UserError(
            f"{setting} is an NNX module that already has weights: "
            "give its class, or a function of rngs that makes one"
        )
    if isinstance(network, nn.Module):
        return _of_linen(network)
    if not callable(network):
        raise errors.UserError(f"{setting} must be a Flax module, got {network!r}")
    # Of the class of an NNX module the signature is that of its metaclass.
    made_by, first, by_name = network, (), {}
    if isinstance(network, functools.partial):
        made_by, first, by_name = network.func, network.args, network.keywords
    if inspect.isclass(made_by):
        made_by, first = made_by.__init__, (None, *first)
    parameters = {
        name: each
        for name, each in inspect.signature(
            functools.partial(made_by, *first)
        ).parameters.items()
        if name == "rngs" or name not in by_name
    }
    hidden = ("self", "rngs", "parent", "name")
    own = {name: each for name, each in parameters.items() if name not in hidden}
    if "width" in given and "width" not in own:  # which many cards set
        message = errors.unknown(f"option of {setting}", "width", own)
        raise errors.UserError(
            f"{message}; leave it out with --config.model.width=None"
        )
    arguments = plugins.arguments(
        own,
        setting,
        "config.model.options",
        given,
        offered,
    )

    def make(**rngs: nnx.Rngs) -> Any:
        module = network(**arguments, **rngs)
        if isinstance(module, nnx.Module if rngs else (nn.Module, pure.Model)):
            return module
        kind = "NNX module, as one with rngs should" if rngs else "Linen module"
        raise errors.UserError(
            f"{setting} must make a {kind}, it makes a {type(module).__name__}"
        )

    if "rngs" not in parameters:
        made = make()
        return made if isinstance(made, pure.Model) else _of_linen(made)
    return pure.of_nnx(lambda rngs: _with_our_convolution(make(rngs=rngs)))


def _of_linen(module: nn.Module) -> pure.Model:
    model = pure.of_linen(module)

    def ours(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        if type(layer) is nn.Conv and layer.conv_general_dilated is None:
            object.__setattr__(layer, "conv_general_dilated", _convolve)
        return call(*args, **kwargs)

    def apply(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(ours):
            return model.apply(*args, **kwargs)

    return pure.Model(model.init, apply)


def _with_our_convolution(module: nnx.Module) -> nnx.Module:
    for _, layer in nnx.iter_graph(module):
        own: Any = layer
        if type(layer) is nnx.Conv and own.conv_general_dilated is _JAX:
            own.conv_general_dilated = _convolve
    return module


_JAX = lax.conv_general_dilated


def _convolve(inputs: jax.Array, kernel: jax.Array, *args: Any, **options: Any) -> Any:
    """The package's convolution; JAX's for groups, dilation and other dimensions."""
    if inputs.ndim == 4:
        with contextlib.suppress(ValueError):
            return convolution.conv_general_dilated(inputs, kernel, *args, **options)
    return lax.conv_general_dilated(inputs, kernel, *args, **options)
