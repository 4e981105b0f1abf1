"""What is measured: the loss of a run around its weights, on some examples.

The loss is the one that evaluations report, on examples of the training set with the
labels that the run trains on, without augmentation, weight decay or label smoothing.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import checks, data, errors, models, sharpness
from sam_jax.train import frozen, loaded, losses, sharding

BATCH_NORM = ("evaluation", "training")
DIRECTIONS = ("random", "eigenvectors")
_READ = 500  # examples at once of a stream


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a measurement depends on, besides the run.

    Attributes:
        examples: how many of the training set, drawn with the seed; None: all.
        batch_norm: ``"evaluation"``, by the running statistics, or ``"training"``, by
            those of each batch, with one fixed dropout mask.
        seed: of the examples and of random vectors.
        rho: radius of worst and average case, and of SAM's step.
        m: examples that share a perturbation in the m-sharpness.
        k: how many of the largest eigenvalues.
        directions: of lines and planes: ``"random"``, filter-normalized, or
            ``"eigenvectors"``, those of the largest eigenvalues.
    """

    examples: int | None = 1000
    batch_norm: Literal["evaluation", "training"] = "evaluation"
    seed: int = 0
    rho: float = 0.05
    m: int = 128
    k: int = 1
    directions: Literal["random", "eigenvectors"] = "random"

    def __post_init__(self) -> None:
        """Refuses what is out of its range."""
        for name in ("examples", "m", "k"):
            if getattr(self, name) is not None:
                checks.integer(name, getattr(self, name), 1)
        checks.seed("seed", self.seed)
        checks.positive("rho", self.rho)
        checks.one_of("batch_norm", self.batch_norm, BATCH_NORM)
        checks.one_of("directions", self.directions, DIRECTIONS)


class Examples(NamedTuple):
    """Some examples, and what of the network changes without being measured.

    Attributes:
        images: [B, H, W, C], as a source gives them.
        labels: int32 [B], those trained on.
        weights: of the losses, float32 [B]; zero for what fills the last batch up.
        rest: running statistics, and weights that are not trained.
    """

    images: Any
    labels: Any
    weights: Any
    rest: Any


class Losses:
    """The losses of a network, compiled once for all weights that it may have.

    Args:
        model: the network.
        measure: what is measured of each example; see `losses.Losses`.
        normalize: ``uint8 images -> float images``.
    """

    def __init__(
        self,
        model: models.Model,
        measure: losses.Measure,
        normalize: Callable[[jax.Array], jax.Array],
    ) -> None:
        self._model, self._measure, self._normalize = model, measure, normalize
        self.of = functools.cache(self._of)

    @classmethod
    def of_run(cls, run: loaded.LoadedRun) -> "Losses":
        """Those of a run that is read."""
        mean, std = run.preprocessing.mean, run.preprocessing.std
        normalize = data.augment.make_normalize(mean=mean, std=std)
        return cls(run.model, run.measure, normalize)

    def _of(self, batch_norm: str, normalized: bool = False) -> sharpness.Compiled:
        """``loss(params, examples)``, of normalized logits if that is asked for."""
        train = batch_norm == "training"

        def outputs(params: Any, batch: Examples) -> Any:
            model_state, kept = batch.rest
            found, _ = self._model.apply(
                *(frozen.whole(params, kept), model_state),
                self._normalize(batch.images),
                train=train,
                key=jax.random.key(0) if train else None,
            )
            if not normalized:
                return found
            return sharpness.normalized_logits(losses.logits_of(found))

        def of_outputs(outputs: Any, batch: Examples) -> jax.Array:
            seen = {
                "image": self._normalize(batch.images),
                "label": batch.labels,
                "mask": batch.weights > 0,
            }
            of_each = self._measure(outputs, seen)["loss"]
            return jnp.mean(batch.weights * of_each, dtype=jnp.float32)

        return sharpness.Compiled(sharpness.Composed(outputs, of_outputs))


class Batches(Iterable[Examples]):
    """The examples of a source in batches of one size, repeatedly.

    The losses are weighted such that the mean over the batches is that over the
    examples, without what fills the last batch up and broken images of a stream.

    Args:
        source: of the examples.
        size: of a batch; all examples, if they are fewer.
        whole: leave out a last batch that is not full.
        rest: what goes with each batch.
        mesh: devices to cut batches over where they divide; None is one device.
    """

    def __init__(
        self,
        source: data.Source,
        size: int,
        whole: bool,
        rest: Any,
        mesh: jax.sharding.Mesh | None = None,
    ) -> None:
        total = source.num_examples
        self._source, self._size, self._rest = source, min(size, total), rest
        self._count = total // self._size if whole else -(-total // self._size)
        counted = min(total, self._count * self._size)
        if isinstance(source, data.StreamedSource) and source.how.skip_broken:
            counted = _some(sum(np.sum(batch["mask"]) for batch in self._read()))
        self._weight = self._count * self._size / counted
        divides = mesh is not None and self._size % mesh.size == 0
        self._mesh = mesh if divides else None

    def _read(self) -> Iterator[dict[str, np.ndarray]]:
        return itertools.islice(self._source.eval_batches(self._size), self._count)

    def __iter__(self) -> Iterator[Examples]:
        for batch in self._read():
            weights = batch["mask"] * np.float32(self._weight)
            put = {"image": batch["image"], "label": batch["label"], "weight": weights}
            mesh = self._mesh
            placed = sharding.put_batch(put, mesh) if mesh else jax.device_put(put)
            yield Examples(*placed.values(), rest=self._rest)


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A network with its weights, and the examples to measure it on.

    Attributes:
        run: the network and its weights.
        source: the examples, all of them.
        losses: of the network.
        asked: what is to be measured on how many.
        end: another run of the same network, to which a path leads.
        mesh: devices over which batches are cut; None is one device.
    """

    run: loaded.LoadedRun
    source: data.Source
    losses: Losses
    asked: Asked = Asked()
    end: loaded.LoadedRun | None = None
    mesh: jax.sharding.Mesh | None = None

    def at(self, step: int) -> "Subject":
        """The same with the weights of another step that the run keeps."""
        return dataclasses.replace(self, run=self.run.at(step))

    @functools.cached_property
    def params(self) -> Any:
        """The weights that are measured: those that the run trains."""
        return self._parts[0]

    @functools.cached_property
    def _parts(self) -> tuple[Any, Any]:
        return frozen.cut(self.run.params, self.run.config.freeze)

    @property
    def loss(self) -> sharpness.Compiled:
        """``loss(params, examples)``."""
        return self.losses.of(self.asked.batch_norm)

    @functools.cached_property
    def batches(self) -> Iterable[Examples]:
        """The examples in batches of the run's size."""
        return self._batches(self.run.config.batch_size)

    @functools.cached_property
    def groups(self) -> Iterable[Examples]:
        """The examples in groups of m."""
        return self._batches(self.asked.m, whole=True)

    def _batches(self, size: int, whole: bool = False) -> Any:
        training = self.asked.batch_norm == "training"
        rest = self.run.model_state, self._parts[1]
        found = Batches(self.source, size, whole or training, rest, self.mesh)
        # A few examples stay on the device.
        return found if self.asked.examples is None else list(found)

    @functools.cached_property
    def examples(self) -> int:
        """How many are measured on."""
        return int(sum(np.count_nonzero(batch.weights) for batch in self.batches))

    @functools.cached_property
    def ascent(self) -> sharpness.AscentStep:
        """SAM's own step."""
        return sharpness.ascent_step(
            self.loss, self.params, self.asked.rho, batches=self.batches
        )


def drawn(source: data.Source, examples: int | None, seed: int) -> data.Source:
    """A number of examples of a source, in a random order.

    A stream's stay in memory, unless they are all: then it is read in that order. The
    broken ones that are drawn are left out.

    Args:
        source: such as the training set.
        examples: how many; None, or more than there are: all.
        seed: of the draw.
    """
    order = np.random.default_rng(seed).permutation(source.num_examples)[:examples]
    if isinstance(source, data.IndexedSource):
        return data.ArraySource(source.split.take(order))
    if len(order) == source.num_examples:
        streamed = isinstance(source, data.StreamedSource)
        return source.take(order) if streamed else source
    places = np.full(source.num_examples, -1)
    places[order] = np.arange(len(order))
    found = []
    for number, batch in enumerate(source.eval_batches(_READ)):
        there = batch["mask"].nonzero()[0]  # not what is broken, in the middle
        place = places[number * _READ + there]
        rows = there[place >= 0]
        found.append(
            [place[place >= 0]]
            + [batch[name][rows] for name in ("image", "label", "true_label")]
        )
    place, *arrays = (np.concatenate(parts) for parts in zip(*found, strict=True))
    ranks = np.argsort(place)
    _some(len(ranks))
    return data.ArraySource(data.Split(*(array[ranks] for array in arrays)))


def _some(count: int) -> int:
    """Refuses to measure on no example."""
    if not count:
        raise errors.UserError(
            "none of the examples to measure the sharpness on can be read: fix or "
            "replace the broken ones, or measure on more"
        )
    return count
