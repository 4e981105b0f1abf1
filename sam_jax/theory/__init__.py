"""The convergence theory of SAM as code: problems, sampling, step sizes, conditions.

Most of it needs float64: set ``jax.config.update("jax_enable_x64", True)`` first. The
experiments that use it are in ``experiments/theory``.
"""
