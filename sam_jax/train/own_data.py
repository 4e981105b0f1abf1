"""A data set that the user brings, and what is to happen to its inputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import data, errors
from sam_jax.data import mixing
from sam_jax.train import losses, settings

Augment = Callable[[jax.Array, jax.Array], jax.Array]


def check(dataset: data.Dataset) -> None:
    """Refuses one whose parts do not fit together.

    Of a split that is streamed nothing is read.
    """
    where, shape = f"dataset {dataset.name!r}", tuple(dataset.image_shape)
    channels = shape[-1] if dataset.dtype == np.uint8 else 0
    for field in ("mean", "std"):
        if len(getattr(dataset, field)) != channels:
            raise errors.UserError(
                f"{where}: {field} must have a number for each of {channels} channels"
            )
    for name in ("train", "validation", "test"):
        source = getattr(dataset, name)
        if source is not None and source.num_examples == 0:
            raise errors.UserError(
                f"{where}: the {name} set is empty, and needs at least 1 example"
                + "; give None for no validation set" * (name == "validation")
            )
        if not isinstance(source, data.IndexedSource):
            continue
        split = source.split
        if split.images.shape[1:] != shape:
            raise errors.UserError(
                f"{where}: image_shape is {shape}, and images of the {name} set have "
                f"the shape {split.images.shape[1:]}"
            )
        if split.images.dtype != dataset.dtype:
            raise errors.UserError(
                f"{where}: inputs of the {name} set are {split.images.dtype}, give "
                f"{np.dtype(dataset.dtype)}, for images uint8, 0 to 255"
            )
        for labels in (split.labels, split.true_labels):
            if (
                labels.size
                and not 0 <= labels.min() <= labels.max() < dataset.num_classes
            ):
                raise errors.UserError(
                    f"{where}: labels of the {name} set are {labels.min()} to "
                    f"{labels.max()}, and there are {dataset.num_classes} class_names"
                )


def augmented(own: settings.Own, dataset: data.Dataset, after: Augment) -> Augment:
    """Puts a change of the user's before the others.

    Args:
        own: ``fn(key, images) -> images`` of the settings, or none.
        dataset: of the run.
        after: what happens then.

    Returns:
        ``(key, images) -> images``; the draws of ``after`` are what they were.

    Raises:
        UserError: if it is not such a function; also when it is called, if it makes
            inputs of another shape or kind.
    """
    change = own.function("config.augment", "key", "images")
    if change is None:
        return after

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        changed = change(jax.random.fold_in(key, _OWN_STREAM), images)
        _check_inputs(changed, images, f"config.augment.name ({own.name})")
        return after(key, changed)

    example = jax.ShapeDtypeStruct((1, *dataset.image_shape), dataset.dtype)
    jax.eval_shape(augment, jax.random.key(0), example)
    return augment


_OF_IMAGES = ("crop", "flip", "cutout", "resized_crop", "randaugment")
_OF_IMAGES += ("mixup", "cutmix")


def augmentation(config: settings.Data, dataset: data.Dataset) -> Augment:
    """What the settings do to the images in training; other inputs are unchanged."""
    if dataset.dtype != np.uint8:
        for setting in _OF_IMAGES:
            if getattr(config, setting):
                raise errors.UserError(
                    f"config.data.{setting} is for images, uint8 [N, H, W, C], and "
                    f"{dataset.name!r} has none: leave it out"
                )
        return lambda key, inputs: inputs
    # A stream cuts out of the whole file.
    source = dataset.train
    streamed = isinstance(source, data.StreamedSource)
    if streamed and source.how.skip_broken and (config.mixup or config.cutmix):
        raise errors.UserError(
            "config.data.mixup and cutmix would mix what is broken into its "
            "neighbours: set config.data.skip_broken=False"
        )
    augment = data.augment.make_augment(
        crop=config.crop,
        flip=config.flip,
        cutout=config.cutout,
        cutout_probability=config.cutout_probability,
        resized_crop=0 if streamed else config.resized_crop,
        randaugment=config.randaugment,
        randaugment_magnitude=config.randaugment_magnitude,
        mean=dataset.mean,
        std=dataset.std,
    )
    # Settings that do not fit the size of the images show here.
    example = jax.ShapeDtypeStruct((1, *dataset.image_shape), jnp.uint8)
    jax.eval_shape(augment, jax.random.key(0), example)
    return augment


def mix(config: settings.Settings, groups: int) -> mixing.Mix | None:
    """What mixes the images of a batch, or None."""
    chosen = config.data
    if not (chosen.mixup or chosen.cutmix):
        return None
    if isinstance(chosen.sampling, settings.Importance):
        raise errors.UserError(
            "config.data.mixup and cutmix need examples that are drawn alike: set "
            "config.data.sampling.name=shuffle"
        )
    return mixing.make_mix(chosen.mixup, chosen.cutmix, config.batch_size, groups)


_OWN_STREAM = 4  # of the augmentation's key: split(key, 3) gives those of 0 to 2


def _check_inputs(changed: Any, images: jax.Array, where: str) -> None:
    kinds = (images.dtype, jnp.float32 if images.dtype == jnp.uint8 else None)
    if not (
        isinstance(changed, jax.Array)
        and changed.shape == images.shape
        and any(changed.dtype == kind for kind in kinds if kind is not None)
    ):
        raise errors.UserError(
            f"{where} must give inputs of the same shape and kind, as it was given "
            f"{jax.typeof(images)} (pixels, 0 to 255, may become float32); got "
            f"{errors.one_line(losses.described(changed), 80)}"
        )
