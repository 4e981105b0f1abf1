r"""Which theorem applies: every condition separately, and what follows.

A `Setting` says what is run: a method, a step size and a radius as symbolic
`families`, and what is known of the function. `assess` checks it against every theorem
of the three papers, condition by condition; `properties` collects which of the five
fundamental convergence properties (Khanh et al. 2024, Table 1) follow.

A condition holds, fails, or is unknown because a constant is not known. The theorems of
Si and Yun 2023 have the form with explicit constants that
`sam_jax.theory.step_sizes.si_yun` derives.

Example:
    >>> from sam_jax.theory import families, problems
    >>> problem = problems.quadratic([1.0, 10.0], [1.0, 1.0])
    >>> setting = on(problem, method="usam", step_size=families.Constant(0.1))
    >>> sorted(properties(assess(setting)))
    [1, 2, 3, 4, 5]
"""

from sam_jax.theory.conditions.method_classes import error_factor, methods
from sam_jax.theory.conditions.requirements import Condition
from sam_jax.theory.conditions.settings import Setting, on
from sam_jax.theory.conditions.theorems import PROPERTIES, Conclusion, Theorem
from sam_jax.theory.conditions.verdicts import THEOREMS, Verdict, assess, properties

__all__ = [
    "PROPERTIES",
    "THEOREMS",
    "Conclusion",
    "Condition",
    "Setting",
    "Theorem",
    "Verdict",
    "assess",
    "error_factor",
    "methods",
    "on",
    "properties",
]
