"""``python -m sam_jax VERB``; see `sam_jax.commands`."""

import sys

from sam_jax import commands

if __name__ == "__main__":
    sys.exit(commands.main())
