"""Data that do not fit in memory: read and decoded while the network trains.

Which examples are in a batch, and what is cut out of them, are functions of the seed
and the number of the batch, as of data in memory, in the same order. So nothing has to
be kept to continue: workers begin at the batch that is asked for. Grain reads ahead, in
threads of this process or in separate processes.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import logging
import os
import shutil
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from sam_jax import checks, errors
from sam_jax.data import (
    cropping,
    labelled,
    pictures,
    randomness,
    splits,
)
from sam_jax.data.batches import Batch, Shuffled

CHUNK = 8  # examples that a worker hands over together
_AHEAD = 64 * 2**20, 256 * 2**20  # bytes that wait: at least, and at most
_SHARED = "/dev/shm"  # for the chunks of worker processes

_log = logging.getLogger(__name__)


class Read(NamedTuple):
    """An example as it is stored.

    Attributes:
        name: for messages.
        content: of an image file.
        label: where it is stored with the image.
    """

    name: str
    content: bytes
    label: int = -1


class Store(Protocol):
    """The place of examples; it is sent to the worker processes."""

    def __call__(self, index: int) -> Read:
        """Reads one."""
        ...

    def __len__(self) -> int:
        """Their number."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
    """Image files; of each the name and eight bytes are kept.

    Attributes:
        root: the common beginning of all paths.
        names: the rests of the paths, one after another.
        ends: of each name in them, int64 [N].
    """

    root: bytes
    names: bytes
    ends: np.ndarray

    @classmethod
    def of(cls, paths: Sequence[str]) -> Self:
        """Those of these paths."""
        common = os.path.commonprefix([min(paths), max(paths)])  # noqa: RUF071
        root = os.fsencode(common)
        names = [os.fsencode(path)[len(root) :] for path in paths]
        return cls(root, b"".join(names), np.cumsum([len(name) for name in names]))

    def __len__(self) -> int:
        """Their number."""
        return len(self.ends)

    def path(self, index: int) -> str:
        """That of a file."""
        first = self.ends[index - 1] if index else 0
        return os.fsdecode(self.root + self.names[first : self.ends[index]])

    def __call__(self, index: int) -> Read:
        """See `Store`."""
        path = self.path(index)
        try:
            with open(path, "rb") as file:
                return Read(path, file.read())
        except OSError as error:
            raise errors.UserError(
                f"{path} cannot be read ({error.strerror}): leave the files as they "
                "are while they are read; the run continues from its last checkpoint"
            ) from error


class Stores(NamedTuple):
    """A data set of which nothing but names and labels is in memory.

    Attributes:
        train: the original training set.
        test: the test set.
        class_names: of the labels 0, 1, ....
    """

    train: "Part"
    test: "Part"
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Labels are 0 to ``num_classes - 1``."""
        return len(self.class_names)


class Part(NamedTuple):
    """Some examples of a store.

    Attributes:
        store: that holds them.
        indices: of them in the store, int64 [N].
        true_labels: of them, int32 [N]; None where they are stored beside the images.
    """

    store: Store
    indices: np.ndarray
    true_labels: np.ndarray | None = None

    @property
    def num_examples(self) -> int:
        """Number N of examples."""
        return len(self.indices)

    def take(self, chosen: np.ndarray) -> "Part":
        """Some of them."""
        labels = None if self.true_labels is None else self.true_labels[chosen]
        return Part(self.store, self.indices[chosen], labels)


def of_files(listing: labelled.Listing, seed: int) -> Stores:
    """The files of a folder or table."""
    names, labels = listing.labels()
    every = Part(Files.of(listing.files), np.arange(len(labels)), labels)
    parts = np.split(every.indices, [len(listing.train.files)])
    if listing.test is None:
        parts = splits.divide(labels, seed)
    train, test = map(every.take, parts)
    labelled.check_left(labels[parts[0]], names, listing.where)
    return Stores(train, test, names)


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedSource(Shuffled):
    """`Source` of images that are decoded as they are needed.

    An image that is broken stops the run; or, if such are skipped, it is black, with
    the weight 0 and no part in an evaluation, and a warning names it.

    Attributes:
        store: that holds the examples.
        indices: of those of this source in the store, int64 [N].
        labels: what training sees, int32 [N]; None where they are stored beside images.
        true_labels: likewise.
        how: images become one size.
        smallest: area of the random resized crop in training; 0 is none.
        workers: processes that decode; 0 is threads of this one.

    Example:
        >>> Files.of(["/a/cat/1.png", "/a/dog/1.png"]).path(1)
        '/a/dog/1.png'
    """

    store: Store
    indices: np.ndarray
    labels: np.ndarray | None
    true_labels: np.ndarray | None
    how: pictures.How
    smallest: float = 0.0
    workers: int = 0
    # Numbers of the broken examples that a warning has named.
    _named: set[int] = dataclasses.field(default_factory=set, init=False, repr=False)

    @property
    def num_examples(self) -> int:
        """Number of examples."""
        return len(self.indices)

    def take(self, rows: np.ndarray) -> Self:
        """Some of the examples, or all in another order."""
        labels, true_labels = (
            x if x is None else x[rows] for x in (self.labels, self.true_labels)
        )
        return dataclasses.replace(
            self, indices=self.indices[rows], labels=labels, true_labels=true_labels
        )

    def fingerprint(self) -> dict[str, str]:
        """Digests of what is known before images are read."""
        parts = {"order": self.indices, "labels": self.labels}
        known = {k: x.tobytes() for k, x in parts.items() if x is not None}
        if isinstance(self.store, Files):
            known["files"] = self.store.names + self.store.ends.tobytes()
        return {k: hashlib.sha256(x).hexdigest()[:12] for k, x in known.items()}

    def batches(
        self,
        *,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        rows: np.ndarray | None = None,
    ) -> Iterator[Batch]:
        """See `Source`."""
        self.steps_per_epoch(batch_size)
        rows = np.arange(batch_size) if rows is None else rows
        found = _read(_Reader(self, batch_size, rows, seed), start_step, None)
        return ({k: x for k, x in batch.items() if k != "mask"} for batch in found)

    def eval_batches(
        self, batch_size: int, rows: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """See `Source`."""
        checks.integer("batch_size", batch_size, 1)
        rows = np.arange(batch_size) if rows is None else rows
        count = -(-self.num_examples // batch_size)
        found = _read(_Reader(self, batch_size, rows, None), 0, count)
        return ({k: x for k, x in batch.items() if k != "weight"} for batch in found)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads the chunks of the batches, each by its number."""

    source: StreamedSource
    batch_size: int
    rows: np.ndarray
    seed: int | None  # None: in order

    @property
    def parts(self) -> int:
        """Chunks of a batch."""
        return -(-len(self.rows) // CHUNK)

    def __call__(self, number: int) -> dict[str, Any]:
        """A part of a batch, and what is wrong with its images."""
        step, part = divmod(number, self.parts)
        rows, source = self.rows[part * CHUNK : (part + 1) * CHUNK], self.source
        if self.seed is None:
            chosen, weights = step * self.batch_size + rows, np.ones(len(rows))
        else:
            drawn = source.draw(self.batch_size, self.seed, step)
            chosen, weights = drawn.indices[rows], drawn.weights[rows]
        side = source.how.image_size
        assert side is not None  # as `loading` asks for
        found: dict[str, Any] = {
            "image": np.zeros((len(rows), side, side, 3), np.uint8),
            "label": np.zeros(len(rows), np.int32),
            "true_label": np.zeros(len(rows), np.int32),
            "weight": weights.astype(np.float32),
            "mask": chosen < source.num_examples,
            "broken": [],
            "failed": "",
        }
        for row in np.flatnonzero(found["mask"]).tolist():
            place = step * self.batch_size + int(rows[row])
            try:
                broken = self._fill(found, row, int(chosen[row]), place)
            except errors.UserError as error:
                return found | {"failed": str(error)}
            if broken:
                found["broken"].append((int(chosen[row]), broken))
                found["weight"][row] = found["mask"][row] = 0
        return found

    def _fill(self, found: dict[str, Any], row: int, chosen: int, place: int) -> str:
        """Puts an example into its row; what is wrong with it, if it is left out."""
        source, box = self.source, None
        if self.seed is not None and source.smallest:
            crops = randomness.generator(self.seed, randomness.Stream.CROPS, place)
            draws = crops.random((cropping.TRIES, 4))
            box = functools.partial(cropping.boxes, draws, smallest=source.smallest)
        read = source.store(int(source.indices[chosen]))
        image = pictures.attempt(read.name, source.how, read.content, box)
        for name, labels in (
            ("label", source.labels),
            ("true_label", source.true_labels),
        ):
            found[name][row] = read.label if labels is None else labels[chosen]
        if isinstance(image, str):
            return image
        found["image"][row] = image
        return ""


def _read(reader: _Reader, first: int, stop: int | None) -> Iterator[Batch]:
    """The batches from the first one on, put together of chunks that are read ahead."""
    chunks, parts = _ahead(reader, first, stop), reader.parts
    with contextlib.closing(chunks):
        steps = itertools.count(first) if stop is None else range(first, stop)
        for _ in steps:
            taken = [_checked(next(chunks), reader.source) for _ in range(parts)]
            yield {
                name: np.concatenate([chunk[name] for chunk in taken])
                for name in ("image", "label", "true_label", "weight", "mask")
            }


def _checked(chunk: dict[str, Any], source: StreamedSource) -> dict[str, Any]:
    """Refuses a chunk that could not be read; says once what is left out."""
    if chunk["failed"]:
        raise errors.UserError(chunk["failed"])
    for number, broken in chunk["broken"]:
        if number not in source._named:
            _log.warning(f"{broken}: left out of every batch")
            source._named.add(number)
        if len(source._named) == source.num_examples:
            raise errors.UserError(
                f"none of {source.num_examples} images of a split can be read, the "
                f"last one: {broken}; fix or replace them"
            )
    return chunk


def _ahead(reader: _Reader, first: int, stop: int | None) -> Generator[dict[str, Any]]:
    """The chunks in order, decoded before they are asked for."""
    with errors.needing("stream"):
        import grain

    size, workers = reader.source.how.image_size or 1, reader.source.workers
    chunk = CHUNK * size * size * 3
    low, high = (max(1, bytes // chunk) for bytes in _AHEAD)
    waiting = min(max(low, reader.parts), high)
    end = 2**60 if stop is None else stop * reader.parts
    numbers = grain.MapDataset.range(first * reader.parts, end).map(reader)
    if not workers:
        threads = (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
        )
        options = grain.ReadOptions(threads, max(threads, waiting))
        yield from iter(numbers.to_iter_dataset(options))
        return
    _allow_processes()
    if os.path.isdir(_SHARED):  # where a write that does not fit kills the worker
        waiting = min(waiting, shutil.disk_usage(_SHARED).free // (4 * chunk))
    each = max(1, waiting // (2 * workers))  # Grain has two such queues
    ahead = numbers.to_iter_dataset(grain.ReadOptions(1, 1)).mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=each)
    )
    found: Any = iter(ahead)
    try:
        yield from found
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):
            raise
        raise errors.UserError(
            f"a worker process that decodes images ended ({errors.one_line(error)[:80]}"
            "): was it killed, or memory or /dev/shm full? Start the run again, with "
            "fewer config.data.workers or with 0; it continues from its last checkpoint"
        ) from error
    finally:
        found.close()  # which frees what waits in shared memory


def _allow_processes() -> None:
    """Grain reads flags of absl, which need not have been parsed here."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
