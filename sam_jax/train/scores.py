"""How good predictions are, and how sure of themselves."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

_BINS = 15  # of the calibration error, as in Guo et al.


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Scores of predictions; fractions, none in percent.

    Attributes:
        class_names: of the labels, in their order; C of them.
        examples: how many were scored.
        loss: its mean; the cross-entropy, or that of the run.
        accuracy: share whose most probable class is right.
        top_5: share whose class is among the five most probable ones.
        ece: expected calibration error, in 15 bins of equal width: the mean distance
            between how sure the predictions of a bin are and how many of them are
            right.
        confusion: int64 [C, C]; row: true class, column: predicted one.
        metrics: means of the user's own, by their names.

    References:
        Guo et al., "On Calibration of Modern Neural Networks", 2017,
        arXiv:1706.04599, equation 3.
    """

    class_names: tuple[str, ...]
    examples: int
    loss: float
    accuracy: float
    top_5: float
    ece: float
    confusion: np.ndarray
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def support(self) -> np.ndarray:
        """Examples of each class, int64 [C]."""
        return self.confusion.sum(1)

    @property
    def precision(self) -> np.ndarray:
        """Share of the predictions of each class that are right, [C].

        NaN where a class was never predicted.
        """
        return _share(self.confusion.diagonal(), self.confusion.sum(0))

    @property
    def recall(self) -> np.ndarray:
        """Share of each class that was found, [C]; NaN for one without examples."""
        return _share(self.confusion.diagonal(), self.support)

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, [C].

        NaN for a class without examples that was never predicted.
        """
        found = self.confusion.diagonal()
        return _share(2 * found, self.confusion.sum(0) + self.support)

    def per_class(self) -> list[dict[str, Any]]:
        """A row for each class: its name, precision, recall, F1 and support."""
        columns = self.class_names, self.precision, self.recall, self.f1, self.support
        return [
            {
                "class": name,
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
                "support": int(support),
            }
            for name, precision, recall, f1, support in zip(*columns, strict=True)
        ]

    def plain(self) -> dict[str, Any]:
        """Numbers, lists and dicts."""
        totals = ("examples", "loss", "accuracy", "top_5", "ece")
        return {
            **self.metrics,
            **{name: getattr(self, name) for name in totals},
            "classes": self.per_class(),
            "confusion": self.confusion.tolist(),
        }


def score(
    logits: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    of_each: Mapping[str, np.ndarray] | None = None,
) -> Scores:
    """Scores outputs of a network.

    Args:
        logits: float [N, C], N at least 1.
        labels: int [N], in [0, C).
        class_names: C of them.
        of_each: what else is known of each example, [N]: ``loss``, which is the
            cross-entropy by default, and the user's metrics.

    Returns:
        The scores, computed in float64.

    Example:
        >>> outputs = np.log([[0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
        >>> scores = score(outputs, np.array([0, 1, 1]), ("cat", "dog"))
        >>> round(scores.accuracy, 3), scores.confusion.tolist()
        (0.667, [[1, 0], [1, 1]])
        >>> scores.per_class()[1]["recall"]
        0.5
    """
    logits = np.asarray(logits, np.float64)
    examples, classes = logits.shape
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    predicted = logits.argmax(1)
    right = predicted == labels
    known = {"loss": -np.take_along_axis(log_probabilities, labels[:, None], 1)}
    known |= of_each or {}
    means = {name: float(np.mean(x, dtype=np.float64)) for name, x in known.items()}
    means.pop("accuracy", None)
    of_label = np.take_along_axis(logits, labels[:, None], 1)
    # Of classes that are as probable, the one with the lower number comes first.
    earlier = np.arange(classes) < labels[:, None]
    rank = ((logits > of_label) | ((logits == of_label) & earlier)).sum(1)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return Scores(
        class_names,
        examples,
        loss=means.pop("loss"),
        accuracy=float(right.mean()),
        top_5=float((rank < 5).mean()),
        ece=_calibration_error(np.exp(log_probabilities.max(1)), right),
        confusion=confusion,
        metrics=means,
    )


def _calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Of predictions with these probabilities."""
    # Bin b has the probabilities in (b, b + 1] / _BINS.
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    gaps = np.bincount(bins, right - confidence, _BINS)
    return float(np.abs(gaps).sum() / len(right))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return part / whole
