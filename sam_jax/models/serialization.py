"""Weights in Flax's own format, which Flax reads without this package."""

from typing import Any

from flax import serialization


def to_bytes(variables: Any) -> bytes:
    """Nested dicts of arrays as ``flax.serialization.msgpack_restore`` reads them.

    Args:
        variables: such as ``{"params": ..., "batch_stats": ...}``.

    Example:
        >>> import numpy as np
        >>> content = to_bytes({"params": {"bias": np.ones(2, np.float32)}})
        >>> print(serialization.msgpack_restore(content)["params"]["bias"])
        [1. 1.]
    """
    return serialization.to_bytes(variables)
