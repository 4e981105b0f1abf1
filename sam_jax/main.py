"""Command line of the trainer: flags, then `train_and_evaluate`; nothing else.

Example::

    python -m sam_jax.main --config=configs/cifar10_sam.py:usam --config.batch_size=256

On several hosts, the same command on each, and which process it is::

    python -m sam_jax.main --config=configs/cifar10_sam.py --workdir=/shared/run \
        --coordinator=10.0.0.1:1234 --num_processes=2 --process_id=0
"""

import logging
import os
import pathlib
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from sam_jax import commands, errors
from sam_jax.train import interrupt

_AGAIN = "the same command continues from the last checkpoint, if there is one"

if __name__ == "__main__":
    interrupt.listen(_AGAIN)

try:
    from absl import app, flags
    from absl import logging as absl_logging

    from sam_jax.train import cards, environment, overrides, usage
except ModuleNotFoundError as error:
    if (error.name or "").startswith("sam_jax"):
        raise
    raise SystemExit(
        f'error: {error}; run cards need: pip install "sam_jax[train]"'
    ) from error

_CONFIG = flags.DEFINE_string(
    "config", None, "Run card, such as configs/digits_sam.py:method."
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder or gs:// address of the run. An existing run continues.",
)
_COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/sam_jax/xla"),
    "Folder in which compiled programs wait for the next start; empty is off.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, in a run of several processes."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which this one is, from 0.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Take these three from the cluster: Cloud TPU, SLURM, Open MPI 4 or Kubernetes.",
)
_COORDINATOR_TIMEOUT = flags.DEFINE_integer(
    "coordinator_timeout", 300, "Seconds that the processes wait for each other."
)


def main(argv: Sequence[str]) -> int:
    """Runs one training from the parsed flags.

    Args:
        argv: what is left of the command line after the flags: settings.

    Returns:
        The exit code: 0 finished, 1 diverged or a file cannot be written, 2 a mistake
        of the user, 128 + n stopped by signal n, with the state saved once it trains.
    """
    try:
        environment.set_up(_WORKDIR.value)
        if _CONFIG.value is None and _WORKDIR.value:
            card = cards.continued(_WORKDIR.value, *argv[1:])
        else:
            card = cards.configuration(_CONFIG.value, *argv[1:])
    except errors.UserError as error:
        return commands.say(error, 2)
    except OSError as error:  # such as of a folder that may not be looked into
        said = f"{error.filename} ({error.strerror}): give another --workdir"
        return commands.say(said, 2)
    # Not before the card is known to be good: this takes seconds.
    from sam_jax.train import agreement, hosts, loop

    # JAX reports every kind of device that this machine lacks, and each connection.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    logging.getLogger("jax._src.distributed").setLevel(logging.WARNING)
    command = ["python", "-m", "sam_jax.main", *sys.argv[1:]]
    try:
        _train(card, argv[1:], command)
    # ── Ends that all processes of the run come to.
    except agreement.Refused as error:
        return hosts.leave(commands.say(error, 2))
    except loop.Diverged as error:
        return hosts.leave(commands.say(error, 1))
    except loop.Stopped as stopped:
        if hosts.is_first():
            print(f"{stopped}. To continue: {shlex.join(command)}")
        return hosts.leave(128 + stopped.signal)
    # ── Ends that one process may come to alone.
    except BrokenPipeError:  # `loop` wraps those of its files
        return hosts.abandon(commands.nobody_reads())
    except errors.WriteError as error:  # such as of a full disk
        return hosts.abandon(commands.say(error, 1))
    except errors.UserError as error:
        return hosts.abandon(commands.say(error, 2))
    except OSError as error:
        return hosts.abandon(
            commands.say(f"{error}: fix that, then start the same command again", 1)
        )
    except KeyboardInterrupt:
        return hosts.abandon(commands.say(f"interrupted; {_AGAIN}", 130))
    except Exception:
        if not hosts.several():
            raise
        traceback.print_exc()
        return hosts.abandon(1)
    return hosts.leave(0)


def _train(card: dict[str, Any], changes: Sequence[str], command: list[str]) -> None:
    """Joins the other processes, if there are some, and trains."""
    import jax

    from sam_jax.train import agreement, hosts, loop, settings, workdir

    if _COMPILATION_CACHE.value:
        cache = os.path.expanduser(_COMPILATION_CACHE.value)
        jax.config.update("jax_compilation_cache_dir", cache)
    hosts.join(
        _COORDINATOR.value,
        _NUM_PROCESSES.value,
        _PROCESS_ID.value,
        detect=_DISTRIBUTED.value,
        timeout=_COORDINATOR_TIMEOUT.value,
    )
    with agreement.agreed():
        config = settings.read(card)
    if hosts.is_first():
        for text in overrides.unused(config, changes):
            print(f"warning: {text}", file=sys.stderr)
    given = _WORKDIR.value
    folder = agreement.from_first(
        lambda: (
            str(workdir.fresh(config, pathlib.Path("runs"))) if given is None else given
        )
    )
    if given is None:
        command.append(f"--workdir={folder}")
    else:
        folder = given
    with hosts.patient():
        loop.train_and_evaluate(config, folder, shlex.join(command))


def help_text(program: str = "python -m sam_jax.main") -> str:
    """What ``--help`` shows; JAX is not imported for it."""
    ours = (
        *(_CONFIG, _WORKDIR, _COMPILATION_CACHE, _COORDINATOR, _NUM_PROCESSES),
        *(_PROCESS_ID, _DISTRIBUTED, _COORDINATOR_TIMEOUT),
    )
    listed = {flag.name: flags.FLAGS[flag.name] for flag in ours}
    meanings = {name: (flag.default, str(flag.help)) for name, flag in listed.items()}
    return usage.text(program, meanings)


def _parse(argv: Sequence[str]) -> list[str]:
    if {"-h", "-help", "--help", "--helpshort"} & set(argv):
        print(help_text(), end="")
        raise SystemExit(0)
    try:
        words = cards.parse(argv)
    except errors.UserError as error:
        raise SystemExit(commands.say(error, 2)) from None
    if flags.FLAGS["verbosity"].using_default_value:
        # Of other packages only what is wrong; absl would show all that they log.
        flags.FLAGS.verbosity = absl_logging.WARNING
        logging.getLogger("sam_jax").setLevel(logging.INFO)
    return words


if __name__ == "__main__":
    with commands.quiet_pipe():
        app.run(main, flags_parser=_parse)
