"""From a configuration to the parts of a run."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import data, errors, models
from sam_jax.methods import core
from sam_jax.train import config as config_lib
from sam_jax.train import groups, optimizer, sharding, state, step


class Run(NamedTuple):
    """The parts of a run.

    Attributes:
        config: of the run.
        mesh: its devices.
        groups: who shares a perturbation, and where.
        dataset: training, validation and test sources.
        optimizer: method and optimizer.
        init: ``seed -> state``, jitted; the seed is a scalar, uint32.
        train_step: ``(state, batch) -> (state, metrics)``, jitted, the state donated.
        eval_step: ``(params, model_state, batch) -> sums``, jitted.
        steps_per_epoch: updates in an epoch.
        total_steps: updates in the run.
    """

    config: config_lib.Config
    mesh: jax.sharding.Mesh
    groups: groups.Groups
    dataset: data.Dataset
    optimizer: optimizer.Optimizer
    init: Callable[[Any], state.TrainState]
    train_step: Callable[..., tuple[state.TrainState, step.Metrics]]
    eval_step: Callable[..., step.Metrics]
    steps_per_epoch: int
    total_steps: int

    @property
    def seed(self) -> np.ndarray:
        """The seed of the run, as `init` takes it."""
        return np.asarray(self.config.seed, np.uint32)

    def abstract_state(self) -> Any:
        """Shapes, dtypes and shardings of the state; nothing is computed."""
        shapes = jax.eval_shape(self.init, self.seed)
        return jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            shapes,
            sharding.of_state(shapes, self.mesh),
        )


_SAMPLING: Mapping[str, Callable[[Any], data.Importance | None]] = {
    "shuffle": lambda settings: None,
    "importance": lambda settings: data.Importance(settings.scores, settings.uniform),
}


def build(config: config_lib.Config) -> Run:
    """Builds everything that a run needs.

    Args:
        config: of the run.

    Returns:
        The parts, jitted but not compiled.

    Raises:
        UserError: if a setting or the data will not do.
    """
    # ── Devices and data.
    config_lib.check(config)
    rows, fsdp = sharding.grid(config.mesh.data, config.mesh.fsdp)
    devices = rows * fsdp
    sharding.check_batch_size(config.batch_size, devices)
    layout = groups.layout(
        config.batch_size,
        config.method_group_size,
        config.accumulation_steps,
        config.batch_norm,
        devices,
        fsdp,
    )
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, layout.members)
    dataset = data.load(
        config.data.name,
        data_dir=config.data.data_dir,
        manual_dir=config.data.manual_dir,
        download=config.data.download,
        validation=config.data.validation,
        train_examples=config.data.train_examples,
        label_noise=config.data.label_noise,
        seed=config.data.seed,
        sampling=_SAMPLING[config.data.sampling.name](config.data.sampling),
    )
    several = config.steps_per_dispatch
    if several > 1 and not isinstance(dataset.train, data.IndexedSource):
        raise errors.UserError(
            f"config.steps_per_dispatch={several} needs a training set in memory, and "
            f"that of {dataset.name!r} is streamed: take --config.steps_per_dispatch=1"
        )
    steps_per_epoch = dataset.train.steps_per_epoch(config.batch_size)
    augment = data.augment.make_augment(
        crop=config.data.crop,
        flip=config.data.flip,
        cutout=config.data.cutout,
        cutout_probability=config.data.cutout_probability,
        mean=dataset.mean,
        std=dataset.std,
    )
    normalize = data.augment.make_normalize(mean=dataset.mean, std=dataset.std)
    # Settings that do not fit the size of the images show here.
    example = jax.ShapeDtypeStruct((1, *dataset.image_shape), jnp.uint8)
    jax.eval_shape(augment, jax.random.key(0), example)

    # ── Model, method and optimizer.
    model = models.build(
        config.model.name,
        num_classes=dataset.num_classes,
        width=config.model.width,
        dtype=config.model.dtype,
        remat=config.remat,
        norm_axis=core.GROUP_AXIS if layout.lockstep else None,
        **config.model.options,
    )
    chain = optimizer.make_optimizer(config, steps_per_epoch)

    # ── Compiled functions. The batch says how it is split.
    def init(seed: jax.Array) -> state.TrainState:
        images = jnp.zeros((1, *dataset.image_shape))
        return state.init_state(seed, images, model, chain, config.ema_decay)

    whole = sharding.replicated(mesh)
    places = sharding.of_state(
        jax.eval_shape(init, jax.ShapeDtypeStruct((), jnp.uint32)), mesh
    )
    return Run(
        config=config,
        mesh=mesh,
        groups=layout,
        dataset=dataset,
        optimizer=chain,
        init=jax.jit(init, out_shardings=places),
        train_step=jax.jit(
            step.make_train_step(
                config,
                model,
                chain,
                augment,
                dataset.train.num_examples,
                layout,
                mesh,
            ),
            donate_argnums=0,
            out_shardings=(places, whole),
        ),
        eval_step=jax.jit(step.make_eval_step(model, normalize), out_shardings=whole),
        steps_per_epoch=steps_per_epoch,
        total_steps=config.epochs * steps_per_epoch,
    )
