"""Masks: which parameters are perturbed, chosen by name, and how the others are not."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax import checks
from sam_jax.methods import calls, trees

Mask = Any  # as in optax.masked: a tree of booleans, or a function params -> that tree

# "norm" (but not "normal"), or "bn" that is not part of another word, such as "subnet".
_NORM_LAYER = re.compile(
    r"(?i:norm(?!al(?!i[sz])))|(?i:(?<![a-z])bn(?![a-z]))|(?<=[a-z])BN(?![A-Za-z])"
)

_INJECTED = '; to optax.inject_hyperparams give static_args=("mask",)'


def norm_layers_mask(params: optax.Params) -> Any:
    """Keeps the parameters of normalization layers only (SAM-ON).

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
    _refuse_count("norm_layers_mask", params)
    mask = jax.tree_util.tree_map_with_path(
        lambda path, _: any(_NORM_LAYER.search(name) for name in _layer_and_leaf(path)),
        params,
    )
    if not any(jax.tree.leaves(mask)):
        raise checks.BadValue(
            "no normalisation layer was found by its name (norm, bn) in params; pass a "
            "mask instead: a tree of booleans like params"
        )
    return mask


def weights_mask(params: optax.Params) -> Any:
    """Keeps arrays of two or more dimensions: weights, but no biases or norm layers.

    Those of attention, of a bias for each head, are known by their name.

    Args:
        params: a tree of parameters; only its shapes and names are read.

    Returns:
        A tree of booleans like ``params``. The function itself is a ``mask`` of every
        method.

    Example:
        >>> import jax.numpy as jnp
        >>> weights_mask({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)})
        {'bias': False, 'kernel': True}
    """
    _refuse_count("weights_mask", params)
    return jax.tree_util.tree_map_with_path(
        lambda path, w: jnp.ndim(w) >= 2 and "bias" not in _layer_and_leaf(path), params
    )


def _refuse_count(name: str, params: Any) -> None:
    """Refuses a count of updates, with which `optax.inject_hyperparams` would call."""
    if _is_value(params) and jnp.issubdtype(jnp.result_type(params), jnp.integer):
        raise checks.BadValue(f"{name} was called with a number, not params{_INJECTED}")


def _layer_and_leaf(path: tuple[Any, ...]) -> list[str]:
    """The last two names of a path: a parameter's own, and that of its layer."""
    # Haiku's names of modules are paths themselves; a number is a place in a list.
    names = re.split(r"[/.]", trees.name_of(path))
    return [name for name in names if not name.isdigit()][-2:]


def kept_only(
    ascent: optax.GradientTransformation, mask: Mask | None
) -> optax.GradientTransformationExtraArgs:
    """The ascent on the parameters of the mask, no displacement of the others.

    An ascent that takes gradients itself sees a smaller problem: the loss as a
    function of the parameters kept, the others being constants.

    Args:
        ascent: gradient -> displacement.
        mask: as in `sharpness_aware`; None keeps all.

    Returns:
        A transformation of whole trees that takes all keywords.
    """
    check(mask)
    ascent = optax.with_extra_args_support(ascent)
    if mask is None:
        return ascent

    def init_fn(params: optax.Params) -> optax.OptState:
        if not jax.tree.leaves(params):  # optax.tree.map_params asks with none
            return ascent.init(params)
        return ascent.init(_select(params, kept(params, mask)))

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        grad_fn: calls.GradFn | None = None,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        subset_grad_fn: calls.SubsetGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        keep = kept(updates if params is None else params, mask)

        def whole(part: optax.Params) -> optax.Params:
            return _merge(keep, part, params)

        def part_grad(part: optax.Params) -> optax.Updates:
            assert grad_fn is not None
            return _select(calls.gradient(grad_fn, whole(part)), keep)

        def part_value_and_grad(part: optax.Params) -> tuple[jax.Array, optax.Updates]:
            assert value_and_grad_fn is not None
            loss, grads = calls.value_and_gradient(value_and_grad_fn, whole(part))
            return loss, _select(grads, keep)

        def part_subset_grad(part: optax.Params, rows: jax.Array) -> optax.Updates:
            assert subset_grad_fn is not None
            return _select(subset_grad_fn(whole(part), rows), keep)

        displacement, state = ascent.update(
            _select(updates, keep),
            state,
            None if params is None else _select(params, keep),
            grad_fn=None if grad_fn is None else part_grad,
            value_and_grad_fn=(
                None if value_and_grad_fn is None else part_value_and_grad
            ),
            subset_grad_fn=None if subset_grad_fn is None else part_subset_grad,
            **extra_args,
        )
        zeros = jax.tree.map(jnp.zeros_like, updates)
        return _merge(keep, displacement, zeros), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def check(mask: Mask | None) -> None:
    """Refuses one value in the place of a tree, before there are parameters.

    `optax.inject_hyperparams` calls a function as a schedule, and hands on its value.

    Raises:
        ValueError: if the mask is a number, a boolean, an array or a string.
    """
    if _is_value(mask):
        raise checks.BadValue(
            "mask must be a tree of booleans like params or a prefix of it, a function "
            f"from params to one, or None for all, not the one value "
            f"{mask!r}{_INJECTED}"
        )


def kept(tree: Any, mask: Mask | None) -> Any:
    """Which leaves a mask keeps: a tree of booleans; all for None.

    Raises:
        ValueError: if the mask is not a tree of booleans that fits.
    """
    if mask is None:
        return jax.tree.map(lambda _: True, tree)
    # A tree may itself be callable, as a module of Equinox is.
    leaves = jax.tree.leaves(mask)
    is_tree = bool(leaves) and all(map(_is_boolean, leaves))
    keep = mask(tree) if callable(mask) and not is_tree else mask
    for path, leaf in jax.tree_util.tree_leaves_with_path(keep):
        if not _is_boolean(leaf):
            got = repr(leaf) if np.isscalar(leaf) else f"a {type(leaf).__name__}"
            raise checks.BadValue(
                "mask must be a tree of booleans, True for what is perturbed; at "
                f"{jax.tree_util.keystr(path)!r} it has {got}"
            )
    try:
        return jax.tree.map(bool, jax.tree.broadcast(keep, tree))
    except jax.errors.ConcretizationTypeError as error:
        raise checks.BadValue(
            "mask must have Python booleans: which parameters are perturbed is part of "
            "the program, and no traced value can say it"
        ) from error
    except (ValueError, TypeError) as error:
        raise checks.BadValue(
            "mask must be a tree of booleans like params or a prefix of it, or a "
            f"function from params to one: {error}"
        ) from error


def _is_value(x: Any) -> bool:
    """Whether something is one number, array or name, and no tree."""
    return isinstance(x, (bool, int, float, str, np.generic, np.ndarray, jax.Array))


def _is_boolean(x: Any) -> bool:
    """Whether something is True or False, in an array of one value or not."""
    is_array = isinstance(x, (np.ndarray, jax.Array)) and x.ndim == 0
    return isinstance(x, (bool, np.bool_)) or (is_array and x.dtype == bool)


def _select(tree: Any, keep: Any) -> Any:
    """The leaves kept, None for the others."""
    return jax.tree.map(lambda x, flag: x if flag else None, tree, keep)


def _merge(keep: Any, part: Any, others: Any) -> Any:
    """The leaves of ``part`` where they are kept, else those of ``others``."""
    leaves, structure = jax.tree.flatten(keep)
    parts = iter(jax.tree.leaves(part))
    rest = structure.flatten_up_to(others)
    return structure.unflatten(
        [next(parts) if flag else x for flag, x in zip(leaves, rest, strict=True)]
    )
