"""Experiments over the package; never imported by it."""

import sys

from sam_jax.train import interrupt

if sys.argv[0] == "-m":  # so as long as Python looks for the module to run
    interrupt.listen()
