"""Settings on the command line, ``--config.key=value``."""

import ast
import difflib
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sam_jax import errors
from sam_jax.train import config, settings, typed


def apply(
    change: str, tree: dict[str, Any], made: config.Config, card: str = "CARD"
) -> None:
    """Changes a configuration.

    Args:
        change: such as ``--config.data.crop=4``.
        tree: the nested dicts to change.
        made: the configuration that they came from, for its types.
        card: its run card, for messages.

    Raises:
        UserError: if there is no such setting, with the nearest, or it is a group.

    Example:
        >>> tree = (made := config.default_config()).to_dict()
        >>> apply("--config.data.crop=4", tree, made)
        >>> tree["data"]["crop"]
        4
        >>> apply("--config.lr=0.1", tree, made)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        sam_jax.errors.UserError: unknown setting 'config.lr': did you mean 'config.learning_rate'? ...
    """  # noqa: E501
    key, text = _split(change)
    *groups, last = key.split(".")
    node: Any = tree
    for group in groups:
        if _OPEN.fullmatch(key) and isinstance(node, dict):
            node.setdefault(group, {})
        if not isinstance(node, dict) or group not in node:
            raise errors.UserError(_unknown(key, tree, card))
        node = node[group]
        made = made.get(group, {}) if hasattr(made, "get") else {}
    if not isinstance(node, dict) or not (last in node or _OPEN.fullmatch(key)):
        raise errors.UserError(_unknown(key, tree, card))
    is_text = hasattr(made, "get_type") and last in made and made.get_type(last) is str
    value = value_of(text, is_text=is_text)
    if isinstance(node.get(last), dict) and not isinstance(value, Mapping):
        raise errors.UserError(_is_group(key, text, node[last], card))
    node[last] = value


# Whose keys no default configuration lists.
_OPEN = re.compile(r"optimizer\.\w+\.\w+|(\w+\.)+options\.\w+")


def value_of(text: str, *, is_text: bool = False) -> Any:
    """The value that a text stands for.

    Args:
        text: a number, True, False, None, a tuple, a dict; or any text.
        is_text: whether the setting is a text, and numbers are none.

    Example:
        >>> value_of("1e-2"), value_of("None"), value_of("1/t"), value_of("7")
        (0.01, None, '1/t', 7)
        >>> value_of("7", is_text=True)
        '7'
    """
    if text in _WORDS and not (is_text and text != "None"):
        return _WORDS[text]
    if is_text:
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


_WORDS = {"None": None, "true": True, "false": False}
_WORDS |= {sign + x: float(sign + x) for sign in ("", "-") for x in ("inf", "nan")}


def unused(config: settings.Settings, changes: Iterable[str]) -> Iterator[str]:
    """Which changes have no effect, because what they belong to is not chosen.

    Example:
        >>> config = settings.read({"optimizer": {"name": "adamw"}})
        >>> print(*unused(config, ["--config.optimizer.sgd.momentum=0.5"]))
        --config.optimizer.sgd.momentum has no effect: config.optimizer.name is 'adamw'
    """
    from sam_jax.train import method  # Optax, which a command line does not need

    tree = typed.plain(config)
    plain = settings.flat(tree)
    alone = method.takes_step(config.method.name)
    for change in changes:
        key, _ = _split(change)
        switch, off = _SWITCHES.get(key, (None, None))
        if key == "max_consecutive_skips" and config.skips_nonfinite:
            continue  # in float16 they are skipped whatever config.on_nonfinite says
        if not _is_there(key, tree):
            parts = key.split(".")
            groups = [".".join(parts[:i]) for i in range(1, len(parts))]
            switch = next(f"{g}.name" for g in groups[::-1] if f"{g}.name" in plain)
        elif alone and key.startswith("optimizer."):
            switch = "method.name"
        elif switch is None or plain[switch] != off:
            continue
        yield (f"--config.{key} has no effect: config.{switch} is {plain[switch]!r}")


def _is_there(key: str, tree: Any) -> bool:
    """Whether it is a setting, or a group of them, which may be empty."""
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return True


# Setting -> another one, and its value for which the first has no effect.
_SWITCHES = {
    "data.cache_dir": ("data.name", "digits"),
    "data.cutout_probability": ("data.cutout", 0),
    "data.data_dir": ("data.name", "digits"),
    "data.download": ("data.name", "digits"),
    "data.manual_dir": ("data.name", "digits"),
    "max_consecutive_skips": ("on_nonfinite", "stop"),
    "sharpness.examples": ("sharpness.every", None),
    "sharpness.measures": ("sharpness.every", None),
    "wandb.name": ("wandb.mode", "disabled"),
    "wandb.project": ("wandb.mode", "disabled"),
    "weight_decay.exclude_bias_and_norm": ("weight_decay.value", 0),
    "weight_decay.kind": ("weight_decay.value", 0),
}


def _split(change: str) -> tuple[str, str]:
    """Key and value."""
    found = re.fullmatch(r"--config\.([^=]+)=(.*)", change, re.DOTALL)
    if found is None:
        raise errors.UserError(
            f"unexpected argument {change!r}: settings are written --config.name=value"
        )
    return found[1], found[2]


def _unknown(key: str, tree: dict[str, Any], card: str) -> str:
    """Message for a key that does not exist, with the nearest that does."""
    if key in settings.RENAMED:
        return settings.renamed(key)
    near = nearest(key, tree)
    path, node = "config", tree
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            break
        path, node = f"{path}.{part}", node[part]
    siblings = [f"{path}.{k}" for k in node] if isinstance(node, dict) else []
    message = errors.unknown(
        "setting", f"config.{key}", siblings, near and f"config.{near}"
    )
    if path == "config.method":
        message += f"; those of another method come with it: --config={_suffixed(card)}"
    return message


def nearest(key: str, tree: dict[str, Any]) -> str | None:
    """The setting that a key may stand for; None if there is none like it.

    Example:
        >>> nearest("rho", {"seed": 0, "method": {"name": "sam", "rho": 0.05}})
        'method.rho'
    """
    flat = settings.flat(tree)
    chosen = {value for name, value in flat.items() if name.endswith(".name")}

    def far(name: str) -> tuple[int, bool, bool]:
        *groups, end = name.split(".")
        return len(groups), chosen.isdisjoint(groups), end != "value"

    known = sorted(flat, key=far)
    last = key.rpartition(".")[2]
    found = (
        *(k for k in known if k.endswith(f".{key}")),
        *(k for k in known if k.endswith(f".{last}") and last != "name"),
        *(k for k in known if last in map(_initials, k.split("."))),
        *difflib.get_close_matches(key, known, 1, 0.5),
    )
    return next(iter(found), None)


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def _is_group(key: str, text: str, group: dict[str, Any], card: str) -> str:
    """Message for a group of settings that was given a value."""
    text = reprlib.repr(text)[1:-1]
    message = f"config.{key} is a group of settings, got '{text}': "
    if key == "method":
        return message + f"another method is --config={_suffixed(card, text)}"
    for name in ("name", "value"):
        if name in group:
            return message + f"did you mean --config.{key}.{name}={text}?"
    return message + f"there are {', '.join(f'config.{key}.{k}' for k in group)}"


def _suffixed(card: str, method: str = "METHOD") -> str:
    return f"{config.file_and_suffix(card)[0]}:{method}"
