"""Step sizes, radii and bounds of the papers' theorems, one module per paper.

A rule stands next to the bound that it gives. Impossible constants (a curvature above
the smoothness, a radius above its limit) raise a ValueError that says which condition
fails, with both sides' values.
"""
