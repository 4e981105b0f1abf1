"""Training, validation and test examples as arrays, and how they are divided."""

import dataclasses
import logging
from typing import TYPE_CHECKING

import numpy as np

from sam_jax import errors
from sam_jax.data import randomness

if TYPE_CHECKING:
    from sam_jax.data import stream

_TEST_SHARE = 0.2

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Labelled images in memory.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: int32 [N], what training sees; wrong on purpose under label noise.
        true_labels: int32 [N], as published.
    """

    images: np.ndarray
    labels: np.ndarray
    true_labels: np.ndarray

    @property
    def num_examples(self) -> int:
        """Number N of examples."""
        return len(self.images)

    def take(self, indices: np.ndarray | slice) -> "Split":
        """The examples at ``indices``, in that order; of a slice no copy is made."""
        return Split(
            self.images[indices], self.labels[indices], self.true_labels[indices]
        )


@dataclasses.dataclass(frozen=True, eq=False)
class RawDataset:
    """A data set as published: what a reader returns.

    Attributes:
        train: the original training set.
        test: the test set.
        class_names: of the labels 0, 1, ....
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Labels are 0 to ``num_classes - 1``."""
        return len(self.class_names)


def check_labels(raw: "RawDataset | stream.Stores", name: str) -> None:
    """Refuses data that cannot be classified, as far as their labels are known.

    Raises:
        UserError: an empty split, fewer than two classes, or a label out of range.
    """
    if raw.num_classes < 2:
        raise errors.UserError(
            f"data set {name!r} has {raw.num_classes} class: "
            "classification needs at least 2; choose another data set"
        )
    for which, split in (("training", raw.train), ("test", raw.test)):
        if split.num_examples == 0:
            raise errors.UserError(
                f"the {which} split of data set {name!r} is empty: "
                "at least 1 example is needed; prepare it again or choose another"
            )
        if split.true_labels is None:
            continue
        low, high = int(split.true_labels.min()), int(split.true_labels.max())
        if low < 0 or high >= raw.num_classes:
            raise errors.UserError(
                f"the {which} split of data set {name!r} has labels {low} to {high}: "
                f"with {raw.num_classes} classes, 0 to {raw.num_classes - 1} are "
                "allowed; unlabelled examples must be left out"
            )


def warn_of_missing(labels: np.ndarray, num_classes: int, name: str) -> None:
    """Logs a warning if there are classes without a label to train on.

    No error: some published sets have a class that nothing belongs to.
    """
    missing = np.setdiff1d(np.arange(num_classes), labels)
    if missing.size:
        listed = ", ".join(map(str, missing[:10])) + ", ..." * (missing.size > 10)
        _log.warning(
            f"data set {name!r} has no training example of {missing.size} of its "
            f"{num_classes} classes ({listed}): they cannot be learned"
        )


def check_validation(validation: float) -> None:
    """Refuses what is neither a share of the training set nor a number of examples."""
    share = 0 <= validation < 1
    # 1.0 may be meant as all examples or as one.
    ambiguous = validation == 1 and isinstance(validation, float)
    count = validation >= 1 and float(validation).is_integer() and not ambiguous
    if not (share or count):
        raise errors.UserError(
            f"validation={validation} is neither a share in [0, 1) of the training "
            "set nor a whole number of examples: pass 0.1 or 5000, say, or 0 for none"
        )


def validation_examples(validation: float, num_examples: int) -> int:
    """Number of examples to hold out.

    Args:
        validation: below 1 the share of the examples, else their number. Whole floats
            count as numbers, since configurations may turn 5000 into 5000.0.
        num_examples: size of the original training set.

    Raises:
        UserError: the share rounds to no example, or nothing is left to train on.

    Example:
        >>> validation_examples(0.1, 50_000), validation_examples(5000, 50_000)
        (5000, 5000)
    """
    check_validation(validation)
    share = validation < 1
    held_out = round(validation * num_examples) if share else int(validation)
    if validation > 0 and held_out == 0:
        raise errors.UserError(
            f"validation={validation} of {num_examples} training examples is an empty "
            f"split: pass at least 1 example, or 0 for no validation split"
        )
    if held_out >= num_examples:
        raise errors.UserError(
            f"validation={validation} holds out {held_out} of {num_examples} training "
            f"examples and leaves none to train on: pass less than {num_examples}"
        )
    return held_out


def hold_out(
    num_examples: int, *, validation: float, train_examples: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divides the original training set by a seeded permutation.

    The validation examples depend on the seed and ``validation`` alone, and a smaller
    ``train_examples`` keeps a subset of what a larger one keeps.

    Args:
        num_examples: size of the original training set.
        validation: share or number to hold out; see ``validation_examples``.
        train_examples: how many of the rest to keep; None keeps all.
        seed: of the permutation.

    Returns:
        Indices of the examples to train on and of those held out, both increasing.

    Raises:
        UserError: an empty split, or more examples asked for than there are.
    """
    held_out = validation_examples(validation, num_examples)
    available = num_examples - held_out
    kept = available if train_examples is None else train_examples
    if not (isinstance(kept, int) and 1 <= kept <= available):
        raise errors.UserError(
            f"train_examples={train_examples} is out of range: {available} of "
            f"{num_examples} training examples are left after {held_out} for "
            f"validation; pass 1 to {available}, or None for all"
        )
    generator = randomness.generator(seed, randomness.Stream.SPLIT)
    order = generator.permutation(num_examples)
    # Sorted, because reading forwards through memory is faster.
    return np.sort(order[held_out : held_out + kept]), np.sort(order[:held_out])


def long_tail(
    labels: np.ndarray, imbalance: float, num_classes: int, seed: int
) -> np.ndarray:
    """Leaves out examples, so that classes become rarer one after another.

    Of class c stay ``floor(n * imbalance ** (-c / (num_classes - 1)))`` examples, or
    all if there are fewer, where n is the number of the most frequent class (Cui et
    al., 2019, `1901.05555 <https://arxiv.org/abs/1901.05555>`_).

    Args:
        labels: of the examples, [N].
        imbalance: examples of the first class for each of the last one, >= 1.
        num_classes: at least 2.
        seed: of the choice within a class.

    Returns:
        Indices of the examples that stay, increasing.

    Raises:
        UserError: if nothing stays of a class that has examples.

    Example:
        >>> labels = np.repeat([0, 1, 2], 100)
        >>> print(np.bincount(labels[long_tail(labels, 10, 3, seed=0)]))
        [100  31  10]
    """
    counts = np.bincount(labels, minlength=num_classes)
    powers = imbalance ** (-np.arange(num_classes) / (num_classes - 1))
    # Not a whole number less by rounding.
    wanted = np.floor(counts.max() * powers + 1e-9).astype(int)
    if ((wanted == 0) & (counts > 0)).any():
        raise errors.UserError(
            f"imbalance={imbalance:g} leaves no example of the last of {num_classes} "
            f"classes, of {counts.max()} of the first: pass at most {counts.max()}"
        )
    order = randomness.generator(seed, randomness.Stream.TAIL).permutation(len(labels))
    chosen = [order[labels[order] == c][: wanted[c]] for c in range(num_classes)]
    return np.sort(np.concatenate(chosen))


def divide(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Takes a fifth for the test, of each class as far as that divides.

    The seed chooses within a class. Classes without a test example are logged.
    """
    generator = randomness.generator(seed, randomness.Stream.TEST)
    order = stratified(generator.permutation(len(labels)), labels)
    in_test = max(1, round(_TEST_SHARE * len(labels)))
    if missing := len(set(labels) - set(labels[order[:in_test]])):
        _log.warning(
            f"the test set, a fifth of {len(labels)} examples, has none of {missing} "
            "of the classes: give more examples, or a test set of your own"
        )
    return np.sort(order[in_test:]), np.sort(order[:in_test])


def stratified(shuffled: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """An order in which every beginning has all classes in proportion.

    Args:
        shuffled: a permutation of all examples, which decides within a class.
        labels: of the examples, [N].

    Returns:
        A permutation, int64 [N].

    Example:
        >>> print(stratified(np.arange(6), np.array([0, 0, 0, 0, 1, 1])))
        [0 4 1 2 5 3]
    """
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(place, kind="stable")
