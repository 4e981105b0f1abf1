"""The configuration of a run: every setting, its default and its meaning.

A run card (``configs/cifar10_sam.py``) starts from `default_config`, sets what its
experiment needs and takes the method from the fragments beside it::

    def get_config(method: str = "sam"):
        config = default_config()
        config.data.name = "cifar10"
        config.method = load_method(method, card=__file__)
        return config
"""

import inspect
import pathlib
import re
import runpy
from collections.abc import Mapping
from typing import Any

from sam_jax.train import coefficients, settings, typed

# A ConfigDict; Any to type checkers, which cannot know the attributes that a card sets.
Config = Any

BASELINE = coefficients.BASELINE

_PACKAGE = pathlib.Path(__file__).parents[1]
# The cards of the package: inside of it where it is installed, else beside it.
CARDS = next(
    folder / "configs"
    for folder in (_PACKAGE, _PACKAGE.parent)
    if (folder / "configs" / "methods").is_dir() or folder == _PACKAGE.parent
)


def file_and_suffix(card: str) -> tuple[str, str | None]:
    r"""A run card as it is given, ``card.py:method``, in its two parts.

    Example:
        >>> file_and_suffix("card.py:my.py:my_sam"), file_and_suffix(r"C:\card.py")
        (('card.py', 'my.py:my_sam'), ('C:\\card.py', None))
    """
    drive = 2 * bool(re.match(r"[A-Za-z]:[\\/]", card))  # of Windows
    file, colon, suffix = card[drive:].partition(":")
    return card[:drive] + file, suffix if colon else None


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


def load_method(
    name: str,
    card: str | pathlib.Path,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """Settings of a method, from its fragment ``methods/<name>.py`` beside a run card.

    Three layers, the later ones win: the defaults of the factory, the fragment (that of
    the package, with the paper's values, where there is none beside the card), and what
    the card says about this method.

    Args:
        name: a method, ``my.py:my_sam`` for one of your own, or ``sgd`` (also ``none``)
            for the base optimizer alone.
        card: path of the run card, that is its ``__file__``.
        overrides: method -> settings that this card needs to differ.

    Returns:
        ``config.method``: its name and all its coefficients. They are untyped, because
        a coefficient may be a number, a string such as ``'1/t'`` or a schedule.

    Example:
        >>> print(load_method("sam", "card.py", {"sam": {"rho": 0.5}}))
        eps: 1.0e-12
        mask: null
        name: sam
        rho: 0.5
        <BLANKLINE>
    """
    found = of_fragment(name, card) | dict((overrides or {}).get(name, {}))
    return typed.ml_collections().ConfigDict(
        {k: v if k == "name" else typed.untyped(v) for k, v in found.items()}
    )


def of_fragment(name: str, card: str | pathlib.Path) -> dict[str, Any]:
    """What a fragment sets, as `load_method` but plain, and without a card's."""
    if name in coefficients.BASELINE_SUFFIXES:
        return {"name": BASELINE}
    found = default_coefficients(name)
    for folder in (pathlib.Path(card).parent, CARDS):
        fragment = folder / "methods" / f"{name}.py"
        if fragment.exists():
            return found | dict(runpy.run_path(str(fragment))["get_config"]())
    return found


def default_coefficients(name: str) -> dict[str, Any]:
    """What a method has to set, with the defaults of its factory."""
    known = coefficients.parameters(name)
    empty = inspect.Parameter.empty
    defaults = {key: known[key].default for key in known}
    return {"name": name} | {k: None if v is empty else v for k, v in defaults.items()}
