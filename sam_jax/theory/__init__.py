"""The convergence theory of SAM as code: problems, sampling, step sizes, conditions.

Needs float64 for most of what it is for: ``jax.config.update("jax_enable_x64", True)``
first. The experiments over it are in ``experiments/theory``.
"""
