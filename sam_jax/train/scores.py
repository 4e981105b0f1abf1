"""How accurate predictions are, and how confident."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_BINS = 15  # of the calibration error, as in Guo et al.
_MISTAKES = 48  # that are kept


class OfEach(NamedTuple):
    """The predictions for N examples, all [N].

    Attributes:
        label: the true class.
        predicted: the most probable class.
        probability: of that class.
        nll: minus the logarithm of the label's probability.
        rank: how many classes are more probable than the label.
    """

    label: Any
    predicted: Any
    probability: Any
    nll: Any
    rank: Any


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
        nll: mean cross-entropy, whatever the loss of the run.
        bins: float64 [15, 3]; of the predictions of each bin of the calibration error
            their number, the sum of their probabilities, and how many are right.
        mistakes: ``index``, ``label``, ``predicted`` and ``probability`` of the wrong
            predictions of the highest probability, highest first; the index counts
            the examples that were scored.
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
    nll: float
    bins: np.ndarray
    mistakes: Sequence[Mapping[str, Any]] = ()
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
        totals = ("examples", "loss", "accuracy", "top_5", "ece", "nll")
        return {
            **self.metrics,
            **{name: getattr(self, name) for name in totals},
            "classes": self.per_class(),
            "confusion": self.confusion.tolist(),
            "bins": self.bins.tolist(),
            "mistakes": list(self.mistakes),
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
    seen = predictions(np.asarray(logits, np.float64), labels)
    return of_predictions(seen, class_names, of_each)


def predictions(logits: Any, labels: Any, xp: Any = np) -> OfEach:
    """The predictions of logits [N, C] for N examples with labels [N]."""
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - xp.log(xp.exp(shifted).sum(1, keepdims=True))
    of_label = xp.take_along_axis(logits, labels[:, None], 1)
    # Of classes that are as probable, the one with the lower number comes first.
    earlier = xp.arange(logits.shape[1]) < labels[:, None]
    return OfEach(
        label=labels,
        predicted=logits.argmax(1),
        probability=xp.exp(log_probabilities.max(1)),
        nll=-xp.take_along_axis(log_probabilities, labels[:, None], 1)[:, 0],
        rank=((logits > of_label) | ((logits == of_label) & earlier)).sum(1),
    )


def of_predictions(
    seen: OfEach,
    class_names: tuple[str, ...],
    of_each: Mapping[str, np.ndarray] | None = None,
) -> Scores:
    """As `score`, of what `predictions` returns."""
    known = {"loss": seen.nll, **(of_each or {})}
    means = {name: float(np.mean(x, dtype=np.float64)) for name, x in known.items()}
    means.pop("accuracy", None)
    right = seen.predicted == seen.label
    classes = len(class_names)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (seen.label, seen.predicted), 1)
    bins = _bins(np.asarray(seen.probability, np.float64), right)
    wrong = np.flatnonzero(~right)
    surest = wrong[np.argsort(-seen.probability[wrong], kind="stable")[:_MISTAKES]]
    return Scores(
        class_names,
        len(right),
        loss=means.pop("loss"),
        accuracy=float(right.mean()),
        top_5=float((seen.rank < 5).mean()),
        ece=float(np.abs(bins[:, 2] - bins[:, 1]).sum() / len(right)),
        confusion=confusion,
        nll=float(np.mean(seen.nll, dtype=np.float64)),
        bins=bins,
        mistakes=tuple(
            {
                "index": int(index),
                "label": int(seen.label[index]),
                "predicted": int(seen.predicted[index]),
                "probability": float(seen.probability[index]),
            }
            for index in surest
        ),
        metrics=means,
    )


def _bins(probability: np.ndarray, right: np.ndarray) -> np.ndarray:
    """See `Scores.bins`."""
    # Bin b has the probabilities in (b, b + 1] / _BINS.
    number = np.clip(np.ceil(probability * _BINS).astype(int) - 1, 0, _BINS - 1)
    sums = [np.bincount(number, x, _BINS) for x in (None, probability, right)]
    return np.stack(sums, axis=1).astype(np.float64)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return part / whole
