"""Rehearsals in separate processes, so that the compiler can be ended."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata, util
from typing import Any

from sam_jax import errors
from sam_jax.train.environment import SWITCH

# What makes libtpu a compiler alone, on a machine with or without a TPU; several of
# them may run at a time.
_VARIABLES = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    SWITCH: "0",
}
_LIBRARY = "TPU_LIBRARY_PATH"  # of a libtpu.so that is not installed


def check_compiler() -> None:
    """Refuses to begin without the compiler that belongs to JAX."""
    needed = required()
    install = f'pip install "libtpu=={needed}"'
    if os.path.isfile(os.environ.get(_LIBRARY, "")):
        return
    if util.find_spec("libtpu") is None:
        raise errors.UserError(f"the compiler for TPUs is not installed: {install}")
    version = metadata.version("libtpu")
    if needed.endswith(".*") and not f"{version}.".startswith(needed[:-1]):
        raise errors.UserError(
            f"libtpu {version} does not belong to jax {metadata.version('jax')}: "
            f"{install}"
        )


def required() -> str:
    """The release of libtpu that belongs to the installed JAX, such as ``0.0.42.*``."""
    for line in metadata.requires("jax") or ():
        if found := re.match(r"libtpu *\(?== *([\d.]+(?:\*)?)", line):
            return found[1]
    return "*"


def environment() -> dict[str, str]:
    """The variables of a process that compiles; those of this one stay as they are."""
    kept = {name: x for name, x in os.environ.items() if name != "XLA_FLAGS"}
    return kept | _VARIABLES


def ask(
    wanted: Mapping[str, Any], waiting: Callable[[float], None] = lambda seconds: None
) -> dict[str, Any]:
    """Answers a request, see `programs.request`, in a process."""
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "sam_jax.rehearsal"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        given: str | None = json.dumps(wanted)
        try:
            while True:
                try:
                    out, said = process.communicate(given, timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    given = None  # it has been sent
                    waiting(time.monotonic() - begun)
        finally:
            process.kill()
    if process.returncode or not out:
        lines = [line for line in said.splitlines() if line.strip()]
        raise errors.UserError(
            f"the compiler for TPUs ended with code {process.returncode}"
            + (f": {errors.one_line(lines[-1])}" if lines else "")
        )
    answer = json.loads(out)
    if "error" in answer:
        raise errors.UserError(answer["error"])
    return answer["result"]


# Examples a chip that are tried for the largest batch.
SHARES = (*range(8, 64, 8), *range(64, 512, 32), *range(512, 4097, 256))


def largest(
    fits: Callable[[int], bool | None], shares: Sequence[int] = SHARES
) -> int | None:
    """The most examples a chip that fit, by bisection.

    Args:
        fits: whether that many do; a step that fits also does with fewer. None: such a
            number is refused, and says nothing of the others.
        shares: that are tried, ascending.

    Returns:
        One of them; None if the least does not fit.

    Example:
        >>> largest(lambda share: share <= 100), largest(lambda share: False)
        (96, None)
    """
    left = list(shares)
    low, high = 0, len(left)  # those below low fit, those from high on do not
    while low < high:
        middle = (low + high) // 2
        answer = fits(left[middle])
        if answer is None:
            del left[middle]
            high -= 1
        else:
            low, high = (middle + 1, high) if answer else (low, middle)
    return left[low - 1] if low else None


def rehearsals(
    wanted: Mapping[str, Any],
    names: Sequence[str],
    *,
    find_largest: bool = False,
    say: Callable[[str], None] = lambda text: None,
    waiting: Callable[[str, float], None] = lambda text, seconds: None,
) -> Iterator[dict[str, Any]]:
    """Rehearses on several slices, one after another.

    Args:
        wanted: a request without its topology.
        names: of the topologies.
        find_largest: whether the largest batch is looked for.
        say: called with a line when something was compiled.
        waiting: called with what is being compiled, and for how long.

    Yields:
        Results; of several slices, one that will not do has why under ``refused``.
    """

    def one(name: str, share: int | None) -> dict[str, Any]:
        what = name if share is None else f"{name}, {share} examples a chip"
        result = ask(
            {**wanted, "topology": name, "per_chip": share},
            lambda seconds: waiting(what, seconds),
        )
        took = f" in {result['compile_seconds']:.0f} s" if result["fits"] else ""
        say(f"{what}: {'compiled' + took if result['fits'] else 'does not fit'}")
        return result

    def fits(name: str, share: int) -> bool | None:
        try:
            return one(name, share)["fits"]
        except errors.UserError as error:
            # Such as groups into which the examples do not divide.
            say(f"{name}, {share} examples a chip: {error}")
            return None

    for name in names:
        try:
            result = one(name, wanted["per_chip"])
        except errors.UserError as error:
            if len(names) == 1:
                raise
            yield {"topology": name, "fits": False, "refused": str(error)}
            continue
        if find_largest:
            # What is asked for fits already, or is known not to.
            known = {result["per_chip"]: result["fits"]}
            most = largest(
                lambda share, name=name, known=known: (
                    known[share] if share in known else fits(name, share)
                ),
                sorted({*SHARES, *known}),
            )
            if most:
                result["largest_batch"] = most * result["chips"]
        yield result
