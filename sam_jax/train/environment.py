"""The flags that make XLA fast on CPUs, and their value at the start of a run.

`FLAG` takes convolutions and reductions of a network to faster kernels: the results
are those without it to rounding. XLA reads its flags when JAX starts and ends the
process at one that it does not know. So the trainer's commands set it before that, and
only for versions that were tried; ``import sam_jax`` sets none. A run keeps its
first value, in ``environment.json``, so that it continues bit for bit.

`TINY` is for processes that run many small programs briefly: compiling them takes half
of the time.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from sam_jax import errors, storage
from sam_jax.train import files

FILE = "environment.json"
FLAG = "--xla_cpu_experimental_ynn_fusion_type"
FAST = "LIBRARY_FUSION_TYPE_REDUCE"
TINY = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
SWITCH = "SAM_JAX_CPU_FLAGS"  # 0 is off
TESTED = frozenset({"0.10.2"})  # versions of jaxlib


def set_up(folder: str | os.PathLike[str] | None = None) -> None:
    """Adds `FLAG` to ``XLA_FLAGS`` where it is known to help, unless the user objects.

    That is before JAX is imported, with a version of jaxlib in `TESTED`, on a CPU,
    where ``XLA_FLAGS`` does not have it and ``SAM_JAX_CPU_FLAGS`` is not 0.

    Args:
        folder: of a run, which keeps its first value.
    """
    if (
        "jax" not in sys.modules
        and value() is None
        and _may_add()
        and _began(folder) == FAST  # last: it reads files, which may be far away
    ):
        _add(f"{FLAG}={FAST}")


def for_tiny_programs() -> None:
    """Adds `TINY` for the processes that this one will start, likewise."""
    if _may_add():
        _add(*(x for x in TINY if value(flag=x.partition("=")[0]) is None))


def _may_add() -> bool:
    flags = os.environ.get("XLA_FLAGS", "").strip()
    return (
        os.environ.get(SWITCH) != "0"
        and (not flags or flags.startswith("-"))  # no file of flags
        and is_tested()
        and _on_cpu()
    )


def _add(*settings: str) -> None:
    flags = os.environ.get("XLA_FLAGS", "").strip()
    os.environ["XLA_FLAGS"] = " ".join([flags, *settings]).strip()


def is_tested() -> bool:
    """Whether this version of jaxlib is in `TESTED`: XLA ends at unknown flags."""
    return _jaxlib() in TESTED


def value(flags: str | None = None, flag: str = FLAG) -> str | None:
    """The value of a flag in ``XLA_FLAGS``, or in a text like it.

    Example:
        >>> value(f"--xla_cpu_max_isa=AVX2 {FLAG}=LIBRARY_FUSION_TYPE_DOT")
        'LIBRARY_FUSION_TYPE_DOT'
    """
    flags = os.environ.get("XLA_FLAGS", "") if flags is None else flags
    given = [word.partition("=") for word in flags.split()]
    return next((text for name, _, text in reversed(given) if name == flag), None)


def keep(folder: pathlib.Path, own: Mapping[str, str], *, resumed: bool) -> list[str]:
    """Writes ``environment.json`` of a run that begins.

    Args:
        folder: of the run.
        own: digests of the user's files of code; see `workdir.own_files`.
        resumed: whether it continues.

    Returns:
        What the user should know, a sentence each.
    """
    if not resumed:
        flags = os.environ.get("XLA_FLAGS", "")
        record = {"jaxlib": _jaxlib(), "xla_flags": flags, "own_code": dict(own)}
        files.replace(folder / FILE, json.dumps(record, indent=2) + "\n")
    said, before, now = changed(folder, own), _began(folder), value()
    if before != now:
        was, is_ = (f"{FLAG}={x}" if x else f"no {FLAG}" for x in (before, now))
        said.append(
            f"the run started with {was} in XLA_FLAGS and continues with {is_}: its "
            "numbers are the same to rounding, not bit for bit"
        )
    return said


def changed(folder: pathlib.Path, own: Mapping[str, str]) -> list[str]:
    """Says which of the user's files of code were others when a run began."""
    kept = _record(folder)["own_code"]
    return [
        f"{path} has changed since the run in {folder} began: what it trained and what "
        "the file says now may differ"
        for path, digest in own.items()
        if kept.get(path, digest) != digest
    ]


def _began(folder: str | os.PathLike[str] | None) -> str | None:
    """The value at the start of a run; `FAST` for a new one."""
    if folder is None or not (storage.path(folder) / "config.json").is_file():
        return FAST
    path = storage.path(folder)
    if not (path / FILE).is_file() and not any((path / "checkpoints").glob("[0-9]*")):
        return FAST  # stopped before its record, and nothing is trained yet
    return value(_record(folder)["xla_flags"])


def _record(folder: str | os.PathLike[str]) -> dict[str, Any]:
    path = storage.path(folder) / FILE
    if not path.is_file():  # of a run of an earlier version, which set no flag
        return {"xla_flags": "", "own_code": {}}
    remedy = f"delete it, then the run continues without {FLAG}"
    record = files.read_mapping(path, remedy)
    kinds = {"xla_flags": str, "own_code": dict}
    found = {"own_code": {}} | record
    if not all(isinstance(found.get(key), kind) for key, kind in kinds.items()):
        raise errors.UserError(f"{path} is damaged: {remedy}")
    return found


def _jaxlib() -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("jaxlib")
    return None


def _on_cpu() -> bool:
    """Whether JAX will choose the CPU; other plugins may not know the flag."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    if importlib.util.find_spec("libtpu") and _has_tpu():
        return False
    plugins = importlib.util.find_spec("jax_plugins")
    return not plugins and not metadata.entry_points(group="jax_plugins")


def _has_tpu(buses: str = "/sys/bus/pci/devices") -> bool:
    """Whether a device of Google is there; libtpu alone is a compiler (`rehearse`)."""
    vendors = pathlib.Path(buses).glob("*/vendor")
    return any(path.read_text().strip() == "0x1ae0" for path in vendors)
