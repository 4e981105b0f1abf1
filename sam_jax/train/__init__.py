"""The trainer: a run in `loop.py`, its step in `step.py`, one file per part.

A run from `settings` needs flax besides JAX and Optax; run cards and the command line
need what the extra ``train`` installs.
"""
