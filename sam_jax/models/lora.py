"""Low-rank adaptation (LoRA): linear layers with a small term beside their weights.

References:
    Hu et al., LoRA: Low-rank adaptation of large language models, 2022,
    arXiv:2106.09685.
"""

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from sam_jax import errors
from sam_jax.models import checks, pure


def adapted(
    model: pure.Model, rank: int, *, at: str = ".", alpha: float | None = None
) -> pure.Model:
    """Adds ``alpha / rank * (x A) B`` to linear layers: ``x W`` becomes ``x (W + ..)``.

    ``A`` is drawn, of variance 1 / inputs, and ``B`` starts at zero, so the network
    begins as it was. They are parameters of the layer, ``lora_a`` [inputs, rank] and
    ``lora_b`` [rank, outputs]; those that were there keep their names, and are frozen
    by ``config.freeze`` as any other. The weights are never added up: no array of the
    size of ``W`` is made, nor of its gradient.

    Args:
        model: a network whose layers are ``nn.Dense`` and ``nn.DenseGeneral`` of Linen,
            as the packaged ones and those of attention are.
        rank: inner dimension, at least 1.
        at: a regular expression, found in the path of a layer such as
            ``EncoderBlock_0/MultiHeadDotProductAttention_0/query``.
        alpha: None is the rank, for a factor of 1.

    Returns:
        The network. Its ``init`` draws the terms too.

    Raises:
        UserError: if the rank is not positive; ``init``, if there is no such layer, or
            one sums over other axes than the last ones.

    Example:
        >>> import jax
        >>> from sam_jax import models
        >>> plain = models.build("mlp", num_classes=3, width=8)
        >>> model = adapted(plain, 2, at="Dense_0")
        >>> params, _ = model.init(jax.random.key(0), jax.numpy.zeros((1, 5)))
        >>> {name: x.shape for name, x in sorted(params["Dense_0"].items())}
        {'bias': (8,), 'kernel': (5, 8), 'lora_a': (5, 2), 'lora_b': (2, 8)}
    """
    checks.count("rank", rank)
    factor = 1.0 if alpha is None else alpha / rank

    def adapt(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer, y = context.module, call(*args, **kwargs)
        kinds = (nn.Dense, nn.DenseGeneral)
        if not isinstance(layer, kinds) or context.method_name != "__call__":
            return y
        if not re.search(at, "/".join(layer.path)):
            return y
        [x] = args
        last = _last(layer, x.ndim)
        x = x.reshape(*x.shape[:-last], -1)
        outputs = y.shape[x.ndim - 1 :]
        a = layer.param("lora_a", _DRAWN, (x.shape[-1], rank))
        b = layer.param("lora_b", nn.initializers.zeros, (rank, math.prod(outputs)))
        term = x.astype(y.dtype) @ a.astype(y.dtype) @ b.astype(y.dtype)
        return y + factor * term.reshape(y.shape)

    @contextlib.contextmanager
    def adapting() -> Iterator[None]:
        with nn.intercept_methods(adapt):
            yield

    @adapting()
    def init(key: jax.Array, images: Any) -> tuple[Any, Any]:
        params, state = model.init(key, images)
        places = {
            jax.tree_util.keystr(path, simple=True, separator="/").rpartition("/")
            for path, _ in jax.tree.leaves_with_path(params)
        }
        if not any(name == "lora_a" for _, _, name in places):
            there = sorted({layer for layer, _, _ in places})
            raise errors.UserError(
                f"LoRA: at={at!r} is found in the path of no nn.Dense or "
                "nn.DenseGeneral of Linen: give a regular expression of some of "
                f"{errors.one_line(', '.join(there), 200)}"
            )
        return params, state

    return pure.Model(init, adapting()(model.apply))


def _last(layer: Any, count: int) -> int:
    """How many dimensions a layer sums over; they are the last ones."""
    axes = np.atleast_1d(getattr(layer, "axis", -1)) % count
    if sorted(axes) != list(range(count - len(axes), count)):
        raise errors.UserError(
            f"LoRA: {'/'.join(layer.path)} sums over the axes {layer.axis} of {count}, "
            "which must be the last ones: leave it out of `at`"
        )
    return len(axes)


_DRAWN = nn.initializers.lecun_normal()
