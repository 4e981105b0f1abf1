"""Si, Yun, NeurIPS 2023, arXiv 2306.09850.

The paper's rates are stated as recalled; the bounds with explicit constants and the
stochastic counterexamples are derived here (`sam_jax.theory.step_sizes.si_yun`).
"""
