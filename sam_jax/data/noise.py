"""Wrong labels on purpose, to study how training copes with them."""

import numpy as np

from sam_jax import checks
from sam_jax.data import randomness


def symmetric_noise(
    labels: np.ndarray, rate: float, *, num_classes: int, seed: int
) -> np.ndarray:
    """Replaces a share of the labels by a uniformly drawn other class.

    Exactly ``round(rate * N)`` labels become wrong. Some papers draw among *all*
    classes instead, so that a replaced label may stay right: their rate r leaves
    ``r * (num_classes - 1) / num_classes`` of the labels wrong, which is the rate to
    pass here to compare with them.

    Args:
        labels: int32 [N], in 0 to ``num_classes - 1``.
        rate: share of labels to replace, in [0, 1).
        num_classes: at least 2.
        seed: of the choice of examples and classes.

    Returns:
        int32 [N], a new array.

    Raises:
        BadValue: the rate, or the number of classes, is out of range.

    Example:
        >>> labels = np.zeros(10, np.int32)
        >>> noisy = symmetric_noise(labels, 0.4, num_classes=3, seed=0)
        >>> int((noisy != labels).sum())
        4
    """
    checks.below_one("rate", rate)
    checks.integer("num_classes", num_classes, 2)
    generator = randomness.generator(seed, randomness.Stream.NOISE)
    replaced = generator.permutation(len(labels))[: round(rate * len(labels))]
    # A step of 1 to num_classes - 1 around the circle of classes is never the same one.
    steps = generator.integers(1, num_classes, size=len(replaced), dtype=np.int32)
    noisy = labels.copy()
    noisy[replaced] = (labels[replaced] + steps) % num_classes
    return noisy
