"""From a configuration to a step, and with its data to a run."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import data, errors, models, plugins
from sam_jax import loss_scale as loss_scale_lib
from sam_jax.train import (
    averaging,
    mistakes,
    network,
    own_data,
    scores,
    settings,
    sharding,
    state,
    step,
    typed,
)
from sam_jax.train import frozen as frozen_lib
from sam_jax.train import groups as groups_lib
from sam_jax.train import optimizer as optimizer_lib
from sam_jax.train.layout import lay_out
from sam_jax.train.losses import Loss, Measure, make_losses
from sam_jax.train.passes import Passes


class DataSpec(NamedTuple):
    """What a step knows of its data.

    Attributes:
        image_shape: height, width and channels; or the shape of an input.
        num_classes: of the labels.
        num_examples: in the training set.
        steps_per_epoch: updates in an epoch.
        dtype: of the inputs; uint8 are pixels.
        class_counts: examples of each class to train on; () if they are not known, and
            taken for equal.
    """

    image_shape: tuple[int, ...]
    num_classes: int
    num_examples: int
    steps_per_epoch: int
    dtype: Any = np.uint8
    class_counts: tuple[int, ...] = ()

    @classmethod
    def of(cls, dataset: data.Dataset, batch_size: int) -> "DataSpec":
        """That of a data set in batches of some size."""
        return cls(
            dataset.image_shape,
            dataset.num_classes,
            dataset.train.num_examples,
            dataset.train.steps_per_epoch(batch_size),
            dataset.dtype,
            dataset.class_counts,
        )

    @property
    def class_shares(self) -> np.ndarray:
        """Of the classes in the training set, float32 [classes]."""
        counts = np.asarray(self.class_counts or [1] * self.num_classes, np.float32)
        return counts / counts.sum()


@dataclasses.dataclass(frozen=True)
class Steps:
    """The functions of a run, jitted but not compiled.

    Attributes:
        config: of the run.
        spec: of its data.
        mesh: its devices.
        groups: who shares a perturbation, and where.
        optimizer: method and optimizer.
        init: ``seed -> state``; the seed is a scalar, uint32. A second argument has the
            weights to start from, ``(params, model_state)``.
        train_step: ``(state, batch) -> (state, metrics)``, the state donated.
        eval_step: ``(params, model_state, batch) -> sums, predictions``.
        is_finite: whether a run can continue from a state; see `state.is_finite`.
        model: the network.
        measure: what is measured of each example; see `losses.Losses`.
        train_steps: several updates in a call, if not as `dispatch.Several` makes them.
    """

    config: settings.Settings
    spec: DataSpec
    mesh: jax.sharding.Mesh
    groups: groups_lib.Groups
    optimizer: optimizer_lib.Optimizer
    init: Callable[..., state.TrainState]
    train_step: Callable[..., tuple[state.TrainState, step.Metrics]]
    eval_step: Callable[..., tuple[step.Metrics, scores.OfEach]]
    is_finite: Callable[[state.TrainState], jax.Array]
    model: models.Model
    measure: Measure
    train_steps: Callable[..., Any] | None = dataclasses.field(
        default=None, kw_only=True
    )

    @property
    def seed(self) -> np.ndarray:
        """The seed of the run, as `init` takes it."""
        return np.asarray(self.config.seed, np.uint32)

    @property
    def steps_per_epoch(self) -> int:
        """Updates in an epoch."""
        return self.spec.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Updates in the run."""
        return self.config.epochs * self.spec.steps_per_epoch

    def abstract_state(self) -> Any:
        """Shapes, dtypes and shardings of the state; nothing is computed."""
        shapes = jax.eval_shape(self.init, self.seed)
        return jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            shapes,
            sharding.of_state(shapes, self.mesh),
        )

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Those of a batch to train on."""
        place = sharding.split(self.mesh)
        leaves = {
            "image": (self.spec.image_shape, self.spec.dtype),
            "label": ((), jnp.int32),
            "true_label": ((), jnp.int32),
            "weight": ((), jnp.float32),
        }
        return {
            name: jax.ShapeDtypeStruct(
                (self.config.batch_size, *shape), dtype, sharding=place
            )
            for name, (shape, dtype) in leaves.items()
        }

    def trace(self) -> None:
        """Traces both steps: what does not fit together shows, nothing is computed."""
        shapes, batch = self.abstract_state(), self.abstract_batch()
        jax.eval_shape(self.train_step, shapes, batch)
        batch["mask"] = jax.ShapeDtypeStruct((self.config.batch_size,), jnp.bool)
        params = frozen_lib.whole(shapes.params, shapes.frozen)
        jax.eval_shape(self.eval_step, params, shapes.model_state, batch)


@dataclasses.dataclass(frozen=True)
class Run(Steps):
    """The functions of a run, and what they work on.

    Attributes:
        dataset: training, validation and test sources.
    """

    dataset: data.Dataset


def layout(
    config: settings.Settings, devices: Sequence[Any] | None = None
) -> tuple[groups_lib.Groups, jax.sharding.Mesh]:
    """Who shares a perturbation, and the devices.

    Args:
        config: of the run.
        devices: those to lay it out on, which need not exist; None for those of JAX.

    Raises:
        UserError: if batch, groups and devices do not divide.
    """
    count = None if devices is None else len(devices)
    rows, fsdp = sharding.grid(config.mesh.data, config.mesh.fsdp, count)
    sharding.check_batch_size(config.batch_size, rows * fsdp)
    groups = lay_out(
        config.batch_size,
        config.method_group_size,
        config.accumulation_steps,
        config.batch_norm,
        rows * fsdp,
        fsdp,
    )
    if config.all_reduce_dtype != "float32" and groups.count == 1:
        raise errors.UserError(
            "config.all_reduce_dtype=bfloat16 is for groups that perturb "
            "separately: set config.method_group_size below the batch; with m = batch "
            "the gradients are reduced in config.model.dtype"
        )
    return groups, sharding.make_mesh(rows, fsdp, groups.members, devices)


def scaled(images: jax.Array) -> jax.Array:
    """Pixels from [0, 255] to [0, 1]."""
    return images / 255.0


def steps(
    config: settings.Settings,
    spec: DataSpec,
    *,
    augment: Callable[[jax.Array, jax.Array], jax.Array] = lambda _, x: scaled(x),
    normalize: Callable[[jax.Array], jax.Array] = scaled,
    model: Any = None,
    loss: Loss | None = None,
    optimizer: optimizer_lib.Optimizer | None = None,
    groups: groups_lib.Groups | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Steps:
    """Builds the functions of a run; no data are needed.

    Args:
        config: of the run.
        spec: of the data.
        augment: ``(key, uint8 images) -> float images``, to train.
        normalize: ``uint8 images -> float images``, to evaluate.
        model: another network than that of the configuration: a `models.Model`, or
            what `models.own.build` takes.
        loss: another loss, ``(outputs, batch) -> losses [B]``, one of each example; the
            batch has ``image`` and ``label``.
        optimizer: another one.
        groups: others, on the same devices.
        mesh: other devices, which need not exist, with their ``groups``.

    Returns:
        The functions. ``train_step.lower(abstract_state(), abstract_batch())`` is the
        program of a step.

    Example:
        >>> config = settings.Settings(model=settings.Model("mlp"))
        >>> made = steps(config, DataSpec((8, 8, 1), 10, 1000, 7))
        >>> _, metrics = jax.eval_shape(
        ...     made.train_step, made.abstract_state(), made.abstract_batch()
        ... )
        >>> metrics["loss"].shape, metrics["loss"].dtype
        ((), dtype('float32'))
    """
    if groups is None:
        if mesh is not None:
            raise ValueError("a mesh needs its groups: pass groups too")
        groups, mesh = layout(config)
    elif mesh is None:
        _, mesh = layout(config)
    losses = make_losses(config, spec.num_classes, loss)
    # Statistics over all groups are for groups that pass through the network together.
    over_all = config.batch_norm == "batch" and groups.lockstep
    name = config.model.name
    packaged = model is None and not plugins.is_reference(name)
    if packaged and name != "mlp" and len(spec.image_shape) != 3:
        raise errors.UserError(
            f"config.model.name={name} is for images, and the inputs are of shape "
            f"{list(spec.image_shape)}: take mlp, or a network of your own"
        )
    model = network.network(config, spec.num_classes, model, over_all=over_all)
    optimizer = optimizer or optimizer_lib.make_optimizer(config, spec.steps_per_epoch)

    recipe = step.Recipe(
        Passes(model, losses.train, optimizer.loss_decay, groups),
        optimizer,
        augment,
        spec.num_examples,
        spec.class_shares,
        mix=own_data.mix(config, groups.count),
        averaging=averaging.share(config, config.epochs * spec.steps_per_epoch),
        skip_nonfinite=config.skips_nonfinite,
        mesh=mesh,
        reduce_dtype=config.all_reduce_dtype,
    )
    # The batch says how it is split.
    whole = sharding.replicated(mesh)
    init = functools.partial(_init, config, spec, model, optimizer)
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    places = sharding.of_state(jax.eval_shape(init, seed), mesh)
    return Steps(
        config=config,
        spec=spec,
        mesh=mesh,
        groups=groups,
        optimizer=optimizer,
        init=jax.jit(init, out_shardings=places),
        train_step=jax.jit(
            functools.partial(step.train_step, recipe),
            donate_argnums=0,
            out_shardings=(places, whole),
        ),
        eval_step=jax.jit(
            step.make_eval_step(model, losses.measure, normalize),
            out_shardings=(whole, sharding.split(mesh)),
        ),
        is_finite=jax.jit(state.is_finite, out_shardings=whole),
        model=model,
        measure=losses.measure,
    )


def _init(
    config: settings.Settings,
    spec: DataSpec,
    model: models.Model,
    optimizer: optimizer_lib.Optimizer,
    seed: jax.Array,
    given: Any = None,
) -> state.TrainState:
    """The state before the first step; no two of its arrays share memory.

    ``given`` is ``(params, model_state)`` to start from, None for what is drawn.
    """
    # What the network sees: pixels are made numbers.
    dtype = jnp.float32 if spec.dtype == np.uint8 else spec.dtype
    images = jnp.zeros((1, *spec.image_shape), dtype)
    drawn = model.init(jax.random.key(seed), images)
    params, model_state = drawn if given is None else frozen_lib.merged(given, drawn)
    params, frozen = frozen_lib.cut(params, config.freeze)
    average = (params, model_state) if config.averages else None
    scales_loss = config.model.dtype == "float16"
    return state.TrainState(
        step=jnp.zeros([], jnp.int32),
        seed=seed,
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        average=jax.tree.map(jnp.copy, average),
        loss_scale=loss_scale_lib.LossScale.initial() if scales_loss else None,
        frozen=frozen,
    )


def build(
    config: settings.Settings,
    *,
    dataset: data.Dataset | None = None,
    model: Any = None,
    loss: Loss | None = None,
    make: Callable[..., Steps] = steps,
) -> Run:
    """Builds everything that a run needs.

    Args:
        config: the settings; the configuration of a run card is read.
        dataset: another one than that of the configuration.
        model: another network; see `steps`.
        loss: another loss; see `steps`.
        make: makes the functions, as `steps` does.

    Returns:
        The data, and functions that are jitted but not compiled.
    """
    config = settings.read(config)
    if dataset is None:
        layout(config)  # its mistakes show before the data are read
        dataset = load_data(config.data)
    else:
        own_data.check(dataset)
    if config.data.alternate_flip:
        dataset = _alternating(config.data, dataset)
    with mistakes.in_settings("config.data", _DATA):
        augment = own_data.augmentation(config.data, dataset)
        spec = DataSpec.of(dataset, config.batch_size)
    augment = own_data.augmented(config.augment, dataset, augment)
    several = config.steps_per_dispatch
    if several > 1 and not isinstance(dataset.train, data.IndexedSource):
        raise errors.UserError(
            f"config.steps_per_dispatch={several} needs a training set in memory, and "
            f"that of {dataset.name!r} is streamed: take --config.steps_per_dispatch=1"
        )
    normalize = data.augment.make_normalize(mean=dataset.mean, std=dataset.std)
    made = make(
        config, spec, augment=augment, normalize=normalize, model=model, loss=loss
    )
    if model is not None or loss is not None or _has_own_code(config):
        made.trace()  # what does not fit shows before the folder is touched
    return Run(**vars(made), dataset=dataset)


def _has_own_code(config: settings.Settings) -> bool:
    """Whether a part of the run is what the user has written."""
    values = settings.flat(typed.plain(config)).values()
    return any(callable(value) or plugins.is_reference(value) for value in values)


# What arguments of `sam_jax.data` are called in a configuration.
_DATA = (
    {f.name: f"config.data.{f.name}" for f in dataclasses.fields(settings.Data)}
    | {name: f"config.data.sampling.{name}" for name in ("scores", "uniform")}
    | {"batch_size": "config.batch_size"}
)


def load_data(config: settings.Data) -> data.Dataset:
    """Loads the data set of a run."""
    same = ("data_dir", "manual_dir", "download", "path", "image_size", "resize")
    same += ("skip_broken", "mean", "std", "validation", "train_examples")
    values = {key: getattr(config, key) for key in (*same, "label_noise", "seed")}
    sampling = None
    if isinstance(config.sampling, settings.Importance):
        chosen = config.sampling
        sampling = data.Importance(chosen.scores, chosen.uniform)
    with mistakes.in_settings("config.data", _DATA):
        if not config.stream:
            _refuse_of_streams(config)
            values |= {"cache_dir": config.cache_dir, "sampling": sampling}
            values["imbalance"] = config.imbalance
            return data.load(config.name, **values)
        if sampling is not None:
            raise errors.UserError(
                "sampling by importance needs examples in memory: set stream=False"
            )
        if config.imbalance != 1:
            raise errors.UserError(
                f"imbalance={config.imbalance:g} leaves out examples by their labels, "
                "which needs them in memory: set stream=False"
            )
        values |= {key: getattr(config, key) for key in ("workers", "middle")}
        return data.load_streamed(
            config.name, resized_crop=config.resized_crop, **values
        )


def _refuse_of_streams(config: settings.Data) -> None:
    for key, otherwise in (("workers", 0), ("middle", 1)):
        if getattr(config, key) != otherwise:
            raise errors.UserError(
                f"{key}={getattr(config, key)} is for a stream: set stream=True too"
            )


def _alternating(config: settings.Data, dataset: data.Dataset) -> data.Dataset:
    """The data set with training images that take turns with their mirrored ones."""
    setting = "config.data.alternate_flip"
    if config.flip:
        raise errors.UserError(
            f"{setting} takes the place of config.data.flip: unset it"
        )
    if dataset.dtype != np.uint8 or not isinstance(dataset.train, data.ArraySource):
        raise errors.UserError(
            f"{setting} needs images in memory, which {dataset.name!r} does not have: "
            "leave it out"
        )
    return dataclasses.replace(dataset, train=data.AlternatingSource.of(dataset.train))
