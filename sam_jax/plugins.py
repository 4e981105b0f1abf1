"""What a user brings in a file: ``my_net.py:MyNet`` in the place of a name."""

import functools
import hashlib
import importlib.util
import inspect
import pathlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from sam_jax import errors


def is_reference(name: object) -> bool:
    """Whether a name says where something is: ``file.py:name``.

    Example:
        >>> is_reference("my_net.py:MyNet"), is_reference("resnet18")
        (True, False)
    """
    return isinstance(name, str) and ".py:" in name


def load(reference: str, setting: str) -> Any:
    """Runs a file of the user's and takes a name from it.

    The file is code like any other: it is run because the user named it. It is run once
    in a process. What it raises itself keeps its traceback.

    Args:
        reference: ``file.py:name``; the path is relative to the current folder.
        setting: that names it, for messages.

    Returns:
        The object.

    Raises:
        UserError: if there is no such file, or no such name in it.

    Example:
        >>> load("missing.py:MyNet", "config.model.name")
        Traceback (most recent call last):
        ...
        sam_jax.errors.UserError: config.model.name: there is no file missing.py
    """
    path, _, name = reference.rpartition(":")
    module = _module(pathlib.Path(path), setting)
    if not hasattr(module, name):
        public = [
            each
            for each, value in vars(module).items()
            if not (each.startswith("_") or isinstance(value, ModuleType))
        ]
        message = errors.unknown(f"name in {path}", name, public)
        raise errors.UserError(f"{setting}: {message}")
    return getattr(module, name)


def load_function(reference: str, setting: str) -> Any:
    """As `load`, of what can be called and has arguments that can be listed.

    Raises:
        UserError: also if it is anything else.
    """
    found = load(reference, setting)
    try:
        inspect.signature(found)
    except (TypeError, ValueError) as error:
        raise errors.UserError(
            f"{setting} ({reference}) must be a function, with named arguments; it is "
            f"{errors.one_line(repr(found), 80)}"
        ) from error
    return found


def bound(
    reference: str | None,
    setting: str,
    options: Mapping[str, Any],
    inputs: tuple[str, ...],
    offered: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """As `load_function`, with all arguments set but the first ones.

    Args:
        reference: ``file.py:name``.
        setting: the group of settings, whose ``name`` and ``options`` these are.
        options: arguments that the user chose.
        inputs: what the first arguments are, for messages.
        offered: other arguments, which it is given if it has them.

    Returns:
        The function of the inputs.

    Raises:
        UserError: if it is not such a function.
    """
    if not is_reference(reference):
        raise errors.UserError(
            f"{setting}.name must be a place in a file, my_file.py:function, got "
            f"{reference!r}"
        )
    function = load_function(str(reference), f"{setting}.name")
    where = f"{setting}.name ({reference})"
    parameters = list(inspect.signature(function).parameters.values())
    first, rest = parameters[: len(inputs)], parameters[len(inputs) :]
    starred = [p for p in parameters if p.kind is p.VAR_POSITIONAL]
    named_only = any(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in first)
    if not starred and (len(first) < len(inputs) or named_only):
        raise errors.UserError(f"{where} must be a function of {' and '.join(inputs)}")
    others = {p.name: p for p in (parameters if starred else rest)}
    return functools.partial(
        function, **arguments(others, where, f"{setting}.options", options, offered)
    )


def arguments(
    parameters: Mapping[str, inspect.Parameter],
    where: str,
    setting: str,
    given: Mapping[str, Any],
    offered: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a user's function is called with.

    Args:
        parameters: of the function, those that are to be given.
        where: it stands, for messages.
        setting: that holds what was given.
        given: arguments that the user chose.
        offered: others, given if there are such parameters.

    Returns:
        Names and values.

    Raises:
        UserError: if there is no such parameter, or one has no value.
    """
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in given:
            if name not in parameters:
                message = errors.unknown(f"option of {where}", name, parameters)
                raise errors.UserError(message)
    found = {k: v for k, v in (offered or {}).items() if k in parameters} | dict(given)
    for name, parameter in parameters.items():
        listed = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and name not in found and not listed:
            raise errors.UserError(
                f"{where} needs a value for {name!r}: set it in {setting}"
            )
    return found


def find(reference: str) -> Any:
    """As `load`; None if the file has no such name."""
    path, _, name = reference.rpartition(":")
    return getattr(_module(pathlib.Path(path), reference), name, None)


def _module(path: pathlib.Path, setting: str) -> ModuleType:
    if not path.is_file():
        raise errors.UserError(f"{setting}: there is no file {path}")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"sam_jax_plugin_{path.stem}_{digest}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # as an import would: dataclasses look there
        if (folder := str(path.parent.resolve())) not in sys.path:
            sys.path.append(folder)  # for what the file imports from beside it
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, SystemExit):
                raise errors.UserError(
                    f"{setting}: {path} ends the program (sys.exit) when it is "
                    "imported: it must only define what is named"
                ) from error
            raise
    return sys.modules[name]
