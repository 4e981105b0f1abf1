"""Step sizes, radii and bounds of the papers' theorems, one module per paper.

A rule is next to the bound that it gives. The arguments have the same names everywhere
and are described once, in `constants.Constants` and `constants.Rule`:

- ``known``: the `Constants`; a rule uses those in its formula.
- ``lam``: lambda of Unified SAM, in [0, 1].
- ``rho``, ``rule``: the radius, or radius and step size together.
- ``gap``: Delta = f(x_0) - f*, or f(x_0) - f^inf without a minimizer, or a larger
  number.
- ``steps``: numbers of updates T, or an array of them; a bound has one value for each.

Impossible constants (a curvature above the smoothness, a radius above its limit) raise
a ValueError that says which condition fails, with both sides' values.
"""

from sam_jax.theory.step_sizes.constants import Constants, Rule

__all__ = ["Constants", "Rule"]
