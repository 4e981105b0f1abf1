"""Labels of groups of runs: the method, and what sets a group apart from the others."""

from collections.abc import Mapping, Sequence
from typing import Any


def differing(
    mine: Mapping[str, Any], every: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Settings that another group does not have, or with another value."""
    return {
        key: value
        for key, value in mine.items()
        if any(key not in other or other[key] != value for other in every)
    }


def label(
    mine: Mapping[str, Any],
    every: Sequence[Mapping[str, Any]],
    others: Sequence[Mapping[str, Any]],
) -> str:
    """The method with its radius, and what else distinguishes a group from others.

    Args:
        mine: settings of the group.
        every: those of all groups; coefficients of the method are compared with them.
        others: what other settings are compared with.

    Example:
        >>> sam = {"method.name": "sam", "method.rho": 0.1, "epochs": 3}
        >>> every = [sam, sam | {"epochs": 5}]
        >>> [label(x, every, every) for x in every]
        ['sam(rho=0.1), epochs=3', 'sam(rho=0.1), epochs=5']
    """
    method = mine["method.name"]
    alike = [other for other in every if other["method.name"] == method]
    inside, outside = [], []
    for key, value in mine.items():
        of_method = key.startswith("method.")
        compared = alike if of_method else others
        is_radius = key == "method.rho" and isinstance(value, int | float)
        if is_radius or any(x.get(key, value) != value for x in compared):
            shown = f"{value:g}" if isinstance(value, float) else value
            words = inside if of_method else outside
            words.append(f"{key.removeprefix('method.')}={shown}")
    arguments = f"({', '.join(inside)})" if inside else ""
    return ", ".join([method_name(mine) + arguments, *outside])


def method_name(flat: Mapping[str, Any]) -> str:
    """Of a run's method; of the optimizer, where it has none."""
    name = flat["method.name"]
    name = flat.get("optimizer.name", name) if name == "none" else name
    return name.rpartition(":")[2]


def told_apart(labels: list[str], every: Sequence[Mapping[str, Any]]) -> list[str]:
    """Labels; to those of several groups what not all of these have is added."""
    found = []
    for name, mine in zip(labels, every, strict=True):
        same = [x for x, other in zip(every, labels, strict=True) if other == name]
        more = [f"{key}={value}" for key, value in differing(mine, same).items()]
        found.append(", ".join([name, *more]))
    return found
