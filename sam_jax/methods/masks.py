"""Masks that choose by name which parameters are perturbed."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

# "norm" (but not "normal"), or "bn" that is no part of another word, such as "subnet".
_NORM_LAYER = re.compile(
    r"(?i:norm(?!al(?!i[sz])))|(?i:(?<![a-z])bn(?![a-z]))|(?<=[a-z])BN(?![A-Za-z])"
)


def norm_layers_mask(params: optax.Params) -> Any:
    """Keeps the parameters of normalisation layers only (SAM-ON).

    They are found by name: the layer that a parameter belongs to, or the parameter
    itself, is called something with "norm" or "bn", in capital or small letters
    (``BatchNorm_0``, ``layer_norm``, ``norm1``, ``bn2``), as layers are in Linen, NNX,
    Haiku and, by the names of attributes, Equinox.

    Args:
        params: a tree of parameters; only its paths are read.

    Returns:
        A tree of booleans like ``params``. The function itself is a ``mask`` of every
        method.

    Raises:
        ValueError: if there is no such name.

    Example:
        >>> import sam_jax
        >>> params = {"Dense_0": {"bias": 0.0}, "LayerNorm_0": {"scale": 1.0}}
        >>> sam_jax.norm_layers_mask(params)
        {'Dense_0': {'bias': False}, 'LayerNorm_0': {'scale': True}}
        >>> tx = sam_jax.sam(rho=1.0, mask=sam_jax.norm_layers_mask)

    References:
        Müller, Vlaar, Rolnick, Hein, "Normalization Layers Are All That Sharpness-Aware
        Minimization Needs", NeurIPS 2023, `2306.04226
        <https://arxiv.org/abs/2306.04226>`_
    """
    mask = jax.tree_util.tree_map_with_path(
        lambda path, _: any(_NORM_LAYER.search(name) for name in _layer_and_leaf(path)),
        params,
    )
    if not any(jax.tree.leaves(mask)):
        raise ValueError(
            "no normalisation layer was found by its name (norm, bn) in params; pass a "
            "mask instead: a tree of booleans like params"
        )
    return mask


def weights_mask(params: optax.Params) -> Any:
    """Keeps weights, which have two or more dimensions; no biases, no norm layers.

    Args:
        params: a tree of parameters; only its shapes are read.

    Returns:
        A tree of booleans like ``params``. The function itself is a ``mask`` of every
        method.

    Example:
        >>> import jax.numpy as jnp
        >>> weights_mask({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)})
        {'bias': False, 'kernel': True}
    """
    return jax.tree.map(lambda w: jnp.ndim(w) >= 2, params)


def _layer_and_leaf(path: tuple[Any, ...]) -> list[str]:
    """The last two names of a path: a parameter's own, and that of its layer."""
    # Haiku's names of modules are paths themselves; NNX wraps a leaf in a ``value``;
    # a number is a place in a list.
    whole = jax.tree_util.keystr(path, simple=True, separator="/").removesuffix(
        "/value"
    )
    return [name for name in re.split(r"[/.]", whole) if not name.isdigit()][-2:]
