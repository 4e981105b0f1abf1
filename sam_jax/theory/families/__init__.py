"""Step sizes and radii as symbolic objects: their behavior for k to infinity.

Each family knows its `orders.Order`, which decides infinite sums, its largest values,
and the same sequence as a schedule for an optimizer.
"""

from sam_jax.theory.families.base import Constant, Family
from sam_jax.theory.families.diminishing import (
    PerfectSquares,
    PLRadius,
    PLStep,
    Power,
    PowerLog,
)
from sam_jax.theory.families.training import (
    Cosine,
    CosineRestarts,
    Following,
    Linear,
    StepDecay,
    WarmUp,
)

__all__ = [
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Family",
    "Following",
    "Linear",
    "PLRadius",
    "PLStep",
    "PerfectSquares",
    "Power",
    "PowerLog",
    "StepDecay",
    "WarmUp",
]
