"""How sure a network is of itself, and how it does on disturbed test images."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from scipy import ndimage

from sam_jax.train import files, loaded, scores, typed

EXAMPLES = 2000  # of the test set, the first ones
Disturbed = Callable[[np.ndarray], np.ndarray]


def _noise(images: np.ndarray) -> np.ndarray:
    """Normal noise of a standard deviation of 0.08, pixels being in [0, 1]."""
    return images + np.random.default_rng(0).normal(0, 0.08, images.shape)


def _blur(images: np.ndarray) -> np.ndarray:
    """A Gaussian blur of one pixel."""
    return ndimage.gaussian_filter(images, (0, 1, 1, 0), mode="nearest")


def _contrast(images: np.ndarray) -> np.ndarray:
    """Each channel of an image goes to 0.4 of its distance from its mean."""
    mean = images.mean((1, 2), keepdims=True)
    return mean + 0.4 * (images - mean)


# Computed, at a strength of our own; they are not those of CIFAR-10-C.
DISTURBANCES: Mapping[str, Disturbed] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
}


_PROGRAMS: dict[str, Callable[..., jax.Array]] = {}


def _jitted(network: str, run: loaded.LoadedRun) -> Callable[..., jax.Array]:
    """The logits of a network; runs of one network share the program."""
    return _PROGRAMS.setdefault(network, jax.jit(run.logits))


def disturbed(images: np.ndarray, by: Disturbed) -> np.ndarray:
    """Images, uint8 [N, H, W, C], disturbed and rounded to bytes again.

    Example:
        >>> half = np.full((1, 2, 2, 1), 100, np.uint8)
        >>> disturbed(half, _contrast).ravel().tolist()
        [100, 100, 100, 100]
    """
    return np.clip(np.rint(255 * by(images / 255)), 0, 255).astype(np.uint8)


def measured(
    run: loaded.LoadedRun, images: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Negative log-likelihood, calibration, and errors on disturbed images.

    Args:
        run: a finished one.
        images: of the test set, uint8 [N, H, W, C].
        labels: true ones, int [N].

    Returns:
        ``nll``, ``ece`` (a fraction) of all, and ``error_NAME`` (fractions) of the
        first `EXAMPLES`, for each of `DISTURBANCES`.
    """
    network = typed.plain(run.config)["model"], run.preprocessing
    apply = _jitted(files.to_json(network, default=vars), run)

    def scored(images: np.ndarray) -> scores.Scores:
        size = min(500, len(images))
        parts = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            rows = np.pad(part, [(0, size - len(part)), (0, 0), (0, 0), (0, 0)])
            parts.append(
                np.asarray(apply(run.params, run.model_state, rows))[: len(part)]
            )
        logits = np.concatenate(parts)
        return scores.score(logits, labels[: len(logits)], run.class_names)

    clean, few = scored(images), images[:EXAMPLES]
    errors = {
        f"error_{name}": 1 - scored(disturbed(few, by)).accuracy
        for name, by in DISTURBANCES.items()
    }
    return {"nll": clean.loss, "ece": clean.ece, **errors}
