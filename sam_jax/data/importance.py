"""Importance sampling: which training examples are drawn more often.

For components of smoothness L_i, ``q_i = L_i / sum L`` makes the stochastic gradient's
constants smallest (Oikonomou and Loizou 2025, section 3). The smoothness of a network's
loss is unknown; that of a linear classifier is proportional to the squared norm of the
example, which is the default score here.
"""

import dataclasses
import pathlib

import numpy as np

from sam_jax import checks, errors
from sam_jax.data import copies, npz


@dataclasses.dataclass(frozen=True)
class Importance:
    """How training examples are drawn.

    Attributes:
        scores: a file ``.npy`` with a positive number for each example of the original
            training set, in its order; None takes `squared_norms`.
        uniform: share of the draws in [0, 1] that are uniform, which bounds the weights
            by its inverse; 1 draws all alike, with replacement.
    """

    scores: str | None = None
    uniform: float = 0.0


def scores(
    images: np.ndarray,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    path: str | None,
) -> np.ndarray:
    """The scores of all examples of the original training set.

    Args:
        images: uint8 [N, H, W, C].
        mean: per channel, in units of pixel / 255.
        std: per channel, likewise.
        path: of a file with the scores, or None for `squared_norms`.

    Returns:
        Float64 [N], positive.

    Raises:
        UserError: if the file cannot be read or does not have N positive numbers.
    """
    if path is None:
        return squared_norms(images, mean, std)
    wanted = f"a positive number for each of the {len(images)} examples"
    give = f"give a file that numpy.save wrote, with {wanted}"
    with copies.local(path) as here, errors.translated(f"scores={path}", give):
        with pathlib.Path(str(here)).open("rb") as file:
            npz.check_start(file.read(6), f"scores={path}", give)
        # Mapped: what the header promises may be more than the file or the memory has.
        found = np.load(str(here), mmap_mode="r", allow_pickle=False)
    if not isinstance(found, np.ndarray):
        raise errors.UserError(
            f"scores={path} is an archive of arrays: give a file that numpy.save wrote"
        )
    fits = found.shape == (len(images),) and found.dtype.kind in "iuf"
    with np.errstate(over="ignore"):
        scores = found.astype(np.float64) if fits else found
    if not fits or not (np.isfinite(scores).all() and (scores > 0).all()):
        raise errors.UserError(
            f"scores={path} must hold {wanted} of the original training set, got shape "
            f"{found.shape} of {found.dtype}"
            + (f", smallest {found.min()}" if fits else "")
        )
    return scores


def squared_norms(
    images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]
) -> np.ndarray:
    """Squared norm of each normalized image with a constant 1 for the bias.

    Args:
        images: uint8 [N, H, W, C].
        mean: per channel, in units of pixel / 255.
        std: per channel, likewise.

    Returns:
        Float64 [N], at least 1.

    Example:
        >>> images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
        >>> print(squared_norms(images, (0.5,), (0.25,)))
        [5. 5.]
    """
    norms = np.ones(len(images))
    # Image by image would be slow, all at once would need eight copies of them.
    for first in range(0, len(images), 4096):
        part = images[first : first + 4096] / 255.0
        norms[first : first + 4096] += (((part - mean) / std) ** 2).sum((1, 2, 3))
    return norms


def probabilities(scores: np.ndarray, uniform: float) -> np.ndarray:
    """Probabilities in proportion to the scores, mixed with uniform ones.

    Args:
        scores: positive, [N].
        uniform: share of the uniform distribution, in [0, 1].

    Returns:
        Float64 [N]; they sum to 1.

    Raises:
        BadValue: if the share is out of range.

    Example:
        >>> print(probabilities(np.array([1.0, 3.0]), 0.5))
        [0.375 0.625]
    """
    checks.between("uniform", uniform, 0, 1)
    # By a power of two, which rounds nothing: the sum must not overflow.
    scores = np.ldexp(scores, -np.frexp(scores.max())[1])
    mixed = (1 - uniform) * scores / scores.sum() + uniform / len(scores)
    return mixed / mixed.sum()
