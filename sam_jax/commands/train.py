"""``sam-jax train``: the flags of `sam_jax.main`."""

import runpy
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Trains; ends the process as ``python -m sam_jax.main`` does."""
    if {"-h", "--help"} & set(arguments):
        from sam_jax import main as trainer

        print(trainer.help_text("sam-jax train"), end="")
        return 0
    sys.argv = ["sam-jax train", *arguments]
    runpy.run_module("sam_jax.main", run_name="__main__", alter_sys=True)
    return 0
