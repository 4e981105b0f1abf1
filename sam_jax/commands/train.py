"""``sam-jax train``: the flags of `sam_jax.main`."""

import runpy
import sys
from collections.abc import Sequence

_HELP = """\
usage: sam-jax train --config=CARD[:METHOD] [--config.NAME=VALUE ...] [FLAG ...]

Trains as a run card says; the same command with the same --workdir continues.

flags:
{flags}

settings, with the defaults that a card starts from (a method's coefficients are
settings too, such as --config.method.rho=0.1; docs/methods.md has them):
{settings}

Example:
  sam-jax train --config=configs/cifar10_sam.py:vasso --config.epochs=100
"""


def main(arguments: Sequence[str]) -> int:
    """Trains; ends the process as ``python -m sam_jax.main`` does."""
    if {"-h", "--help"} & set(arguments):
        print(_HELP.format(flags=_flags(), settings=_settings()), end="")
        return 0
    sys.argv = ["sam-jax train", *arguments]
    runpy.run_module("sam_jax.main", run_name="__main__", alter_sys=True)
    return 0


def _flags() -> str:
    from absl import flags

    from sam_jax import main

    known = flags.FLAGS.flags_by_module_dict()[main.__name__]
    return "\n".join(
        f"  --{flag.name}={flag.default or ''}\n      {flag.help}" for flag in known
    )


def _settings() -> str:
    from sam_jax.train import settings, typed

    defaults = settings.flat(typed.plain(settings.Settings()))
    return "\n".join(f"  --config.{name}={value}" for name, value in defaults.items())
