"""Si, Yun, NeurIPS 2023, arXiv 2306.09850.

The paper's rules and rates are marked *unverified*: they were not compared with its
text, and no check rests on them. The bounds with explicit constants and the
stochastic counterexamples are derived here (`sam_jax.theory.step_sizes.si_yun`).
"""
