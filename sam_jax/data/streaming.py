"""From the name of a data set to splits that are streamed; see `stream`."""

from collections.abc import Sequence
from typing import Any

from sam_jax import checks, errors, storage
from sam_jax.data import catalog, loading, noise, pictures, splits, stream, tfds


def load_streamed(
    name: str,
    *,
    image_size: int | None,
    resize: str = "crop",
    middle: float = 1.0,
    resized_crop: float = 0.0,
    workers: int = 0,
    path: str | None = None,
    skip_broken: bool = False,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    download: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    validation: float = 0.1,
    train_examples: int | None = None,
    label_noise: float = 0.0,
    seed: int = 0,
) -> loading.Dataset:
    """As `load`, of image files or TFDS, but images are read while the network trains.

    The splits are those of `load`; the images are in colour. Only names and labels of
    files are read at once; those of TFDS, such as ``imagenette`` and ``imagenet2012``,
    are stored with the images.

    Args:
        name: ``folder``, ``csv``, ``tiny_imagenet``, or one of TFDS.
        image_size: side of all images in pixels.
        resize: how images are scaled, see `pictures.How`.
        middle: share of the sides that ``"crop"`` takes.
        resized_crop: smallest area of random resized crops of the training images,
            which are cut out of the whole file; 0 scales as ``resize`` says.
        workers: processes that decode; 0 is a thread for each core. It does not change
            what is read.
        path: see `load`, as those that follow.
        skip_broken: whether broken images are black, with the weight 0.
        data_dir: of TFDS.
        manual_dir: likewise.
        download: likewise.
        mean: per channel; None is that of the catalog, or of ImageNet.
        std: likewise.
        validation: share or number of the training examples to hold out.
        train_examples: how many of the rest to train on; None for all.
        label_noise: share of wrong training labels; not of TFDS.
        seed: of the splits and the noise.

    Returns:
        The data set.

    Raises:
        UserError: as `load`; also without a size, or for data that are not image files.
        BadValue: a number out of range.
    """
    splits.check_validation(validation)
    checks.below_one("label_noise", label_noise)
    checks.between("resized_crop", resized_crop, 0, 1)
    checks.integer("workers", workers, 0, 1000)
    checks.integer("seed", seed, 0)
    if image_size is None:
        raise errors.UserError("a stream needs one size of images: give image_size=224")
    how = pictures.How(image_size, resize, skip_broken, "", middle)
    how.check()
    of_tfds = {"data_dir": data_dir, "manual_dir": manual_dir, "download": download}
    stores = _stores(name, path, seed, of_tfds)
    splits.check_labels(stores, name)
    kept, held_out = splits.hold_out(
        stores.train.num_examples,
        validation=validation,
        train_examples=train_examples,
        seed=seed,
    )

    def source(part: stream.Part, noisy: float, crop: float) -> stream.StreamedSource:
        labels = part.true_labels
        if noisy and labels is None:
            raise errors.UserError(
                "label_noise needs labels that are known before the images are read, "
                f"and those of {name!r} are stored with them: set label_noise=0"
            )
        if labels is not None:
            labels = noise.symmetric_noise(
                labels, noisy, num_classes=stores.num_classes, seed=seed
            )
        return stream.StreamedSource(
            *(part.store, part.indices, labels, part.true_labels),
            how=how,
            smallest=crop,
            workers=workers,
        )

    known = catalog.published(name, 3) or catalog.STREAMED
    mean, std = loading.statistics(known, mean, std)
    train, held = stores.train.take(kept), stores.train.take(held_out)
    if train.true_labels is not None:
        splits.warn_of_missing(train.true_labels, stores.num_classes, name)
    return loading.Dataset(
        name=name,
        class_names=stores.class_names,
        image_shape=(image_size, image_size, 3),
        mean=mean,
        std=std,
        train=source(train, label_noise, resized_crop),
        validation=source(held, 0.0, 0.0) if held_out.size else None,
        test=source(stores.test, 0.0, 0.0),
    )


def _stores(
    name: str, path: str | None, seed: int, of_tfds: dict[str, Any]
) -> stream.Stores:
    """The examples, on a disk."""
    for setting, given in {"path": path, "data_dir": of_tfds["data_dir"]}.items():
        if given is not None and isinstance(storage.path(given), storage.Remote):
            raise errors.UserError(
                f"{setting}={given}: data that are read while the network trains must "
                f"be on a disk: gcloud storage cp --recursive {given} DIR on every host"
            )
    if name in loading.LISTINGS:
        listing = loading.LISTINGS[name](loading.needed(name, path))
        return stream.of_files(listing, seed)
    if name in ("npz", "digits") or name.startswith("digits/"):
        raise errors.UserError(f"name={name} is in memory: it cannot be streamed")
    if path is not None:
        loading.refuse_own(name, path, pictures.How())
    return tfds.read(name.removeprefix(catalog.OF_TFDS), **of_tfds, streamed=True)
