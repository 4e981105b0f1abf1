"""Several processes as one run: how they come together, and how they end.

A run on many hosts is the same program in several processes, each with its own devices;
the runtime of JAX connects them. All processes compute the same; process 0 alone writes
the report, the metrics and the results, and a checkpoint is written by all of them.

Before training they agree on what may fail on one of them alone
(`sam_jax.train.agreement`). Where one process fails later, it ends itself, and the
runtime, which misses its heartbeats, ends the others (`_lost`).

A run of one process starts none of this: every function here is then a plain call.
"""

import collections
import contextlib
import ctypes
import ipaddress
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax

from sam_jax import errors

HEARTBEAT_SECONDS = 30  # without a sign of life, after which a process counts as lost
SEEN_SECONDS = 10  # until all hosts see what one has done
_OF_A_LOSS = (TimeoutError, jax.errors.JaxRuntimeError)


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
        coordinator: ``HOST:PORT`` at which process 0 listens, and nowhere else.
        num_processes: of the run.
        process_id: of this one, from 0.
        detect: take the three from the environment of the cluster: Cloud TPU, SLURM,
            Open MPI 4 or Kubernetes.
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
    listening = None
    if process_id == 0:
        listening = _listening(host, port)
    else:
        _reach(host, port, timeout)
    _connect(
        max(1, round(timeout - (time.monotonic() - began))),
        coordinator_address=coordinator,
        coordinator_bind_address=listening,
        num_processes=num_processes,
        process_id=process_id,
        # Else a launcher around explicit flags would decide which devices are seen.
        cluster_detection_method="deactivate",
    )


def leave(code: int) -> int:
    """Ends this process together with the others, which also come here."""
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
    not say so; the runtime knows a little later, see `_lost`. So this waits before it
    raises what may come of a loss: errors of the runtime, and a `UserError` that the
    processes have not agreed upon, as of a save.
    """
    try:
        yield
    except Exception as error:
        # And no agreement.Refused.
        alone = type(error) in (errors.UserError, errors.WriteError)
        of_runtime = any(isinstance(each, _OF_A_LOSS) for each in _chain(error))
        if several() and (alone or of_runtime):
            time.sleep(HEARTBEAT_SECONDS + SEEN_SECONDS)
        raise


def abandon(code: int) -> int:
    """Ends this process although the others do not come to an end by themselves."""
    if several():
        # An ordinary exit would wait for the others, which wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def connected() -> bool:
    """Whether `join` has connected this process, be it with others or not."""
    return jax.distributed.is_initialized()


def several() -> bool:
    """Whether the run has more than one process."""
    return connected() and jax.process_count() > 1


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


def _listening(host: str, port: int) -> str | None:
    """Where process 0 listens: at the given address, which has to be free.

    None leaves it to JAX, which listens at all addresses unless its variable says
    otherwise: for the name of this machine where that is a loopback address here, as
    others know it by another one.
    """
    if "JAX_COORDINATOR_BIND_ADDRESS" in os.environ:
        return None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        family, address = found[0], str(found[4][0])
        here = ipaddress.ip_address(address).is_loopback
        anywhere = here and host not in ("localhost", address)
        # On a port in use the runtime crashes.
        if anywhere and socket.has_dualstack_ipv6():
            family = socket.AF_INET6
        socket.create_server(
            ("" if anywhere else address, port),
            family=family,
            dualstack_ipv6=anywhere and family == socket.AF_INET6,
        ).close()
    except OSError as error:
        raise errors.UserError(
            f"process 0 cannot listen at --coordinator={host}:{port} "
            f"({error.strerror}): give an address of its host and a free port, the "
            "same on every process"
        ) from error
    return None if anywhere else f"{f'[{host}]' if ':' in host else host}:{port}"


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
                    f"seconds ({error.strerror or error}): start it, or fix the "
                    "address"
                ) from error
        time.sleep(0.1)


def _connect(timeout: int, **arguments: Any) -> None:
    by_hand = (
        "give --coordinator=HOST:PORT, --num_processes and --process_id on every "
        "process"
    )
    _at_abort(_not_joined)
    try:
        jax.distributed.initialize(
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            **arguments,
        )
    except (ImportError, KeyError, ValueError) as error:
        raise errors.UserError(
            f"--distributed finds no cluster ({error}): {by_hand}"
        ) from error
    except RuntimeError as error:  # such as a Kubernetes without leave to read jobs
        said = str(error).partition("\n")[0]
        raise errors.UserError(
            f"the processes of the run cannot connect ({said}): fix that, or {by_hand}"
        ) from error
    _at_abort(_lost)
    # What the processes tell each other is split over their devices.
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        raise errors.UserError(
            "all processes need the same number of devices; they have "
            f"{', '.join(str(counts[process]) for process in sorted(counts))}: show "
            "each the same number (on GPUs by CUDA_VISIBLE_DEVICES)"
        )
    if not several():
        _at_abort(None)  # there is nobody to lose


# The runtime aborts the process when it loses the connection. A handler of Python's
# `signal` would come too late, as it runs when the interpreter is next in charge; these
# are handlers to C. What the runtime has to say stands above their line.


def _ending(message: str, code: int) -> Any:
    """A handler that says this and ends the process."""
    line = f"error: {message}\n".encode()
    shown = b"\n\x1b[?25h" + line  # a bar has hidden the cursor

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def end(number: int) -> None:
        del number
        os.write(2, shown if os.isatty(2) else line)
        os._exit(code)

    return end


_not_joined = _ending(
    "the processes of the run have not come together within --coordinator_timeout: "
    "start all of them, with the same --coordinator and --num_processes and each with "
    "its own --process_id",
    2,
)
_lost = _ending(
    "another process of this run ended (it says why) or cannot be reached, or "
    "the runtime failed here: start all again with the same command, the run continues "
    "from its last checkpoint",
    1,
)


def _at_abort(handler: Any) -> None:
    """Sets the handler; None is the system's own."""
    library = "ucrtbase" if os.name == "nt" else None
    ctypes.CDLL(library).signal(signal.SIGABRT, handler)
