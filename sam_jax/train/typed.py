"""Frozen dataclasses out of nested mappings, every value checked on the way.

The annotation of a field says what is allowed: a type, several of them, some words
(``Literal``), or a type with a range (`sam_jax.train.ranges`). A field may also hold a
dataclass, one of several (`Choice`), or a class that reads itself, whose names and
types no annotation can say: with the class methods ``read(value, path)`` and
``defaults()``, and ``plain()``, of which `read` gives the same.
"""

import dataclasses
import reprlib
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from sam_jax import errors, plugins
from sam_jax.train import ranges


class Choice:
    """One of several kinds of settings; ``name`` says which.

    A field of the type ``A | B`` reads ``{"name": "a", ...}``. The settings of each
    kind stand beside the name; or, if `nested`, under the name of the kind. Those of
    the other kinds are left out.
    """

    name: ClassVar[str]
    nested: ClassVar[bool] = False


OWN = "my_file.py:function"  # the name of a kind of `Choice` that is the user's


# ── Reading ──────────────────────────────────────────────────────────────────────────


def read(kind: Any, value: Any, path: str) -> Any:
    """Reads and checks a value.

    Args:
        kind: a dataclass, or what a field of one may be annotated with.
        value: nested mappings for a dataclass; what is missing has its default.
        path: of the value, for messages.

    Returns:
        An instance of ``kind``.

    Raises:
        UserError: for a key that ``kind`` does not have, with the nearest that it has,
            and for a value that is not allowed.

    Example:
        >>> read(ranges.Count | None, 0, "size")
        Traceback (most recent call last):
        ...
        sam_jax.errors.UserError: size must be an integer in [1, 2**31) or None, got 0
    """
    value = from_numpy(value)
    if hasattr(kind, "read"):
        return kind.read(value, path)
    if dataclasses.is_dataclass(kind):
        refuse_unknown(value, _hints(kind), path)
        return _from_fields(kind, value, path)
    if choices := _choices(kind):
        return _read_choice(choices, value, path)
    base = _base(check(kind, value, path))
    return base(value) if base in (float, tuple) else value


def check(kind: Any, value: Any, path: str, *others: str) -> Any:
    """Refuses a value that an annotation does not allow."""
    for member in _members(kind):
        if _fits(member, value):
            return member
    literals = [m for m in _members(kind) if typing.get_origin(m) is Literal]
    none = types.NoneType in _members(kind)
    if literals and (
        isinstance(value, str) or len(literals) + none == len(_members(kind))
    ):
        words = [word for member in literals for word in typing.get_args(member)]
        raise errors.UserError(errors.unknown(path, value, words + ["None"] * none))
    allowed = " or ".join([*map(_words, _members(kind)), *others])
    raise errors.UserError(f"{path} must be {allowed}, got {reprlib.repr(value)}")


def from_numpy(value: Any) -> Any:
    """A number of NumPy as one of Python, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def refuse_no_mapping(value: Any, path: str) -> None:
    """Refuses what is not a mapping."""
    if not isinstance(value, Mapping):
        raise errors.UserError(f"{path} must be a mapping of settings, got {value!r}")


def refuse_unknown(value: Any, valid: Collection[str], path: str) -> None:
    """Refuses what is not a mapping, or has a key that is not valid."""
    refuse_no_mapping(value, path)
    for key in value:
        if key not in valid:
            names = [f"{path}.{other}" for other in valid]
            raise errors.UserError(errors.unknown("setting", f"{path}.{key}", names))


def _from_fields(kind: Any, value: Mapping[str, Any], path: str) -> Any:
    return kind(
        **{
            key: read(hint, value[key], f"{path}.{key}")
            for key, hint in _hints(kind).items()
            if key in value
        }
    )


def _read_choice(choices: Mapping[str, Any], value: Any, path: str) -> Any:
    valid = {"name": None}
    for kind in choices.values():
        valid |= {kind.name: None} if kind.nested else _hints(kind)
    refuse_unknown(value, valid, path)
    name = value.get("name")
    if OWN in choices and plugins.is_reference(name):
        name = OWN
    if not isinstance(name, str) or name not in choices:
        raise errors.UserError(errors.unknown(f"{path}.name", name, choices))
    # What is not chosen has to be right as well.
    found = {
        other: read(kind, value.get(other, {}), f"{path}.{other}")
        if kind.nested
        else _from_fields(kind, value, path)
        for other, kind in choices.items()
    }
    return found[name]


# ── Writing ──────────────────────────────────────────────────────────────────────────


def plain(tree: Any) -> Any:
    """Nested dicts, such that `read` of them gives the same dataclass."""
    if hasattr(tree, "plain"):
        return tree.plain()
    if not dataclasses.is_dataclass(tree):
        return tree
    fields = {f.name: plain(getattr(tree, f.name)) for f in dataclasses.fields(tree)}
    return _named(tree, fields) if isinstance(tree, Choice) else fields


def defaults(kind: Any) -> dict[str, Any]:
    """The defaults of a dataclass, as a ConfigDict takes them to fix its types.

    All kinds of a `Choice` are there, so that naming another one needs no other change.
    """
    hints = _hints(kind)
    values = {
        f.name: f.default
        if f.default_factory is dataclasses.MISSING
        else f.default_factory()
        for f in dataclasses.fields(kind)
    }
    return {key: _default(hints[key], value) for key, value in values.items()}


def ml_collections() -> Any:
    """Its ``config_dict``, which run cards need, and runs from settings do not."""
    with errors.needing("train"):
        from ml_collections import config_dict

    return config_dict


def untyped(value: Any) -> Any:
    """A value of a ConfigDict that another of any type may replace."""
    field = ml_collections().placeholder(object)
    field.set(value)
    return field


def _default(hint: Any, value: Any) -> Any:
    if hasattr(hint, "defaults"):
        return hint.defaults()
    if dataclasses.is_dataclass(hint):
        return defaults(hint)
    if choices := _choices(hint):
        found: dict[str, Any] = {}
        for choice in choices.values():
            found |= _named(choice, defaults(choice))
        return found | {"name": value.name}
    kinds = [k for k in map(_base, _members(hint)) if k is not types.NoneType]
    if len(kinds) > 1:
        return untyped(value)
    return ml_collections().placeholder(*kinds) if value is None else value


def _named(choice: Any, fields: dict[str, Any]) -> dict[str, Any]:
    if choice.nested:
        fields = {choice.name: fields} if fields else {}
    return {"name": choice.name} | fields


# ── Annotations ──────────────────────────────────────────────────────────────────────


def _hints(kind: Any) -> dict[str, Any]:
    """The annotation of each field."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _members(hint: Any) -> tuple[Any, ...]:
    """``A`` and ``B`` of ``A | B``."""
    unions = (types.UnionType, typing.Union)
    return typing.get_args(hint) if typing.get_origin(hint) in unions else (hint,)


def _choices(hint: Any) -> dict[str, Any]:
    """The kinds of a choice by their names; empty for another annotation."""
    members = _members(hint)
    if not all(isinstance(m, type) and issubclass(m, Choice) for m in members):
        return {}
    return {member.name: member for member in members}


def _base(member: Any) -> Any:
    """The type, without its range."""
    return getattr(member, "__origin__", member)


def _fits(member: Any, value: Any) -> bool:
    base, extras = _base(member), getattr(member, "__metadata__", ())
    if base is Literal:
        return isinstance(value, str) and value in typing.get_args(member)
    if base is tuple:
        item, _ = typing.get_args(member)
        return isinstance(value, list | tuple) and all(_fits(item, x) for x in value)
    if base is Mapping and isinstance(value, Mapping):  # whatever the values
        return all(
            isinstance(key, str) and (not isinstance(x, Mapping) or _fits(member, x))
            for key, x in value.items()
        )
    if isinstance(value, bool) and base is not bool:
        return False
    # A command line and JSON write a whole number without a point.
    if base is float and isinstance(value, int):
        return abs(value) <= ranges.FLOAT32_MAX and _fits(member, float(value))
    return isinstance(value, base) and all(extra.accepts(value) for extra in extras)


def _words(member: Any) -> str:
    for extra in getattr(member, "__metadata__", ()):
        return extra.words
    if typing.get_origin(member) is Literal:
        return " or ".join(map(repr, typing.get_args(member)))
    if _base(member) is tuple and str in typing.get_args(member):
        return "a tuple of names"
    return _WORDS[_base(member)]


_WORDS = {
    types.NoneType: "None",
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a text",
    tuple: "a tuple of numbers",
    Mapping: "a mapping of names",
}
