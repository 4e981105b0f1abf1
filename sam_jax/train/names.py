"""The arrays of a network by their names, such as ``Block_0.Conv_0.kernel``."""

import re
from collections.abc import Collection
from typing import Any

import jax

from sam_jax import errors


def name(path: tuple[Any, ...]) -> str:
    """The name of a leaf, from its path in a tree."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def by_name(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their names.

    Example:
        >>> by_name({"Dense_0": {"bias": 1, "kernel": 2}})
        {'Dense_0.bias': 1, 'Dense_0.kernel': 2}
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {name(path): leaf for path, leaf in leaves}


def matching(pattern: str, names: Collection[str], setting: str) -> list[str]:
    """The names in which a regular expression is found.

    Example:
        >>> matching(r"^Dense", ["Dense_0.bias", "Block_0.Dense_0.bias"], "freeze")
        ['Dense_0.bias']
    """
    try:
        found = [each for each in names if re.search(pattern, each)]
    except re.error as error:
        raise errors.UserError(
            f"{setting}: {pattern!r} is not a regular expression ({error})"
        ) from error
    if not found:
        raise errors.UserError(
            f"{setting}: {pattern!r} matches no array of the network; there are "
            f"{errors.one_line(', '.join(names), 200)}"
        )
    return found
