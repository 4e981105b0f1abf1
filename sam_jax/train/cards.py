"""Run cards on the command line: ``--config=card.py:method --config.key=value``."""

import pathlib
import re
import traceback
from collections.abc import Sequence

from absl import flags
from ml_collections import config_dict, config_flags

from sam_jax import errors
from sam_jax.train import config, settings


def define_flag(name: str, help_string: str) -> flags.FlagHolder:
    """Defines the flag of a run card, whose keys and types are fixed.

    Args:
        name: of the flag.
        help_string: for ``--help``.

    Returns:
        The flag.
    """
    return config_flags.DEFINE_config_file(name, help_string=help_string)


def parse(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses a command line; every mistake in it is one line.

    Args:
        argv: the command line, program first.
        values: where the flags are defined.

    Returns:
        What is left after the flags.

    Raises:
        UserError: for an unknown flag or key (with the nearest that exists), a value of
            the wrong type, a card that is missing or fails.
    """
    try:
        return values(list(argv))
    except OSError as error:
        raise errors.UserError(_missing_card(error)) from error
    except (flags.Error, SyntaxError, TypeError, ValueError) as error:
        # A card that fails comes with its traceback; its last line says what happened.
        last = [line for line in str(error).splitlines() if line.strip()][-1]
        message = last.removeprefix("sam_jax.errors.UserError: ")
        raise errors.UserError(message) from error
    except Exception as error:
        # An override of a key that the card does not have, or the card fails.
        raise errors.UserError(_unknown_key(argv) or _failure(error)) from error


def load(card: str, *overrides: str) -> settings.Settings:
    """The settings of a run card, as on the command line.

    Args:
        card: path of the card, with ``:method`` if it should be another one.
        *overrides: such as ``"--config.batch_size=32"``.

    Returns:
        The settings.

    Raises:
        UserError: as `parse`, `loaded` and `sam_jax.train.settings.read`.

    Example:
        >>> load("configs/digits_sam.py:sgd", "--config.epochs=2").epochs
        2
    """
    return settings.read(configuration(card, *overrides))


def configuration(card: str, *overrides: str) -> config.Config:
    """As `load`, before the settings are read."""
    argv = ["", f"--config={card}", *overrides]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    parse(argv, values)
    return loaded(values["config"].value)


def loaded(card: config.Config | None) -> config.Config:
    """The configuration that a parsed flag holds.

    Raises:
        UserError: if no card was given, there is no such file, or it gives no
            configuration.
    """
    if card is None:
        raise errors.UserError(
            "--config is missing: give a run card, such as "
            "--config=configs/digits_sam.py"
        )
    try:
        # Not so the fragment of a method.
        is_config = callable(getattr(card, "keys", None)) and "epochs" in card
    except OSError as error:
        raise errors.UserError(_missing_card(error)) from error
    if not is_config:
        raise errors.UserError(
            "get_config of the run card returns no configuration: start from "
            "sam_jax.train.config.default_config() and return it"
        )
    return card


def _missing_card(error: OSError) -> str:
    """Message for a card that is not there, with the nearest one that is."""
    *first, last = str(error.__cause__).splitlines()
    if not first:  # The file is there.
        return f"the run card cannot be loaded: {last}"
    path = pathlib.Path(last.split("'")[-2])
    cards = [str(other) for other in path.parent.glob("*.py")]
    return errors.unknown("run card", str(path), cards)


def _failure(error: Exception) -> str:
    """Message for a card whose own code fails, with the place in it."""
    frames = traceback.extract_tb(error.__traceback__)
    # Not a place inside the libraries that the card calls, nor inside the loader's.
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    what = str(error).partition("\n")[0].partition(". ")[0].lstrip("'\"")
    return (
        f"the run card fails at {own[-1].filename}, line {own[-1].lineno}: "
        f"{type(error).__name__}: {what}"
    )


def _unknown_key(argv: Sequence[str]) -> str | None:
    """Message for the first override whose key the card does not have."""
    # Given as --config=card or as --config card.
    cards = [
        arg.partition("=")[2] or following
        for arg, following in zip(argv, [*argv[1:], ""], strict=True)
        if re.match(r"--?config(=|$)", arg)
    ]
    overrides = [re.match(r"--?config\.([\w.]+)", arg) for arg in argv]
    overrides = [override.group(1) for override in overrides if override]
    if not (cards and overrides):
        return None
    card = configuration(cards[-1])
    for override in overrides:
        if override in settings.RENAMED:
            now = settings.RENAMED[override]
            return f"setting config.{override} is now config.{now}"
        node: config.Config = card
        path = "config"
        for key in override.split("."):
            keys = node.keys() if isinstance(node, config_dict.ConfigDict) else ()
            if key not in keys:
                valid = [f"{path}.{other}" for other in keys]
                return errors.unknown("setting", f"{path}.{key}", valid)
            node, path = node[key], f"{path}.{key}"
    return None
