"""The configuration of a run: every setting, its default and its meaning.

A run card (``configs/cifar10_sam.py``) starts from `default_config`, sets what its
experiment needs and takes the method from the fragments beside it::

    def get_config(method: str = "sam"):
        config = default_config()
        config.data.name = "cifar10"
        config.method = load_method(method, card=__file__)
        return config
"""

import json
import pathlib
import runpy
from collections.abc import Mapping
from typing import Any

from sam_jax.train import coefficients, settings, typed

# A ConfigDict; Any to type checkers, which cannot know its attributes.
Config = Any

BASELINE = coefficients.BASELINE


def default_config() -> Config:
    """Every setting with its default.

    Settings of the type ``placeholder`` have no value until one is given.

    Returns:
        A fresh configuration; its keys are fixed, its values are typed.

    Example:
        >>> default_config().data.name
        'cifar10'
    """
    defaults = typed.defaults(settings.Settings)
    return typed.ml_collections().ConfigDict(defaults).lock()


# Settings that do not change what is computed: a run may be continued with others.
FREE_SETTINGS = (
    "wandb",
    "mesh",
    "remat",
    "steps_per_dispatch",
    "log_every_steps",
    "checkpoint_every_epochs",
    "eval_batch_size",
    "data.data_dir",
    "data.manual_dir",
    "data.download",
)


def load_method(
    name: str,
    card: str | pathlib.Path,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """Settings of a method, from its fragment ``methods/<name>.py`` beside a run card.

    Three layers, the later ones win: the defaults of the factory, the fragment, and
    what the card says about this method.

    Args:
        name: a method, or ``sgd`` (also ``none``) for the base optimizer alone.
        card: path of the run card, that is its ``__file__``.
        overrides: method -> settings that this card needs to differ.

    Returns:
        ``config.method``: its name and all its coefficients. They are untyped, because
        a coefficient may be a number, a string such as ``'1/t'`` or a schedule.

    Raises:
        UserError: if there is no such method.

    Example:
        >>> print(load_method("sam", "card.py", {"sam": {"rho": 0.5}}))
        eps: 1.0e-12
        mask: null
        name: sam
        rho: 0.5
        <BLANKLINE>
    """
    config_dict = typed.ml_collections().ConfigDict
    if name in coefficients.BASELINE_SUFFIXES:
        return config_dict({"name": BASELINE})
    found = default_coefficients(name)
    fragment = pathlib.Path(card).parent / "methods" / f"{name}.py"
    if fragment.exists():
        found |= dict(runpy.run_path(str(fragment))["get_config"]())
    found |= (overrides or {}).get(name, {})
    return config_dict(
        {k: v if k == "name" else typed.untyped(v) for k, v in found.items()}
    )


def default_coefficients(name: str) -> dict[str, Any]:
    """What a method has to set, with the defaults of its factory.

    Args:
        name: of the method.

    Returns:
        The name and the coefficients.

    Raises:
        UserError: if there is no such method.
    """
    known = coefficients.parameters(name)
    return {"name": name} | {key: known[key].default for key in known}


def check(config: Config) -> None:
    """Refuses settings outside their range that no builder checks.

    Raises:
        UserError: naming the setting, its value and what is allowed.
    """
    settings.read(config)


def to_json(config: Config) -> str:
    """The resolved configuration as readable JSON, keys sorted."""
    return json.dumps(
        json.loads(config.to_json_best_effort()), indent=2, sort_keys=True
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Where two configurations compute something else; see `FREE_SETTINGS`.

    Args:
        old: nested settings, as read from JSON.
        new: nested settings, as read from JSON.

    Returns:
        One ``key: old -> new`` per difference.

    Example:
        >>> differences({"seed": 0, "wandb": {"mode": "offline"}}, {"seed": 1})
        ['seed: 0 -> 1']
    """
    a, b = _flat(old), _flat(new)
    return [
        f"{key}: {a.get(key)} -> {b.get(key)}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
        and not any(key == free or key.startswith(free + ".") for free in FREE_SETTINGS)
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
