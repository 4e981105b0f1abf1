"""Weights that a run does not train: apart from those that it does.

Of a network whose weights are cut in two the trained part is ``params`` to gradient,
method, weight decay and optimizer, with None in the place of the frozen leaves: a tree
without them, in which the others keep their names. So nothing is computed or kept for
a frozen leaf, and masks are about what is trained.
"""

from typing import Any

import jax
import optax

from sam_jax import errors
from sam_jax.train import names


def cut(params: optax.Params, pattern: str | None) -> tuple[optax.Params, Any]:
    """The trained weights, and the frozen ones.

    Args:
        params: all.
        pattern: a regular expression, found in the names of those to freeze, such as
            ``Block_0.Conv_0.kernel``; None freezes none.

    Returns:
        Two trees like ``params`` with None for each leaf of the other; and None for
        the second if nothing is frozen.

    Raises:
        UserError: if the expression is found in no name, or in all.

    Example:
        >>> trained, frozen = cut({"Dense_0": 1.0, "Dense_1": 2.0}, "Dense_0")
        >>> trained, frozen, whole(trained, frozen)
        ({'Dense_0': None, 'Dense_1': 2.0}, {'Dense_0': 1.0, 'Dense_1': None}, \
{'Dense_0': 1.0, 'Dense_1': 2.0})
    """
    if pattern is None:
        return params, None
    every = names.by_name(params)
    kept = set(names.matching(pattern, every, "config.freeze"))
    if kept == set(every):
        raise errors.UserError(
            f"config.freeze: {pattern!r} matches every array of the network: leave "
            "some to be trained"
        )

    def part(of_frozen: bool) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, x: x if (names.name(path) in kept) == of_frozen else None,
            params,
        )

    return part(False), part(True)


def whole(params: optax.Params, frozen: Any) -> optax.Params:
    """All weights, of the two parts that `cut` has made."""
    return params if frozen is None else merged(params, frozen)


def merged(first: Any, second: Any) -> Any:
    """The leaves of the first tree, those of the second where it has None."""
    return jax.tree.map(
        lambda x, y: y if x is None else x, first, second, is_leaf=lambda x: x is None
    )
