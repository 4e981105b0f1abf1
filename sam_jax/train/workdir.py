"""The folder of a run: a fresh one, or the one to continue in."""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import re
from collections.abc import Iterator

from sam_jax import errors
from sam_jax.train import agreement, settings

CONFIG_FILE = "config.json"
_LOCK_FILE = ".lock"
_TEMPORARY_FILE = "config.tmp"  # what a kill while the configuration is written leaves


def fresh(config: settings.Settings, root: pathlib.Path) -> pathlib.Path:
    """A dated folder name under ``root`` that does not exist yet.

    Args:
        config: of the run; data, model and method are part of the name.
        root: such as ``runs``.

    Returns:
        The path; nothing is created.
    """
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H%M%S")
    what = f"{config.data.name}_{config.model.name}_{config.method.name}"
    names = (
        f"{now}_{what}{suffix}" for suffix in ["", *map("_{}".format, range(2, 100))]
    )
    return next(root / name for name in names if not (root / name).exists())


@contextlib.contextmanager
def claimed(workdir: pathlib.Path, config: settings.Settings) -> Iterator[None]:
    """Makes the folder this run's, or checks that it is, and locks it meanwhile.

    If the run has several processes, process 0 does that, and the others check that
    they see the same folder.

    Args:
        workdir: created if it does not exist.
        config: of the run; written on the first use, compared on later ones.

    Yields:
        Nothing.

    Raises:
        UserError: if it is an address and no folder, or the folder cannot be written,
            is something else's, belongs to a run with another configuration, is in use
            by another run, or is not shared by all processes of this one.
    """
    if re.match(r"\w+:/", str(workdir)):  # a path has one of the two slashes left
        raise agreement.Refused(
            f"--workdir={workdir} is an address, and a run needs a folder with locks "
            "and renames: train in one, and copy the finished run there"
        )
    with agreement.on_first(lambda: _locked(workdir, config), None):
        agreement.check_shared(workdir)
        yield


@contextlib.contextmanager
def _locked(workdir: pathlib.Path, config: settings.Settings) -> Iterator[None]:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        files = {path.name for path in workdir.iterdir()}
        files -= {_LOCK_FILE, _TEMPORARY_FILE}
        if files and CONFIG_FILE not in files:
            raise errors.UserError(
                f"{workdir} is not empty and not the folder of a run (no {CONFIG_FILE} "
                "in it): give another --workdir"
            )
        lock = (workdir / _LOCK_FILE).open("w")
    except OSError as error:
        raise errors.UserError(
            f"cannot write to {workdir} ({error.strerror}): give another --workdir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise errors.UserError(
                f"another process is training in {workdir}: wait for it, or give "
                "another --workdir"
            ) from error
        _write_or_compare(workdir / CONFIG_FILE, config)
        yield


def _write_or_compare(path: pathlib.Path, config: settings.Settings) -> None:
    text = settings.to_json(config) + "\n"
    # A schedule that a card has made is no text that could be read.
    if path.exists() and path.read_bytes() != text.encode():
        try:
            stored = settings.read(json.loads(path.read_text()))
        except errors.UserError as error:
            raise errors.UserError(
                f"{path} is of another version ({error}): give another --workdir"
            ) from error
        except ValueError as error:  # neither JSON nor text
            raise errors.UserError(
                f"{path} is damaged: give another --workdir"
            ) from error
        changed = settings.differences(stored, config)
        if changed:
            raise errors.UserError(
                f"{path.parent} belongs to a run with another configuration "
                f"({'; '.join(changed)}): give another --workdir, or the same settings"
            )
    temporary = path.with_name(_TEMPORARY_FILE)
    temporary.write_text(text)
    os.replace(temporary, path)
