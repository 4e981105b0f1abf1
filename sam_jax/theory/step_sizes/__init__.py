"""Step sizes, radii and bounds of the papers' theorems, one module per paper.

A rule is next to the bound that it gives. Their arguments have the same names
everywhere and is described once, in `constants.Constants` and `constants.Rule`:

- ``known``: the `Constants`; a rule asks for those that its formula has.
- ``lam``: lambda of Unified SAM, in [0, 1].
- ``rho``, ``rule``: the radius, or radius and step size together.
- ``gap``: Delta = f(x_0) - f*, or f(x_0) - f^inf where nothing is attained, or more.
- ``steps``: numbers of updates T, or an array of them; a bound has one value for each.

Impossible constants (a curvature above the smoothness, a radius above its limit) raise
a ValueError that says which condition fails, with both sides' values.
"""

from sam_jax.theory.step_sizes.constants import Constants, Rule

__all__ = ["Constants", "Rule"]
