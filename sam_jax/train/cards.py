"""Run cards on the command line: ``--config=card.py:method --config.key=value``."""

import pathlib
import re
from collections.abc import Sequence

from absl import flags
from ml_collections import config_dict, config_flags

from sam_jax import errors
from sam_jax.train import config as config_lib


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
    except (AttributeError, KeyError) as error:
        # An override of a key that the card does not have.
        raise errors.UserError(_unknown_key(argv) or str(error)) from error
    except (flags.Error, TypeError, ValueError, SyntaxError) as error:
        # A card that fails comes with its traceback; its last line says what happened.
        last = [line for line in str(error).splitlines() if line.strip()][-1]
        message = last.removeprefix("sam_jax.errors.UserError: ")
        raise errors.UserError(message) from error


def load(card: str, *overrides: str) -> config_lib.Config:
    """Loads a run card as the command line would.

    Args:
        card: path of the card, with ``:method`` if it should be another one.
        *overrides: such as ``"--config.batch_size=32"``.

    Returns:
        The configuration.

    Raises:
        UserError: as `parse` and `loaded`.

    Example:
        >>> load("configs/digits_sam.py:sgd", "--config.epochs=2").epochs
        2
    """
    argv = ["", f"--config={card}", *overrides]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    parse(argv, values)
    return loaded(values["config"].value)


def loaded(card: config_lib.Config | None) -> config_lib.Config:
    """The configuration that a parsed flag holds.

    Raises:
        UserError: if no card was given or there is no such file.
    """
    if card is None:
        raise errors.UserError(
            "--config is missing: give a run card, such as "
            "--config=configs/digits_sam.py"
        )
    try:
        card.keys()
    except OSError as error:
        raise errors.UserError(_missing_card(error)) from error
    return card


def _missing_card(error: OSError) -> str:
    """Message for a card that is not there, with the nearest one that is."""
    path = pathlib.Path(str(error.__cause__).splitlines()[-1].split("'")[-2])
    cards = [str(other) for other in path.parent.glob("*.py")]
    return errors.unknown("run card", str(path), cards)


def _unknown_key(argv: Sequence[str]) -> str | None:
    """Message for the first override whose key the card does not have."""
    # Given as --config=card or as --config card.
    cards = [
        arg.partition("=")[2] or following
        for arg, following in zip(argv, [*argv[1:], ""], strict=True)
        if re.match(r"--?config(=|$)", arg)
    ]
    if not cards:
        return None
    card = load(cards[-1])
    for arg in argv:
        override = re.match(r"--?config\.([\w.]+)", arg)
        node: config_lib.Config = card
        path = "config"
        for key in override.group(1).split(".") if override else ():
            keys = node.keys() if isinstance(node, config_dict.ConfigDict) else ()
            if key not in keys:
                valid = [f"{path}.{other}" for other in keys]
                return errors.unknown("setting", f"{path}.{key}", valid)
            node, path = node[key], f"{path}.{key}"
    return None
