"""Data sets of TensorFlow Datasets (TFDS), read into memory.

TensorFlow runs only while a data set is prepared; what was prepared is read without it.
"""

import contextlib
import dataclasses
import io
import logging
import os
import pathlib
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sam_jax import errors, locks
from sam_jax.data import catalog, splits, stream

_FORMAT = "array_record"  # allows random access, and reading without TensorFlow
_READ_AT_ONCE = 1000  # records
_PROBE_SECONDS = 10

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Images of a split as they are stored, `stream.Store`.

    Attributes:
        source: of TFDS, with images that are not decoded.
        where: data set and split.
    """

    source: Any
    where: str

    def __len__(self) -> int:
        """Their number."""
        return len(self.source)

    def __call__(self, index: int) -> stream.Read:
        """See `stream.Store`."""
        name = f"example {index} of {self.where}"
        with errors.translated(f"{name} cannot be read", "prepare the data set again"):
            example = self.source[index]
            label = int(example["label"])
            if label < 0:
                raise errors.UserError(f"{name} has no label: choose another data set")
            return stream.Read(name, example["image"], label)


def read(
    name: str,
    *,
    data_dir: str | None,
    manual_dir: str | None,
    download: bool,
    streamed: bool = False,
) -> Any:
    """Reads the splits ``train`` and ``test`` of a TFDS data set.

    A data set that is not yet in ``data_dir`` is prepared first. TFDS then takes an
    archive from ``manual_dir`` if the file there has the name and the SHA-256 checksum
    that TFDS has registered for the address it would fetch; it fetches the others. Of
    several processes one prepares, the others wait for it.

    Args:
        name: of the data set, as TFDS writes it.
        data_dir: folder of prepared data; None is the default folder of TFDS.
        manual_dir: folder of archives that you have downloaded; used only if the data
            set has to be prepared.
        download: whether archives may be fetched from the network.
        streamed: leave the images where they are, which may have different sizes.
            The test set is ``validation`` where ``test`` is missing or has no labels.

    Returns:
        The examples, in the order that TFDS fixes: a `splits.RawDataset`, or
        `stream.Stores`.

    Raises:
        UserError: an unknown name, variant or version, a data set that is not an image
            classification with images of one shape, archives that are missing or
            damaged, prepared data that are damaged or incomplete, folders that cannot
            be used, or a package that is not installed.
    """
    # What TFDS knows besides are namespaces: it fetches and runs their code.
    if not re.fullmatch(r"\w+(/[\w+.-]+)?(:(\d+|\*)(\.(\d+|\*)){2})?", name):
        raise errors.UserError(
            f"{_unknown(name)}, as NAME, NAME/VARIANT or NAME:VERSION, without a "
            "leading NAMESPACE:"
        )
    try:
        with _quiet():
            builder = _builder(name, data_dir)
            _check_features(builder, name, streamed)
            if not builder.data_path.exists():
                _prepare(builder, name, manual_dir, download)
                builder = _builder(name, data_dir)  # Another process may have prepared.
            return _read_prepared(builder, name, streamed)
    except ImportError as error:
        raise errors.UserError(
            f"data set {name!r} needs a package that is missing ({error}): "
            "pip install 'sam_jax[tfds]' installs TensorFlow, TensorFlow Datasets and "
            "what they need; digits, folder, csv and npz do without"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the chatter of TFDS and TensorFlow; errors still come as exceptions."""
    chatty = [logging.getLogger(name) for name in ("absl", "urllib3")]
    levels = [logger.level for logger in chatty]
    # TensorFlow's C++ reads these when it is loaded.
    silence = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    added = silence.keys() - os.environ.keys()
    os.environ.update({key: silence[key] for key in added})
    try:
        for logger in chatty:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(chatty, levels, strict=True):
            logger.setLevel(level)
        for key in added:
            os.environ.pop(key, None)


def _builder(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import constants

    folder = pathlib.Path(data_dir or constants.DATA_DIR).expanduser()
    folder /= re.split("[/:]", name)[0]
    remedy = "check its variant and version"
    if folder.exists():
        remedy += f", or delete {folder} if it is damaged, and it is prepared again"
    with errors.translated(f"data set {name!r} cannot be opened in TFDS", remedy):
        try:
            return tfds.builder(name, data_dir=data_dir)
        except tfds.core.DatasetNotFoundError as error:
            # Without the community's sets: their names are fetched from the network.
            known = tfds.list_builders(with_community_datasets=False)
            raise errors.UserError(_unknown(name, known)) from error


def _unknown(name: str, known: Sequence[str] = ()) -> str:
    """Message that suggests any known name, but lists the catalog only."""
    plain = re.split("[/:]", name)[0]
    if plain in (*catalog.OWN, "digits"):
        return f"{name!r} is not of TFDS and has no version: give name={plain}"
    suggested = errors.unknown("data set", name, [*known, *catalog.names()])
    listed = errors.unknown("data set", name, catalog.names())
    return (
        f"{suggested.partition(' There are: ')[0]} "
        f"There are: {listed.partition(' There are: ')[2]}, and those of TFDS"
    )


def _check_features(builder: Any, name: str, streamed: bool) -> None:
    """Refuses what is not an image classification, before anything is fetched."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    has_names = isinstance(features, tfds.features.FeaturesDict)
    named: dict[str, Any] = dict(features.items()) if has_names else {}
    image, label = named.get("image"), named.get("label")
    shape: Any = image.shape if isinstance(image, tfds.features.Image) else (None,)
    one_shape = shape[-1] in (1, 3) if streamed else None not in shape
    images_fit = one_shape and getattr(image, "np_dtype", None) == np.uint8
    labels_fit = isinstance(label, tfds.features.ClassLabel) and label.num_classes
    if not (images_fit and labels_fit):
        raise errors.UserError(
            f"data set {name!r} does not fit: it needs features 'image', uint8 of "
            "one shape unless config.data.stream=True, and 'label', a class, and has "
            f"{errors.one_line(features)}"
        )


def _prepare(builder: Any, name: str, manual_dir: str | None, download: bool) -> None:
    archives = {
        url: info.filename or url.rpartition("/")[2]
        for url, info in (builder.url_infos or {}).items()
    }
    folder = None if manual_dir is None else pathlib.Path(manual_dir).expanduser()
    missing = {
        url: file
        for url, file in archives.items()
        if folder is None or not (folder / file).is_file()
    }
    wanted = (
        f"wanted are {', '.join(sorted(missing.values())) or 'its archives'}: put "
        "them into a folder DIR and pass manual_dir=DIR, or pass data_dir=DIR "
        "where the data set is prepared already"
    )
    unprepared = f"data set {name!r} is not prepared in {builder.data_dir}"
    if folder is not None and not folder.is_dir():
        raise errors.UserError(
            f"manual_dir={manual_dir} is not a folder, and {unprepared}; {wanted}"
        )
    if not download and (missing or not archives):
        raise errors.UserError(f"{unprepared} and downloading is off; {wanted}")
    if missing and not _reachable(address := next(iter(missing))):
        raise errors.UserError(
            f"{unprepared} and {address} cannot be reached; {wanted}"
        )

    _log.info("preparing data set %s in %s", name, builder.data_dir)
    remedy = "its archives are damaged, or not as TFDS knows them: fetch them again"
    if missing or not archives:  # else nothing was fetched
        remedy = wanted
    with errors.translated(f"cannot prepare data set {name!r}", remedy):
        _download_and_prepare(builder, name, folder, wanted)


def _download_and_prepare(
    builder: Any, name: str, manual_dir: pathlib.Path | None, wanted: str
) -> None:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager

    _keep_accelerators_free()
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    root = pathlib.Path(builder.data_dir_root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        # A folder of its own: TFDS would take what it once extracted from an archive
        # of the same name, and MNIST's archives are named like Fashion-MNIST's.
        with (
            locks.held(root / f".{name.replace('/', '_')}.lock", wait=True),
            tempfile.TemporaryDirectory(dir=root, prefix="extract_") as extract_dir,
        ):
            # Finds nothing to do if another process has prepared it meanwhile.
            builder.download_and_prepare(
                file_format=_FORMAT,
                download_config=tfds.download.DownloadConfig(
                    manual_dir=manual_dir,
                    extract_dir=extract_dir,
                    try_download_gcs=False,
                ),
            )
    except download_manager.NonMatchingChecksumError as error:
        raise errors.UserError(
            f"an archive of data set {name!r} is damaged or not the published one: "
            f"{str(error).splitlines()[0].rstrip(':')}; fetch it again"
        ) from error
    except OSError as error:
        if type(error).__module__.startswith("requests"):
            raise errors.UserError(
                f"cannot fetch data set {name!r}: {errors.one_line(error)}; {wanted}"
            ) from error
        raise errors.UserError(
            f"cannot prepare data set {name!r} in data_dir={root}: "
            f"{errors.one_line(error)}; pass a folder that can be written"
        ) from error


def _reachable(url: str) -> bool:
    """Whether a server answers: TFDS itself tries for minutes before it gives up."""
    import requests

    if not url.startswith("http"):
        return True
    try:
        requests.head(url, timeout=_PROBE_SECONDS)
    except requests.RequestException:
        return False
    return True


def _keep_accelerators_free() -> None:
    """Keeps TensorFlow, which only writes files here, from taking a GPU's memory."""
    import tensorflow as tf

    # Too late if the caller has used TensorFlow before: then it is theirs to decide.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")


def _read_prepared(builder: Any, name: str, streamed: bool) -> Any:
    damaged = f"prepared data set {name!r} in {builder.data_dir} is damaged"
    remedy = "delete that folder, and the data set is prepared again"
    with errors.translated(damaged, remedy):
        if not (builder.data_path / "dataset_info.json").exists():
            raise errors.UserError(f"{damaged}: dataset_info.json is missing; {remedy}")
        test = _check_format(builder, name, streamed)
        label = builder.info.features["label"]
        names = tuple(map(label.int2str, range(label.num_classes)))
        try:
            if streamed:
                train, tested = _stored(builder, "train"), _stored(builder, test)
                others = "validation" in builder.info.splits
                records: Any = tested.store
                if others and records.source[0]["label"] < 0:  # it is unlabelled
                    tested = _stored(builder, "validation")
                return stream.Stores(train, tested, names)
            return splits.RawDataset(
                train=_read_split(builder, "train"),
                test=_read_split(builder, test),
                class_names=names,
            )
        except _Damaged as error:
            raise errors.UserError(f"{damaged}: {error}; {remedy}") from error


class _Damaged(Exception):
    """What was read is not what was prepared."""


def _check_format(builder: Any, name: str, streamed: bool) -> str:
    """Refuses prepared data that cannot be read here; says what is tested on."""
    file_format = builder.info.file_format.value
    if file_format != _FORMAT:
        raise errors.UserError(
            f"data set {name!r} in {builder.data_dir} was prepared as {file_format}, "
            f"and {_FORMAT} is needed: pass another data_dir=DIR"
        )
    there, test = set(builder.info.splits), "test"
    # That of ImageNet has no labels, and its files need not be there.
    unread = name.startswith("imagenet2012") and "validation" in there
    if streamed and (unread or test not in there):
        test = "validation"
    if not {"train", test} <= there:
        raise errors.UserError(
            f"data set {name!r} has splits {', '.join(sorted(builder.info.splits))}: "
            f"train and {test} are needed; choose another data set"
        )
    return test


def _check_shards(builder: Any, split: str) -> None:
    """Refuses files that are not those that were prepared."""
    from array_record.python import array_record_data_source

    # A file that is another one, as when files were swapped, has other numbers.
    prepared = builder.info.splits[split]
    for path, expected in zip(prepared.filepaths, prepared.shard_lengths, strict=True):
        there = len(array_record_data_source.ArrayRecordDataSource([str(path)]))
        if there != expected:
            raise _Damaged(
                f"{path.name} has {there} examples, dataset_info.json says {expected}"
            )


def _stored(builder: Any, split: str) -> stream.Part:
    """A split whose images stay where they are."""
    import tensorflow_datasets as tfds

    _check_shards(builder, split)
    skip: Any = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(split, decoders=skip)
    where = f"{split} of data set {builder.info.full_name}"
    return stream.Part(Records(source, where), np.arange(len(source)))


def _read_split(builder: Any, split: str) -> splits.Split:
    _check_shards(builder, split)
    source = builder.as_data_source(split)
    shape = builder.info.features["image"].shape
    images = np.empty((len(source), *shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for first in range(0, len(source), _READ_AT_ONCE):
        indices = range(first, min(first + _READ_AT_ONCE, len(source)))
        for index, example in zip(
            indices, source.__getitems__(list(indices)), strict=True
        ):
            if example["image"].shape != shape:
                raise _Damaged(f"an image of {split} is {example['image'].shape}")
            images[index] = example["image"]
            labels[index] = example["label"]
    return splits.Split(images, labels, labels)
