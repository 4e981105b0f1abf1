"""Command line of the trainer: flags, then `train_and_evaluate`; nothing else.

Example::

    python -m sam_jax.main --config=configs/cifar10_sam.py:usam --config.batch_size=256
"""

import logging
import os
import pathlib
import shlex
import sys
from collections.abc import Sequence

from absl import app, flags

from sam_jax import errors
from sam_jax.train import cards

_CONFIG = cards.define_flag("config", "Run card, such as configs/digits_sam.py:method.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; given again, the run continues."
)
_COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/sam_jax/xla"),
    "Folder in which compiled programs wait for the next start; empty is off.",
)


def main(argv: Sequence[str]) -> int:
    """Runs one training from the parsed flags.

    Args:
        argv: what is left of the command line after the flags.

    Returns:
        The exit code: 0 finished, 1 diverged or out of disk, 2 a mistake of the user,
        128 + n stopped by signal n with the state saved.
    """
    # Not before the flags are known to be good: this takes seconds.
    import jax

    from sam_jax.train import loop, workdir

    # JAX reports every kind of device that this machine does not have.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    command = ["python", "-m", "sam_jax.main", *sys.argv[1:]]
    try:
        if argv[1:]:
            raise errors.UserError(
                f"unexpected argument {argv[1]!r}: settings are written "
                "--config.name=value"
            )
        config = cards.loaded(_CONFIG.value)
        if _COMPILATION_CACHE.value:
            cache = os.path.expanduser(_COMPILATION_CACHE.value)
            jax.config.update("jax_compilation_cache_dir", cache)
        folder = pathlib.Path(
            _WORKDIR.value or workdir.fresh(config, pathlib.Path("runs"))
        )
        if _WORKDIR.value is None:
            command.append(f"--workdir={folder}")
        loop.train_and_evaluate(config, folder, shlex.join(command))
    except errors.UserError as error:
        return _say(error, 2)
    except loop.Diverged as error:
        return _say(error, 1)
    except OSError as error:  # such as a full disk
        return _say(f"{error}; the same command continues from its checkpoint", 1)
    except loop.Stopped as stopped:
        print(f"{stopped}. To continue: {shlex.join(command)}")
        return 128 + stopped.signal
    except KeyboardInterrupt:
        return _say("interrupted; continue from the last checkpoint, if any", 130)
    return 0


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return cards.parse(argv)
    except errors.UserError as error:
        raise SystemExit(_say(error, 2)) from None


def _say(message: object, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
