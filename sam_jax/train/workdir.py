"""The folder of a run: a fresh one, or the one to continue in."""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Container, Iterator, Mapping
from typing import Any

from sam_jax import errors, locks, plugins, storage
from sam_jax.train import agreement, coefficients, files, settings

CONFIG_FILE = "config.json"
_LOCK_FILE = ".lock"
_OF_FILES = {".html", ".json", ".jsonl", ".png", ".txt"}
_OLD_TEMPORARY_FILE = "config.tmp"  # what a kill of an earlier version may have left


class OwnCodeError(errors.UserError):
    """The settings of a run name files to run, and the user has not said so."""


def fresh(config: settings.Settings, root: pathlib.Path) -> pathlib.Path:
    """A dated folder name under ``root`` that does not exist yet."""
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H%M%S")
    names = config.data.name, config.model.name, *brief(config)
    # Of my_net.py:MyNet the last, of emnist/letters and mnist:3.0.1 no folders.
    own = (re.sub(r".*\.py:", "", name) for name in names)
    what = "_".join(re.sub(r"[^\w.]", "-", name) for name in own)
    names = (
        f"{now}_{what}{suffix}" for suffix in ["", *map("_{}".format, range(2, 100))]
    )
    return next(root / name for name in names if not (root / name).exists())


def brief(config: settings.Settings) -> tuple[str, ...]:
    """What tells runs of one network on the same data apart: method, rho and seed.

    Example:
        >>> brief(settings.read({"method": {"name": "sam", "rho": 0.1}, "seed": 3}))
        ('sam', 'rho0.1', 'seed3')
    """
    rho = config.method.coefficients.get("rho")
    if isinstance(rho, coefficients.Scheduled):
        rho = f"-{rho.schedule.name}"
    shown = [f"rho{rho}"] if isinstance(rho, int | float | str) else []
    return config.method.name, *shown, f"seed{config.seed}"


def stored(
    workdir: pathlib.Path, named: Container[str] | None = None
) -> settings.Settings:
    """The settings of the run that a folder holds; nothing is written.

    Args:
        workdir: the folder of a run.
        named: places in files such as ``"my_net.py:MyNet"`` that may be run; None:
            all that the settings name.

    Raises:
        UserError: if it is not the folder of a run, its settings cannot be read, or
            they name other files to run.
    """
    return _settings(workdir / CONFIG_FILE, _content(workdir), named)


def own_code(workdir: pathlib.Path) -> dict[str, str]:
    """The files to run that the settings of a run name, by their settings."""
    found: dict[str, str] = {}
    for key, text in _texts(_parsed(workdir / CONFIG_FILE, _content(workdir))):
        if plugins.is_reference(text):
            found.setdefault(text, key)  # a name comes before the group called like it
    return {key: text for text, key in found.items()}


def _content(workdir: pathlib.Path) -> bytes:
    path = workdir / CONFIG_FILE
    if not path.is_file():
        what = "not the folder of a run" if workdir.exists() else "not there"
        raise errors.UserError(f"{workdir} is {what} (no {CONFIG_FILE} in it)")
    return files.read(path)


@contextlib.contextmanager
def claimed(
    workdir: str | os.PathLike[str], config: settings.Settings
) -> Iterator[int]:
    """Makes the folder this run's, or checks that it is, and locks it.

    A run may be continued with more epochs than it was planned with.

    If the run has several processes, process 0 does that, and the others check that
    they see the same folder.

    Args:
        workdir: created if it does not exist.
        config: of the run; written on the first use, compared on later ones.

    Raises:
        UserError: if it is blank or in a store without checkpoints, or the folder
            cannot be written, is something else's, belongs to a run with another
            configuration, is in use by another run, or is not shared by all processes
            of this one.
    """
    if not str(workdir).strip():
        raise agreement.Refused("--workdir is blank: give the name of a folder")
    workdir = storage.path(workdir)
    if isinstance(workdir, storage.Remote) and workdir.scheme != "gs":
        raise agreement.Refused(
            f"--workdir={workdir}: a run is in a folder or on gs://, where checkpoints "
            "can be written; data and weights may be there"
        )
    with agreement.on_first(lambda: _locked(workdir, config), config.epochs) as before:
        agreement.check_shared(workdir)
        yield agreement.from_first(lambda: before)


@contextlib.contextmanager
def _locked(workdir: pathlib.Path, config: settings.Settings) -> Iterator[int]:
    files.make_folder(workdir)
    try:
        left = set(workdir.glob(files.TEMPORARY)) | {workdir / _OLD_TEMPORARY_FILE}
        own = {workdir / _LOCK_FILE, *left}
        if set(workdir.iterdir()) - own and not (workdir / CONFIG_FILE).exists():
            raise errors.UserError(
                f"{workdir} is not empty and not the folder of a run (no {CONFIG_FILE} "
                "in it): give another --workdir"
            )
        for path in workdir.iterdir():
            if path.suffix in _OF_FILES and path.is_dir():
                raise errors.UserError(
                    f"{path} is a folder, where the run has a file: move it away"
                )
        lock = contextlib.ExitStack()
        lock.enter_context(locks.held(workdir / _LOCK_FILE, wait=False))
    except BlockingIOError as error:
        raise errors.UserError(
            f"another process is training in {workdir}{locks.holder(error)}: wait for "
            "it, or give another --workdir"
        ) from error
    except OSError as error:
        raise errors.UserError(
            f"cannot write to {error.filename or workdir} ({error.strerror}): give "
            "another --workdir"
        ) from error
    with lock:
        for path in left:
            path.unlink(missing_ok=True)
        yield _write_or_compare(workdir / CONFIG_FILE, config)


def _write_or_compare(path: pathlib.Path, config: settings.Settings) -> int:
    """The epochs that were planned before."""
    text, epochs = settings.to_json(config) + "\n", config.epochs
    stored = files.read(path) if path.exists() else b""
    # A schedule that a card has made is not text that could be read.
    if path.exists() and stored != text.encode():
        # Of a run with other code, that is not run to find out what differs.
        named = texts(config)
        try:
            before = _settings(path, stored, named)
        except OwnCodeError as error:
            raise errors.UserError(
                f"{path.parent} belongs to a run with another configuration ({error}): "
                "give another --workdir, or the same settings"
            ) from error
        except errors.UserError as error:
            raise errors.UserError(
                f"{error}: continue with that version, or give another --workdir"
            ) from error
        epochs = min(before.epochs, config.epochs)
        more = dataclasses.replace(before, epochs=max(before.epochs, config.epochs))
        if changed := settings.differences(more, config):
            raise errors.UserError(
                f"{path.parent} belongs to a run with another configuration "
                f"({'; '.join(changed)}): give another --workdir, or the same settings"
                + ", or more epochs"
                * (config.epochs < before.epochs)
            )
    files.replace(path, text)
    return epochs


def _settings(
    path: pathlib.Path, content: bytes, named: Container[str] | None
) -> settings.Settings:
    tree = _parsed(path, content)
    for key, text in _texts(tree):
        if plugins.is_reference(text) and named is not None and text not in named:
            raise OwnCodeError(
                f"{path} names a file of code, {key}={text}, which is run only if "
                "you say so"
            )
    try:
        return settings.of_folder(tree)
    except errors.UserError as error:
        raise errors.UserError(
            f"{path} was written by another version ({error})"
        ) from error


def texts(config: settings.Settings) -> set[str]:
    """Every text in settings, among them the places of code that they name."""
    return {value for _, value in _texts(json.loads(settings.to_json(config)))}


def own_files(config: settings.Settings) -> dict[str, str]:
    """Path -> SHA-256 of each file of code that settings name, as ``file.py:name``."""
    named = filter(plugins.is_reference, texts(config))
    return {
        path: hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
        for path in sorted({text.rpartition(":")[0] for text in named})
        if pathlib.Path(path).is_file()
    }


def _texts(tree: Any, path: str = "config") -> Iterator[tuple[str, str]]:
    """Every text of nested settings and where it stands; keys are texts as well."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _texts(value, f"{path}.{key}")
        yield from ((path, key) for key in tree)
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value, path)
    elif isinstance(tree, str):
        yield path, tree


def _parsed(path: pathlib.Path, content: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):  # neither JSON nor text
        tree = None
    if not isinstance(tree, dict):
        raise errors.UserError(f"{path} is damaged")
    return tree
