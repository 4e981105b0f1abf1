"""A Flax module, of Linen or NNX, as two pure functions."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from sam_jax import errors

PyTree = Any


class Model(NamedTuple):
    """A network as two pure functions.

    Attributes:
        init: ``init(key, images) -> (params, model_state)``. Of ``images``, float
            ``[batch, height, width, channels]``, only shape and dtype matter: a
            ``jax.ShapeDtypeStruct`` will do. ``model_state`` is
            ``{"batch_stats": ...}``, or ``{}`` without BatchNorm. All leaves of both
            are float32.
        apply: ``apply(params, model_state, images, *, train, key=None) -> (logits,
            model_state)`` with float32 logits ``[batch, num_classes]``. ``train=True``
            normalises by the statistics of the batch, moves the running ones and draws
            dropout from ``key``; ``train=False`` returns the state as it came.
    """

    init: Callable[[jax.Array, Any], tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[Any, PyTree]]


# How a network learns that it is trained: keywords, and what they are when it is.
_FLAGS = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def of_linen(module: nn.Module, initial: nn.Module | None = None) -> Model:
    """Init and apply of a Linen module.

    Args:
        module: called with the images and, if it has one of the keywords ``train``,
            ``training``, ``is_training``, ``deterministic`` and
            ``use_running_average``, with that.
        initial: another one with the same parameters, for the init.

    Returns:
        The functions. The network's state is all that is not a parameter.
    """
    flag = _flag(type(module).__call__)
    initial = module if initial is None else initial

    def init(key: jax.Array, images: Any) -> tuple[PyTree, PyTree]:
        # Lazy: the parameters are drawn without running the network once.
        state = dict(initial.lazy_init(key, images, **flag(False)))
        params = state.pop("params", {})
        return params, state

    def apply(
        params: PyTree,
        model_state: PyTree,
        images: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
    ) -> tuple[Any, PyTree]:
        logits, changed = module.apply(
            {"params": params, **model_state},
            images,
            **flag(train),
            rngs=None if key is None else {"dropout": key},
            mutable=list(model_state) if train else [],
        )
        return _wide(logits), {**model_state, **changed}

    return Model(init, apply)


def of_nnx(make: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """Init and apply of an NNX module.

    Args:
        make: draws one; called with the images, and the keyword of `of_linen`.

    Returns:
        The functions. The network's state is all that is neither parameter nor random.

    Raises:
        UserError: ``init``, if an attribute called ``params`` has some of it.
    """
    like = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    flag = _flag(type(like).__call__)

    def split(module: nnx.Module) -> Any:
        return nnx.split(module, nnx.Param, nnx.RngState, ...)

    def init(key: jax.Array, images: Any) -> tuple[PyTree, PyTree]:
        del images
        params, state = map(_pure_dict, split(make(nnx.Rngs(key)))[1::2])
        if "params" in state:  # the name of the weights where both are stored
            raise errors.UserError(
                f"an NNX module, the {type(like).__name__}, keeps state in its "
                "attribute 'params': rename the attribute"
            )
        return params, state

    def apply(
        params: PyTree,
        model_state: PyTree,
        images: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
    ) -> tuple[Any, PyTree]:
        # What is drawn here and replaced is not computed in a compiled program.
        streams = nnx.Rngs(jax.random.key(0) if key is None else key)
        graph, own, random, others = split(make(streams))
        nnx.replace_by_pure_dict(own, _as_in(nnx.to_pure_dict(own), params))
        nnx.replace_by_pure_dict(others, _as_in(nnx.to_pure_dict(others), model_state))
        module: Any = nnx.merge(graph, own, random, others)
        module.train() if train else module.eval()
        logits = module(images, **flag(train))
        state = _pure_dict(split(module)[-1]) if train else model_state
        return _wide(logits), state

    return Model(init, apply)


def _flag(call: Callable[..., Any]) -> Callable[[bool], dict[str, Any]]:
    """The keywords that tell a network whether it is trained."""
    names = _FLAGS.keys() & inspect.signature(call).parameters.keys()
    return lambda train: {name: train == _FLAGS[name] for name in names}


def _pure_dict(state: nnx.State) -> PyTree:
    """Nested dicts with names alone, as checkpoints have them; lists have numbers."""

    def named(node: Any) -> Any:
        if isinstance(node, dict):
            return {str(key): named(value) for key, value in node.items()}
        return node

    return named(nnx.to_pure_dict(state))


def _as_in(like: Any, named: PyTree) -> Any:
    """The inverse of `_pure_dict`, with the keys that ``like`` has."""
    if not isinstance(like, dict):
        return named
    return {key: _as_in(value, named[str(key)]) for key, value in like.items()}


def _wide(outputs: Any) -> Any:
    """Floating-point numbers in float32 at least."""

    def wide(x: Any) -> Any:
        low = hasattr(x, "dtype") and (
            jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4
        )
        return x.astype(jnp.float32) if low else x

    return jax.tree.map(wide, outputs)
