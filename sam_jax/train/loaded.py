"""A trained run: its network, its predictions and their scores."""

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from sam_jax import checks, data, errors, models, storage
from sam_jax.train import (
    build,
    checkpoint,
    data_record,
    digests,
    environment,
    frozen,
    losses,
    method,
    optimizer,
    scores,
    settings,
    sharding,
    workdir,
)
from sam_jax.train import network as network_lib

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedRun:
    """What `load_run` has read of a run.

    Attributes:
        folder: of the run.
        step: updates that the weights have had.
        config: the settings.
        preprocessing: shape and classes of the data, and how they are normalized.
        model: the network as two pure functions.
        params: the weights that the run evaluates: moving averages where it keeps
            some, for `momentum_sam` and the like those of its ``eval_params``.
        model_state: running statistics that belong to them.
        measure: what the run measures of each example; see `losses.Losses`.
    """

    folder: pathlib.Path
    step: int
    config: settings.Settings
    preprocessing: data_record.DataRecord
    model: models.Model
    params: optax.Params
    model_state: Any
    measure: losses.Measure

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the labels, in their order."""
        return self.preprocessing.class_names

    def at(self, step: int | str) -> "LoadedRun":
        """The same run with the weights of another step; see `load_run`."""
        number = _step(self.folder, step)
        params, model_state = _weights(
            self.folder, number, self.config, self.preprocessing, self.model
        )
        return dataclasses.replace(
            self, step=number, params=params, model_state=model_state
        )

    def logits(
        self, params: optax.Params, model_state: Any, images: jax.Array
    ) -> jax.Array:
        """The network behind its normalization; a pure function for ``jax.jit``.

        Args:
            params: such as ``self.params``.
            model_state: such as ``self.model_state``.
            images: uint8 [B, H, W, C].

        Returns:
            float32 [B, classes].
        """
        return losses.logits_of(self._outputs(params, model_state, images)[0])

    def _outputs(
        self, params: optax.Params, model_state: Any, images: jax.Array
    ) -> tuple[Any, jax.Array]:
        """Outputs of the network, and the images that it saw."""
        mean, std = self.preprocessing.mean, self.preprocessing.std
        floats = data.augment.make_normalize(mean=mean, std=std)(images)
        return self.model.apply(params, model_state, floats, train=False)[0], floats

    def predict(
        self, images: np.ndarray | Sequence[np.ndarray], batch_size: int | None = None
    ) -> np.ndarray:
        """Probabilities of the classes.

        Args:
            images: uint8 [N, H, W, C], or N of [H, W, C].
            batch_size: images that pass through the network together; those of the
                run's evaluations by default.

        Returns:
            float32 [N, classes].

        Raises:
            UserError: if the images are not of the run's shape, or no bytes.
        """
        if batch_size is not None:
            checks.integer("batch_size", batch_size, 1)
        images = self._checked(images)
        if not len(images):
            return np.zeros((0, self.preprocessing.num_classes), np.float32)
        logits = self._in_batches(self._predict, images, batch_size=batch_size)
        return np.asarray(jax.nn.softmax(logits))

    def evaluate(
        self,
        dataset: data.Dataset
        | data.Source
        | tuple[np.ndarray, np.ndarray]
        | None = None,
        split: str = "test",
    ) -> scores.Scores:
        """Scores on labelled images.

        Args:
            dataset: a data set; or one of its splits, or ``(images, labels)``, uint8
                [N, H, W, C] and int [N]; the run's own data set by default.
            split: of a data set: ``"test"``, ``"validation"`` or ``"train"``, whose
                images are not augmented. Labels are the true ones.

        Returns:
            The scores; accuracy and loss are those that training reports.

        Raises:
            UserError: if there are no such data, or they do not fit the network.
        """
        found, last = [], self.preprocessing.num_classes - 1
        for images, label in self._labelled(dataset, split):  # one batch in memory
            if label.min() < 0 or label.max() > last:
                raise errors.UserError(
                    f"labels are {label.min()} to {label.max()}, and the network of "
                    f"{self.folder} has the classes 0 to {last}"
                )
            rows = self._checked(images), label, np.ones(len(label), bool)
            found.append((label, *self._in_batches(self._evaluate, *rows)))
        if not found:
            raise errors.UserError("there are no examples to evaluate")
        labels, logits, of_each = jax.tree.map(
            lambda *parts: np.concatenate(parts), *found
        )
        return scores.score(logits, labels, self.class_names, of_each)

    def own_data(self, place: str | None = None) -> data.Dataset:
        """The data set that it was trained on.

        Args:
            place: where it is, if it has moved; see `Data.elsewhere`.

        Raises:
            UserError: if it was passed from Python, or is not there.
        """
        trained_on, named = self.preprocessing.name, self.config.data.name
        if trained_on != named:
            raise errors.UserError(
                f"{self.folder} was trained on {trained_on!r}, passed from Python, and "
                f"not on config.data.name={named}: to evaluate, pass it to "
                "load_run(RUN).evaluate, or name another one by sam-jax evaluate --data"
            )
        return build.load_data(self.config.data.elsewhere(place))

    def check_classes(self, dataset: data.Dataset) -> None:
        """Refuses a data set with other classes than the run's.

        Raises:
            UserError: naming both.
        """
        if dataset.class_names != self.class_names:
            raise errors.UserError(
                f"data set {dataset.name!r} has the classes {_few(dataset)}, and the "
                f"run {_few(self)}: give one with the same classes in the same order, "
                "or (images, labels) whose labels are those of the run"
            )

    def _labelled(
        self, dataset: Any, split: str
    ) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Images and true labels, in batches."""
        if isinstance(dataset, tuple):
            images, labels = map(np.asarray, dataset)
            if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
                raise errors.UserError(
                    f"labels must be {len(images)} integers, one for each image, got "
                    f"{labels.dtype} of shape {labels.shape}"
                )
            return [(images, labels)] if len(labels) else []
        if dataset is None:
            dataset = self.own_data()
        if isinstance(dataset, data.Dataset):
            if split not in _SPLITS:
                raise errors.UserError(errors.unknown("split", split, _SPLITS))
            if (source := getattr(dataset, split)) is None:
                raise errors.UserError(f"data set {dataset.name!r} has no {split} set")
            self.check_classes(dataset)
            dataset = source
        return (
            (batch["image"][batch["mask"]], batch["true_label"][batch["mask"]])
            for batch in dataset.eval_batches(self.config.eval_batch_size)
            if batch["mask"].any()
        )

    def _in_batches(
        self,
        function: Callable[..., Any],
        *rows: np.ndarray,
        batch_size: int | None = None,
    ) -> Any:
        """What a function of weights, statistics and rows gives for all rows."""
        most = batch_size or self.config.eval_batch_size
        found, counts = [], []
        for start in range(0, len(rows[0]), most):
            batch = [x[start : start + most] for x in rows]
            counts.append(len(batch[0]))
            # Few sizes, because each is compiled: powers of two below the largest one.
            size = min(most, 1 << (counts[-1] - 1).bit_length())
            padded = [
                np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)])
                for x in batch
            ]
            found.append(function(self.params, self.model_state, *padded))
        found = [
            jax.tree.map(lambda x, n=n: x[:n], part)
            for part, n in zip(jax.device_get(found), counts, strict=True)
        ]
        return jax.tree.map(lambda *parts: np.concatenate(parts), *found)

    @functools.cached_property
    def _predict(self) -> Callable[..., jax.Array]:
        return jax.jit(self.logits)

    @functools.cached_property
    def _evaluate(self) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
        def evaluate(
            params: Any,
            model_state: Any,
            images: jax.Array,
            labels: jax.Array,
            mask: jax.Array,
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            outputs, floats = self._outputs(params, model_state, images)
            batch = {"image": floats, "label": labels, "mask": mask}
            return losses.logits_of(outputs), self.measure(outputs, batch)

        return jax.jit(evaluate)

    def _checked(self, images: Any) -> np.ndarray:
        """The images in one array."""
        shape, dtype = self.preprocessing.image_shape, self.preprocessing.dtype
        expected = f"the run takes {dtype} inputs of shape {shape}"
        if dtype == "uint8":
            expected += " (height, width, channels of images)"
        if isinstance(images, Sequence):
            for number, image in enumerate(map(np.asarray, images)):
                if image.shape != shape or image.dtype != dtype:
                    raise errors.UserError(
                        f"image {number} is {image.dtype} of shape {image.shape}: "
                        f"{expected}"
                    )
            return np.stack(images) if images else np.zeros((0, *shape), dtype)
        images = np.asarray(images)
        if images.shape[1:] != shape or images.dtype != dtype:
            one = "; of a single image pass images[None]" * (images.shape == shape)
            raise errors.UserError(
                f"the images are {images.dtype} of shape {images.shape}: {expected}, "
                f"many of them in one array or in a list{one}"
            )
        return images


_SPLITS = ("test", "validation", "train")


def _few(of: Any) -> str:
    """Names of classes for a message."""
    return errors.one_line(", ".join(of.class_names), 80)


def load_run(
    folder: str | os.PathLike[str],
    step: int | str = "best",
    *,
    config: settings.Settings | None = None,
    dataset: data.Dataset | None = None,
    model: Any = None,
    loss: losses.Loss | None = None,
    own_code: bool = False,
) -> LoadedRun:
    """Reads a run; its data need not be there, and nothing is written.

    Args:
        folder: of the run, finished or not; the ``--workdir`` it was trained in.
        step: which weights: those of the ``"best"`` evaluation on the validation set,
            the ``"last"`` ones, or those after that many updates, if they are kept.
        config: the settings; needed where ``config.json`` cannot say them, as a
            schedule that a run card has made.
        dataset: the data set of the run; needed where earlier versions trained, which
            wrote no ``data.json``.
        model: the network, where one was passed to `train_and_evaluate`.
        loss: the loss, likewise.
        own_code: whether files that the settings name, ``my_net.py:MyNet``, may be run.

    Returns:
        The run.

    Raises:
        UserError: if it is not the folder of a run, is of a later version, or has no
            such weights, or damaged ones.

    Example:
        >>> import tempfile
        >>> from sam_jax.train import loop
        >>> folder = tempfile.mkdtemp()
        >>> config = settings.read({
        ...     "data": {"name": "digits", "train_examples": 128},
        ...     "model": {"name": "mlp", "width": 8}, "epochs": 1,
        ... })
        >>> results = loop.train_and_evaluate(config, folder)  # doctest: +ELLIPSIS
        devices...
        >>> run = load_run(folder, "last")
        >>> run.predict(np.zeros((3, 8, 8, 1), np.uint8)).shape
        (3, 10)
        >>> run.evaluate().accuracy == results["last"]["test"]["accuracy"]
        True
    """
    sharding.devices()  # or one sentence
    folder = storage.path(folder)
    config = _settings(folder, own_code) if config is None else settings.read(config)
    record = (
        data_record.read(folder)
        if dataset is None
        else data_record.DataRecord.of(dataset, config.batch_size)
    )
    if model is None:
        data_record.refuse_network(folder)
    for line in environment.changed(folder, workdir.own_files(config)):
        _log.warning(line)
    number = _step(folder, step)
    network = network_lib.network(config, record.num_classes, model)
    while True:
        try:
            weights = _weights(folder, number, config, record, network)
            break
        except errors.UserError:
            # A run that continues may have replaced it by a newer one meanwhile.
            number, before = _step(folder, step), number
            if number == before:
                raise
    measure = losses.make_losses(config, record.num_classes, loss).measure
    return LoadedRun(folder, number, config, record, network, *weights, measure)


def _settings(folder: pathlib.Path, own_code: bool) -> settings.Settings:
    try:
        return workdir.stored(folder, None if own_code else ())
    except workdir.OwnCodeError as error:
        raise errors.UserError(f"{error}: pass own_code=True (--own_code)") from error
    except errors.UserError as error:
        if not (folder / workdir.CONFIG_FILE).is_file():
            raise
        raise errors.UserError(
            f"{error}: use the version that trained it, or pass load_run(..., "
            "config=...) with the settings of its run card"
        ) from error


def _step(folder: pathlib.Path, step: int | str) -> int:
    """The number of a checkpoint that is kept."""
    kept = checkpoint.kept(folder)
    listed = ", ".join(map(str, kept))
    if not kept:
        raise errors.UserError(
            f"{folder} has no checkpoint yet: let the run train until it has saved one"
        )
    if step == "last":
        return max(kept)
    if isinstance(step, str) and step.isdecimal():
        step = int(step)
    if step == "best":
        record = digests.record(folder / "checkpoints" / str(max(kept)))
        best = record["progress"].get("best")
        if best and best["step"] in kept:
            return best["step"]
        raise errors.UserError(
            (
                f"{folder}: the weights of the best step, {best['step']}, are lost"
                if best
                else f"{folder} has no best step, as nothing was evaluated on a "
                "validation set yet"
            )
            + f": take step 'last', or one of those kept: {listed}"
        )
    if step not in kept:
        raise errors.UserError(
            f"step {step!r} of {folder} is not kept: take 'best', 'last' or one of "
            f"{listed}"
        )
    return int(step)


def _weights(
    folder: pathlib.Path,
    step: int,
    config: settings.Settings,
    record: data_record.DataRecord,
    model: models.Model,
) -> tuple[optax.Params, Any]:
    """Those that the run evaluates; no more is read than they need."""
    images = jax.ShapeDtypeStruct((1, *record.image_shape), record.input_dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, model_state = jax.eval_shape(model.init, key, images)
    params, kept = frozen.cut(params, config.freeze)
    wanted = {} if kept is None else {"frozen": kept}

    def whole(trained: Any, fields: dict[str, Any]) -> Any:
        return frozen.whole(trained, fields.get("frozen"))

    if config.averages:
        wanted |= {"average": (params, model_state)}
        fields = checkpoint.read(folder, step, wanted)
        params, model_state = fields["average"]
        return whole(params, fields), model_state
    wanted |= {"params": params, "model_state": model_state}
    if method.eval_params(config.method, config.optimizer) is method.as_trained:
        fields = checkpoint.read(folder, step, wanted)
        return whole(fields["params"], fields), fields["model_state"]
    # What is of training alone may not be allowed any more.
    config = dataclasses.replace(config, all_reduce_dtype="float32")
    parts = optimizer.make_optimizer(config, record.steps_per_epoch)
    wanted["opt_state"] = jax.eval_shape(parts.init, params)
    fields = checkpoint.read(folder, step, wanted)
    evaluated = parts.eval_params(fields["opt_state"], fields["params"])
    return whole(evaluated, fields), fields["model_state"]
