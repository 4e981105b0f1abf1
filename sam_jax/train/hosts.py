"""Several processes as one run: start, agreement, interruption and end.

A run on many hosts is the same program in several processes, each with its own devices;
the runtime of JAX connects them. All processes compute the same; process 0 alone writes
the report, the metrics and the results, and a checkpoint is written by all of them.

What may fail on one process alone and before training is done inside `agreed`: then all
processes end with the reason. Where one process fails later, it ends itself, and the
runtime, which misses its heartbeats, ends the others (`_lost`).

A run of one process starts none of this: every function here is then a plain call.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from sam_jax import errors
from sam_jax.train import config as config_lib
from sam_jax.train import interrupt

_T = TypeVar("_T")

HEARTBEAT_SECONDS = 30  # without a sign of life, after which a process counts as lost
_AGREEMENT_SECONDS = 24 * 3600  # one process may be preparing a data set meanwhile
_SEEN_SECONDS = 10  # until all hosts see what one has done
_TEXT_BLOCK = 1024  # bytes; texts are exchanged in multiples, to compile once
_OF_A_LOSS = (TimeoutError, jax.errors.JaxRuntimeError)
_OWN_SETTINGS = ("wandb", "data.data_dir", "data.manual_dir", "data.download")


class Refused(errors.UserError):
    """A mistake of the user that ends all processes of the run."""


# ── Start and end ────────────────────────────────────────────────────────────────────


def join(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    detect: bool,
    timeout: int,
) -> None:
    """Connects this process with the others of the run, if it has others.

    To be called before anything is computed. Without the first three arguments and
    ``detect`` it does nothing.

    Args:
        coordinator: ``HOST:PORT`` at which process 0 listens.
        num_processes: of the run.
        process_id: of this one, from 0.
        detect: take the three from the environment of the cluster: Cloud TPU, SLURM,
            Open MPI or Kubernetes.
        timeout: seconds to wait for the others.

    Raises:
        UserError: if the arguments are incomplete or out of range, no cluster is found,
            or the coordinator cannot be reached.
    """
    given = {
        "--coordinator": coordinator,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if timeout < 1:
        raise errors.UserError(
            f"--coordinator_timeout must be at least 1 second, got {timeout}"
        )
    if detect:
        if len(missing) < len(given):
            raise errors.UserError(
                f"--distributed takes {', '.join(given)} from the cluster: give either "
                "--distributed or the three"
            )
        _connect(timeout)
        return
    if coordinator is None or num_processes is None or process_id is None:
        if len(missing) < len(given):
            raise errors.UserError(
                f"{' and '.join(missing)} missing: {', '.join(given)} go together, on "
                "every process"
            )
        return
    if not 0 <= process_id < num_processes:
        raise errors.UserError(
            f"--process_id={process_id} must be in [0, {num_processes - 1}], below "
            f"--num_processes={num_processes}"
            if num_processes > 0
            else f"--num_processes={num_processes} must be at least 1"
        )
    host, port = _address(coordinator)
    began = time.monotonic()
    if process_id == 0:
        _check_free(port)
    else:
        _reach(host, port, timeout)
    _connect(
        max(1, round(timeout - (time.monotonic() - began))),
        coordinator_address=coordinator,
        num_processes=num_processes,
        process_id=process_id,
        # Else a launcher around explicit flags would decide which devices are seen.
        cluster_detection_method="deactivate",
    )


def leave(code: int) -> int:
    """Ends this process together with the others, which also come here.

    Args:
        code: of the exit.

    Returns:
        The same.
    """
    if several():
        try:
            jax.distributed.shutdown()
        except jax.errors.JaxRuntimeError:
            abandon(code)
    return code


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Lets the runtime end this process if an error comes of the loss of another one.

    A collective or a save that another process has left fails with a message that does
    not say so; the runtime knows a little later, see `_lost`.

    Yields:
        Nothing.
    """
    try:
        yield
    except Exception as error:
        if several() and any(isinstance(each, _OF_A_LOSS) for each in _chain(error)):
            time.sleep(HEARTBEAT_SECONDS + _SEEN_SECONDS)
        raise


def abandon(code: int) -> int:
    """Ends this process although the others do not come to an end by themselves.

    Args:
        code: of the exit.

    Returns:
        The same, if there are no others.
    """
    if several():
        # An ordinary exit would wait for the others, which wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def several() -> bool:
    """Whether the run has more than one process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is process 0, which writes."""
    return not several() or jax.process_index() == 0


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _address(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise errors.UserError(
            f"--coordinator={coordinator} must be HOST:PORT, such as 10.0.0.1:1234: "
            "the host of process 0 and a free port there"
        )
    return host.strip("[]"), int(port)


def _check_free(port: int) -> None:
    # On a port in use the runtime crashes.
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise errors.UserError(
            f"process 0 cannot listen at port {port} of --coordinator "
            f"({error.strerror}): take another port, on every process"
        ) from error


def _reach(host: str, port: int, timeout: float) -> None:
    # The runtime would try as well, but abort the process in the end.
    end = time.monotonic() + timeout
    while True:
        try:
            left = max(0.1, end - time.monotonic())
            socket.create_connection((host, port), timeout=left).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise errors.UserError(
                    f"no process 0 at --coordinator={host}:{port} within {timeout:g} "
                    f"seconds ({error.strerror or error}): start it, or mend the "
                    "address"
                ) from error
        time.sleep(0.1)


def _connect(timeout: int, **arguments: Any) -> None:
    _at_abort(_not_joined)
    try:
        jax.distributed.initialize(
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            **arguments,
        )
    except (ImportError, KeyError, ValueError) as error:
        raise errors.UserError(
            f"--distributed finds no cluster ({error}): give --coordinator=HOST:PORT, "
            "--num_processes and --process_id on every process"
        ) from error
    _at_abort(_lost)


# The runtime aborts the process when it loses the connection. A handler of Python's
# `signal` would come too late, as it runs when the interpreter is next in charge; these
# are handlers to C. What the runtime has to say stands above their line.


def _end(message: str, code: int) -> None:
    # A bar has hidden the cursor.
    start = "\n\x1b[?25h" if os.isatty(2) else ""
    os.write(2, f"{start}error: {message}\n".encode())
    os._exit(code)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _not_joined(number: int) -> None:
    del number
    _end(
        "the processes of the run have not come together within --coordinator_timeout: "
        "start all of them, with the same --coordinator and --num_processes and each "
        "with its own --process_id",
        2,
    )


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _lost(number: int) -> None:
    del number
    _end(
        "another process of this run ended (it says why) or is out of reach: start all "
        "again with the same command, the run continues from its last checkpoint",
        1,
    )


def _at_abort(handler: Any) -> None:
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)


# ── Agreement ────────────────────────────────────────────────────────────────────────


def exchange(text: str) -> list[str]:
    """Tells all processes what each of them says.

    All processes have to come here; they wait for each other.

    Args:
        text: of this process.

    Returns:
        The texts of all, in the order of the processes.

    Example:
        >>> exchange("alone")
        ['alone']
    """
    if not several():
        return [text]
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

    Yields:
        Nothing.

    Raises:
        UserError: if the block raises it on one of the processes.
    """
    if not several():
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

    Args:
        make: called on process 0 alone; returns plain JSON.

    Returns:
        Its result.

    Raises:
        UserError: if it raises that.

    Example:
        >>> from_first(lambda: {"best": 0.5})
        {'best': 0.5}
    """
    if not several():
        return make()
    with agreed():
        made = json.dumps(make()) if is_first() else ""
    return json.loads(exchange(made)[0])


@contextlib.contextmanager
def on_first(
    enter: Callable[[], contextlib.AbstractContextManager[_T]], otherwise: _T
) -> Iterator[_T]:
    """A context that process 0 alone enters.

    Args:
        enter: makes the context.
        otherwise: what the other processes have instead.

    Yields:
        What the context yields.

    Raises:
        UserError: on all processes, if entering raises it.
    """
    with contextlib.ExitStack() as stack:
        with agreed():
            value = stack.enter_context(enter()) if is_first() else otherwise
        yield value


def check_same(config: config_lib.Config, workdir: str | os.PathLike[str]) -> None:
    """Refuses processes that were started with different settings.

    Only where data lie and what Weights & Biases is told may differ.

    Args:
        config: of this process.
        workdir: of this process.

    Raises:
        UserError: with what differs.
    """
    if not several():
        return
    settings = {
        "config": json.loads(config_lib.to_json(config)),
        "workdir": os.fspath(workdir),
    }
    first, *others = [
        _flat(json.loads(text)) for text in exchange(json.dumps(settings))
    ]
    for process, other in enumerate(others, start=1):
        differing = [
            f"{key}: {first.get(key)} and {other.get(key)}"
            for key in sorted(first.keys() | other.keys())
            if first.get(key) != other.get(key)
        ]
        if differing:
            raise Refused(
                f"processes 0 and {process} were started with different settings "
                f"({'; '.join(differing)}): start all with the same"
            )


def check_shared(folder: pathlib.Path) -> None:
    """Refuses a folder that is another one on another host.

    Args:
        folder: as each process sees it; process 0 can write there.

    Raises:
        UserError: if a file of process 0 is not seen by another one.
    """
    if not several():
        return
    name = from_first(lambda: f".shared-{secrets.token_hex(8)}")
    mark = folder / name
    with on_first(lambda: _file(mark), None), agreed():
        end = time.monotonic() + _SEEN_SECONDS
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
    yield
    path.unlink()


def _flat(settings: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(
        settings, is_leaf=lambda x: not isinstance(x, dict)
    )
    named = {
        jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves
    }
    own = tuple(f"config.{key}" for key in _OWN_SETTINGS)
    return {key: x for key, x in named.items() if not key.startswith(own)}


# ── Interruption ─────────────────────────────────────────────────────────────────────


class Preemption:
    """SIGTERM or Ctrl-C on any process stops all of them after the same step.

    The runtime, which handles SIGTERM from `join` on, tells all processes of it and
    finds a step that none of them has reached. Ctrl-C is turned into a SIGTERM; a
    second one raises.

    Args:
        step: updates done.
    """

    def __init__(self, step: int) -> None:
        self._step = step
        self._previous: Any = None
        self._interrupted = False

    def __enter__(self) -> "Preemption":
        self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def at(self, step: int) -> signal.Signals | None:
        """Whether to stop after this step.

        Args:
            step: updates done; the same sequence of them on all processes.

        Returns:
            SIGTERM, or None.
        """
        # Of several steps done at once each is asked for: any may be the one found.
        reached = [
            multihost_utils.reached_preemption_sync_point(each)
            for each in range(self._step + 1, step + 1)
        ]
        self._step = step
        return signal.SIGTERM if any(reached) else None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        os.kill(os.getpid(), signal.SIGTERM)


def stop_request(step: int) -> interrupt.Interrupt | Preemption:
    """What remembers that the run shall stop, as a context.

    Args:
        step: updates done.

    Returns:
        Of this process, or, if there are several, of all.
    """
    return Preemption(step) if several() else interrupt.Interrupt()
