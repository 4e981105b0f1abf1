"""A data set that the user brings."""

import numpy as np

from sam_jax import data, errors


def check(dataset: data.Dataset) -> None:
    """Refuses one whose parts do not fit together.

    Of a split that is streamed nothing is read.

    Args:
        dataset: of the run.

    Raises:
        UserError: naming what does not fit.
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
