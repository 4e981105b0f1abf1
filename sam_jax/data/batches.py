"""Batches of a split: all the trainer knows about where examples come from."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np

from sam_jax import checks
from sam_jax.data import randomness, splits

Batch: TypeAlias = dict[str, np.ndarray]


class Draw(NamedTuple):
    """Which examples are in a batch.

    Attributes:
        indices: of the examples in the source, int64 [B].
        weights: factors of their losses, float32 [B].
    """

    indices: np.ndarray
    weights: np.ndarray


class Source(Protocol):
    """Examples in batches, in memory or streamed.

    A batch is a dict of ``image`` uint8 [B, H, W, C], ``label`` int32 [B] and
    ``true_label`` int32 [B].
    """

    @property
    def num_examples(self) -> int:
        """Number of examples."""
        ...

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of whole batches in one pass; the rest of an epoch is dropped.

        Raises:
            BadValue: the batch size is not between 1 and the number of examples.
        """
        ...

    def batches(
        self,
        *,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        rows: np.ndarray | None = None,
    ) -> Iterator[Batch]:
        """Endless shuffled batches.

        Batch n is a function of ``seed`` and n alone, so that a run that was stopped
        continues with the batches it would have seen, on any number of processes.

        Args:
            batch_size: number of examples in a batch.
            seed: of the order, not negative.
            start_step: number of the first batch, counted from 0 over all epochs.
            rows: which examples of each batch to read, by their places in it; None for
                all. A process asks for those of its own devices.

        Returns:
            Iterator of batches with ``weight`` float32 [B], the factor of each
            example's loss: ones where all are drawn alike.

        Raises:
            BadValue: the batch size is not between 1 and the number of examples.
        """
        ...

    def eval_batches(
        self, batch_size: int, rows: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Every example once, in order.

        Args:
            batch_size: number of examples in a batch; may exceed the source's.
            rows: which examples of each batch to read; see `batches`.

        Returns:
            Iterator of batches of one size, with ``mask`` bool [B]: False marks the
            padding of the last batch, whose images and labels are zero.

        Raises:
            BadValue: the batch size is below 1.
        """
        ...


@runtime_checkable
class IndexedSource(Source, Protocol):
    """A source whose examples are in memory, so that others may gather its batches."""

    @property
    def split(self) -> splits.Split:
        """The examples."""
        ...

    def draws(
        self,
        *,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        rows: np.ndarray | None = None,
    ) -> Iterator[Draw]:
        """Which examples are in each of the `batches` of the same arguments."""
        ...


class Shuffled:
    """Draws a permutation of ``(seed, epoch)`` in each epoch."""

    @property
    def num_examples(self) -> int:
        """Number of examples."""
        raise NotImplementedError

    def steps_per_epoch(self, batch_size: int) -> int:
        """See `Source`."""
        checks.integer("batch_size", batch_size, 1)
        if batch_size > self.num_examples:
            raise checks.BadValue(
                f"batch_size must be in [1, {self.num_examples}], the number of "
                f"examples, got {batch_size}"
            )
        return self.num_examples // batch_size

    def draw(self, batch_size: int, seed: int, step: int) -> Draw:
        """The whole of a batch; a source that draws in another way has its own."""
        epoch, step = divmod(step, self.num_examples // batch_size)
        first = step * batch_size
        chosen = _order(seed, epoch, self.num_examples)[first : first + batch_size]
        return Draw(chosen, np.ones(batch_size, np.float32))


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    generator = randomness.generator(seed, randomness.Stream.BATCHES, epoch)
    return generator.permutation(num_examples)


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource(Shuffled):
    """`IndexedSource` that draws a permutation of ``(seed, epoch)`` in each epoch.

    Attributes:
        split: the examples.

    Example:
        >>> labels = np.arange(5, dtype=np.int32)
        >>> images = np.zeros((5, 2, 2, 1), np.uint8)
        >>> source = ArraySource(splits.Split(images, labels, labels))
        >>> batch = next(source.batches(batch_size=2, seed=0))
        >>> batch["image"].shape, batch["label"].shape
        ((2, 2, 2, 1), (2,))
        >>> [int(b["mask"].sum()) for b in source.eval_batches(2)]
        [2, 2, 1]
        >>> draw = next(source.draws(batch_size=3, seed=1))
        >>> print(draw.indices, draw.weights)
        [3 0 2] [1. 1. 1.]
    """

    split: splits.Split

    @property
    def num_examples(self) -> int:
        """Number of examples."""
        return self.split.num_examples

    def batches(
        self,
        *,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        rows: np.ndarray | None = None,
    ) -> Iterator[Batch]:
        """See `Source`."""
        draws = self.draws(
            batch_size=batch_size, seed=seed, start_step=start_step, rows=rows
        )
        return (self._gather(draw.indices) | {"weight": draw.weights} for draw in draws)

    def draws(
        self,
        *,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        rows: np.ndarray | None = None,
    ) -> Iterator[Draw]:
        """See `IndexedSource`."""
        # Not itself a generator, so that a wrong batch size is reported at once.
        self.steps_per_epoch(batch_size)
        draws = (self.draw(batch_size, seed, n) for n in itertools.count(start_step))
        return draws if rows is None else (Draw(i[rows], w[rows]) for i, w in draws)

    def eval_batches(
        self, batch_size: int, rows: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """See `Source`."""
        checks.integer("batch_size", batch_size, 1)
        rows = np.arange(batch_size) if rows is None else rows
        return self._eval_batches(batch_size, rows)

    def _eval_batches(self, batch_size: int, rows: np.ndarray) -> Iterator[Batch]:
        for first in range(0, self.num_examples, batch_size):
            # Rows ascend, so that those beyond the last example are at the end.
            there = first + rows[first + rows < self.num_examples]
            batch = self._gather(there) | {"mask": np.ones(len(there), bool)}
            missing = len(rows) - len(there)
            yield {key: _pad(value, missing) for key, value in batch.items()}

    def _gather(self, indices: np.ndarray) -> Batch:
        chosen = self.split.take(indices)
        return {
            "image": chosen.images,
            "label": chosen.labels,
            "true_label": chosen.true_labels,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class SampledSource(ArraySource):
    """Source that draws with replacement, some examples more often than others.

    Each has the weight 1 / (N q_i), so that the mean of weight * loss over a batch is
    an unbiased estimate of the mean loss: ``theory.sampling.WithReplacement`` in the
    trainer. An epoch is as many batches as without replacement.

    Attributes:
        split: the examples.
        probabilities: q_i > 0 of each example, [N]; they sum to 1.

    Example:
        >>> labels = np.arange(2, dtype=np.int32)
        >>> images = np.zeros((2, 2, 2, 1), np.uint8)
        >>> split = splits.Split(images, labels, labels)
        >>> source = SampledSource(split, np.array([0.25, 0.75]))
        >>> batch = next(source.batches(batch_size=2, seed=0))
        >>> print(batch["label"], batch["weight"].round(2))
        [1 0] [0.67 2.  ]
    """

    probabilities: np.ndarray

    def draw(self, batch_size: int, seed: int, step: int) -> Draw:
        """See `Shuffled`."""
        generator = randomness.generator(seed, randomness.Stream.BATCHES, step)
        chances = self.probabilities
        drawn = generator.choice(self.num_examples, batch_size, p=chances)
        weights = 1 / (self.num_examples * chances[drawn])
        return Draw(drawn, weights.astype(np.float32))


@dataclasses.dataclass(frozen=True, eq=False)
class AlternatingSource(ArraySource):
    """Source of images that it gives mirrored in every second epoch.

    In the first epoch half of them, drawn at random, are mirrored, in the next one the
    others, so that two epochs in a row show both sides of every image (Jordan 2024,
    arXiv:2404.00498, section 3.6).

    Attributes:
        split: the images, and after them all of them mirrored.
        source: of the images, which draws.

    Example:
        >>> images = np.array([1, 2, 3, 4], np.uint8).reshape(2, 1, 2, 1)
        >>> labels = np.zeros(2, np.int32)
        >>> plain = ArraySource(splits.Split(images, labels, labels))
        >>> seen = AlternatingSource.of(plain).batches(batch_size=2, seed=0)
        >>> for batch in (next(seen), next(seen)):
        ...     print(batch["image"].reshape(2, 2).tolist())
        [[4, 3], [1, 2]]
        [[3, 4], [2, 1]]
    """

    source: ArraySource

    @classmethod
    def of(cls, source: ArraySource) -> Self:
        """That of the images of a source."""
        plain = source.split
        mirrored = plain.images[:, :, ::-1]
        labels = (np.tile(x, 2) for x in (plain.labels, plain.true_labels))
        both = splits.Split(np.concatenate([plain.images, mirrored]), *labels)
        return cls(both, source)

    @property
    def num_examples(self) -> int:
        """Number of examples, which are there twice."""
        return self.split.num_examples // 2

    def draw(self, batch_size: int, seed: int, step: int) -> Draw:
        """See `Shuffled`."""
        count, draw = self.num_examples, self.source.draw(batch_size, seed, step)
        epoch = step // (count // batch_size)
        mirrored = (_sides(seed, count)[draw.indices] + epoch) % 2
        return draw._replace(indices=draw.indices + mirrored * count)


@functools.lru_cache(maxsize=2)
def _sides(seed: int, num_examples: int) -> np.ndarray:
    """Which images are mirrored in the first epoch."""
    generator = randomness.generator(seed, randomness.Stream.MIRRORED)
    return generator.integers(2, size=num_examples)


def _pad(array: np.ndarray, missing: int) -> np.ndarray:
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
