"""What the processes of a run tell each other, and where they end together.

What may fail on one process alone before training is done inside `agreed`: then all
processes end with the reason. A run of one process has nobody to tell: every function
here is then a plain call.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from sam_jax import data, errors
from sam_jax.train import hosts, settings

_T = TypeVar("_T")

_AGREEMENT_SECONDS = 24 * 3600  # one process may be preparing a data set meanwhile
_TEXT_BLOCK = 1024  # bytes; texts are exchanged in multiples, to compile once
_OWN_SETTINGS = (
    "wandb",
    *(f"data.{key}" for key in ("data_dir", "manual_dir", "download")),
    *(f"data.{key}" for key in ("path", "cache_dir", "workers")),
)


class Refused(errors.UserError):
    """A mistake of the user that ends all processes of the run."""


def exchange(text: str) -> list[str]:
    """Tells all processes what each of them says.

    All processes have to come here; they wait for each other.

    Returns:
        The texts of all, in the order of the processes.

    Example:
        >>> exchange("alone")
        ['alone']
    """
    if not hosts.several():
        return [text]
    with errors.needing("train"):
        from orbax.checkpoint import multihost

    # Waiting in a collective would be taken for a failure after a minute.
    wait = multihost.get_barrier_sync_fn()
    wait(key="sam_jax", timeout_ms=1000 * _AGREEMENT_SECONDS)
    own = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(own.size))
    padded = np.zeros(-(-sizes.max() // _TEXT_BLOCK) * _TEXT_BLOCK, np.uint8)
    padded[: own.size] = own
    rows = multihost_utils.process_allgather(padded)
    return [
        row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)
    ]


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """A block that all processes leave well, or none.

    All processes have to come here. Those that leave the block wait for the others.
    """
    if not hosts.several():
        yield
        return
    mistake = None
    try:
        yield
    except errors.UserError as error:
        mistake = error
    said = exchange("" if mistake is None else str(mistake))
    if mistake is not None:
        raise Refused(str(mistake)) from mistake
    for process, message in enumerate(said):
        if message:
            raise Refused(f"process {process} stops the run: {message}")


def from_first(make: Callable[[], Any]) -> Any:
    """What process 0 makes, on all processes.

    Example:
        >>> from_first(lambda: {"best": 0.5})
        {'best': 0.5}
    """
    if not hosts.several():
        return make()
    with agreed():
        made = json.dumps(make()) if hosts.is_first() else ""
    return json.loads(exchange(made)[0])


@contextlib.contextmanager
def on_first(
    enter: Callable[[], contextlib.AbstractContextManager[_T]], otherwise: _T
) -> Iterator[_T]:
    """A context that process 0 alone enters."""
    with contextlib.ExitStack() as stack:
        with agreed():
            value = stack.enter_context(enter()) if hosts.is_first() else otherwise
        yield value


def check_same(config: settings.Settings, workdir: str | os.PathLike[str]) -> None:
    """Refuses processes that were started with different settings.

    Only the places of data and the settings of Weights & Biases may differ.
    """
    if hosts.several():
        own = {
            "config": json.loads(settings.to_json(config)),
            "workdir": os.fspath(workdir),
        }
        _check_equal(
            _flat(own),
            "were started with different settings",
            "start all with the same",
        )


def check_same_data(dataset: data.Dataset) -> None:
    """Refuses processes that have read different data."""
    if hosts.several():
        _check_equal(
            data.class_counts(dataset) | data.fingerprint(dataset),
            "have read different data",
            "fix config.data.path, data_dir, manual_dir or sampling.scores",
        )


def check_same_weights(weights: Any) -> None:
    """Refuses processes that start from different weights."""
    if hosts.several():
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(weights):
            digest.update(np.asarray(leaf).tobytes())
        _check_equal(
            {"digest": digest.hexdigest()},
            "start from different weights",
            "give all the same files in config.init_from",
        )


def check_unchanged(
    dataset: data.Dataset, began_with: Mapping[str, str] | None
) -> dict[str, str]:
    """Refuses to continue a run on data that have changed since its start."""
    found = data.fingerprint(dataset)
    if differing := _differences(began_with or found, found):
        raise Refused(
            f"the data have changed since this run began ({differing}): give the "
            "original data, or another --workdir"
        )
    return found


def check_shared(folder: pathlib.Path) -> None:
    """Refuses a folder that is another one on another host."""
    if not hosts.several():
        return
    name = from_first(lambda: f".shared-{secrets.token_hex(8)}")
    mark = folder / name
    with on_first(lambda: _file(mark), None), agreed():
        end = time.monotonic() + hosts.SEEN_SECONDS
        while not mark.exists():
            if time.monotonic() > end:
                raise errors.UserError(
                    f"{folder} of process 0 is not seen here: give a --workdir in a "
                    "file system that all hosts share"
                )
            time.sleep(0.1)


@contextlib.contextmanager
def _file(path: pathlib.Path) -> Iterator[None]:
    path.touch()
    try:
        yield
    finally:
        path.unlink()


def _check_equal(own: dict[str, Any], what: str, advice: str) -> None:
    first, *others = map(json.loads, exchange(json.dumps(own)))
    for process, other in enumerate(others, start=1):
        if differing := _differences(first, other):
            raise Refused(f"processes 0 and {process} {what} ({differing}): {advice}")


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    found = "; ".join(
        f"{key}: {one.get(key)} and {other.get(key)}"
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    )
    return errors.one_line(found, 1000)


def _flat(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda x: not isinstance(x, dict)
    )
    named = {
        jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves
    }
    own = tuple(f"config.{key}" for key in _OWN_SETTINGS)
    return {key: x for key, x in named.items() if not key.startswith(own)}
