"""The public interface, one name a line, with parameters and defaults.

    python -m tests.api

writes ``tests/api.txt``, which a test compares with the package.
"""

import enum
import importlib
import inspect
import json
import pathlib
from collections.abc import Iterator

from sam_jax import exports
from sam_jax.commands import VERBS
from sam_jax.train import settings

FILE = pathlib.Path(__file__).with_name("api.txt")
MODULES = (
    "sam_jax",
    *("sam_jax.schedules", "sam_jax.sharpness", "sam_jax.testing"),
    *("sam_jax.data", "sam_jax.models", "sam_jax.train"),
)


def lines() -> list[str]:
    """All of it, sorted within a module."""
    found = [
        f"{module}.{name}{shape(value)}"
        for module in MODULES
        for name, value in sorted(public(module).items())
    ]
    defaults = json.loads(settings.to_json(settings.read({})))
    found += [f"config.{k} = {v!r}" for k, v in sorted(settings.flat(defaults).items())]
    return found + [f"sam-jax {verb}" for verb in sorted(VERBS)]


def public(name: str) -> dict[str, object]:
    """What a module exports, without the modules of its package."""
    module = importlib.import_module(name)
    if name == "sam_jax":
        names = list(exports.MODULES)
    else:
        names = getattr(module, "__all__", None) or [
            each
            for each, value in vars(module).items()
            if getattr(value, "__module__", "").startswith(name) and each[0] != "_"
        ]
    values = {each: getattr(module, each) for each in names}
    return {k: v for k, v in values.items() if not inspect.ismodule(v)}


def shape(value: object) -> str:
    """Parameters and defaults of a function; fields and methods of a class.

    Example:
        >>> shape(lambda rho=0.05, *, key, decide=max: None), shape("group")
        ('(rho=0.05, *, key, decide=max)', " = 'group'")
    """
    if inspect.isclass(value):
        return f"({', '.join(members(value))})"
    if not inspect.isfunction(value):
        simple = isinstance(value, str | int | float)
        return f" = {value!r}" if simple else f": {type(value).__name__}"
    plain = [
        parameter.replace(annotation=parameter.empty, default=default(parameter))
        for parameter in inspect.signature(value).parameters.values()
    ]
    return str(inspect.Signature(plain))


class Named(str):
    """A text that shows without quotes."""

    __repr__ = str.__str__


def default(parameter: inspect.Parameter) -> object:
    """A default that reads the same in every process."""
    value = parameter.default
    if value is parameter.empty or isinstance(value, str | int | float | tuple):
        return value
    return Named(getattr(value, "__name__", value))


def members(kind: type) -> Iterator[str]:
    """Names of the fields and methods that a class declares."""
    if issubclass(kind, enum.Enum):
        yield from kind.__members__
        return
    own = {**getattr(kind, "__annotations__", {}), **vars(kind)}
    yield from sorted(name for name in own if not name.startswith("_"))


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n")
