"""Run cards on the command line: ``--config=card.py:method --config.key=value``."""

import collections
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Sequence
from typing import Any

from absl import flags

from sam_jax import errors, storage
from sam_jax.train import config, overrides, settings, typed


def parse(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses a command line; every mistake in it is one line.

    Returns:
        The program, what is not a flag, and the settings ``--config.key=value``, which
        may also be written as ``--config.key value``, ``--config.key`` for a true one
        and ``--noconfig.key`` for a false one.
    """
    plain, rest = [], list(argv)
    changed = []
    while rest:
        word = rest.pop(0)
        found = re.fullmatch(r"--?(no)?config\.([^=]+)(=.*)?", word, re.DOTALL)
        if found is None:
            plain.append(word)
            continue
        no, key, value = found.groups()
        is_flag = rest and re.match(r"--?(?!inf$|nan$)[a-z]", rest[0])
        if value is None and not no and rest and not is_flag:
            value = f"={rest.pop(0)}"
        changed.append(f"--config.{key}{value or f'={not no}'}")
    words = [re.sub("^-(?=[a-z])", "--", word) for word in plain[1:] + changed]
    given = [word.partition("=")[0] for word in words if word[:2] == "--"]
    for flag, times in collections.Counter(given).items():
        if times > 1:
            raise errors.UserError(f"{flag} is given {times} times: give it once")
    try:
        return values(plain) + changed
    except flags.Error as error:
        message = str(error)
        if isinstance(error, flags.UnrecognizedFlagError):
            message, *flag = message.split(". Did you mean: ")
            name, tree = error.flagname, config.default_config().to_dict()
            tree["method"]["rho"] = None  # as most methods have
            near = overrides.nearest(name, tree)
            if near and (not flag or near.rpartition(".")[2] == name):
                flag = [f"config.{near}"]
            message += f": did you mean --{flag[0].rstrip(' ?')}?" if flag else ""
        raise errors.UserError(message) from error


def load(card: str | None, *changes: str) -> settings.Settings:
    """The settings of a run card, as on the command line.

    Args:
        card: path of the card, or the name of one of the package (``digits_sam``), with
            ``:method`` if it should be another one.
        *changes: such as ``"--config.batch_size=32"``; of two for the same setting, the
            last one counts.

    Example:
        >>> load("configs/digits_sam.py:sgd", "--config.epochs=2").epochs
        2
    """
    return settings.read(configuration(card, *changes))


def configuration(card: str | None, *changes: str) -> dict[str, Any]:
    """As `load`, before the settings are read: nested dicts.

    Raises:
        UserError: if no card is given, it is missing, fails or gives no configuration,
            or for a change of what is not a setting, with the nearest that is.
    """
    if not card:
        raise errors.UserError(
            "--config is missing: give the name of a run card of the package, such as "
            "--config=digits_sam, or the path of your own"
        )
    made = _made(card)
    # Not so the fragment of a method.
    if not (callable(getattr(made, "to_dict", None)) and "epochs" in made):
        raise errors.UserError(
            "get_config of the run card returns no configuration: start from "
            "sam_jax.train.config.default_config() and return it"
        )
    tree = made.to_dict()
    for change in changes:
        overrides.apply(change, tree, made, card)
    return tree


def continued(workdir: str, *changes: str) -> dict[str, Any]:
    """The settings that the folder of a run holds, changed.

    Raises:
        UserError: if it is not the folder of a run, its settings name code that no
            change names, or for a change of what is not a setting.
    """
    from sam_jax.train import workdir as workdir_lib  # which imports JAX

    named = {word.partition("=")[2] for word in changes}
    try:
        stored = workdir_lib.stored(storage.path(workdir), named)
    except workdir_lib.OwnCodeError as error:
        raise errors.UserError(f"{error}: give that setting again") from error
    except errors.UserError as error:
        raise errors.UserError(
            f"{error}: give a run card as well, such as --config=configs/digits_sam.py"
        ) from error
    tree = typed.plain(stored)
    for change in changes:
        overrides.apply(change, tree, config.default_config())
    return tree


def _made(card: str) -> config.Config:
    """What the card's ``get_config`` returns."""
    file, suffix = config.file_and_suffix(card)
    path = pathlib.Path(file)
    named = path.name == file and not path.is_file()
    if named:
        path = config.CARDS / f"{path.stem}.py"
    try:
        source = path.read_bytes()
    except FileNotFoundError as error:
        known = [] if named else [str(other) for other in path.parent.glob("*.py")]
        known = known or [other.stem for other in config.CARDS.glob("*.py")]
        raise errors.UserError(errors.unknown("run card", file, known)) from error
    except OSError as error:
        message = f"the run card {file} cannot be read: {error.strerror}"
        raise errors.UserError(message) from error
    # Not imported: a card that has changed since is read again. Its classes look their
    # module up.
    module = types.ModuleType(f"run_card_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
        return module.get_config(*([] if suffix is None else [suffix]))
    except errors.UserError:
        raise
    except (Exception, SystemExit) as error:
        raise errors.UserError(_failure(error, str(path))) from error


def _failure(error: BaseException, file: str) -> str:
    """Message for a card whose own code fails, with the place in it."""
    # Not a place inside the libraries that the card calls.
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    where = f"the run card fails at {file}, line {lines[-1]}" if lines else file
    what = str(error).partition("\n")[0].partition(". ")[0].lstrip("'\"")
    for key in settings.RENAMED:
        if isinstance(error, AttributeError | KeyError) and f'"{key}"' in what:
            return f"{where}: {settings.renamed(key)}"
    return f"{where}: {type(error).__name__}: {what}"
