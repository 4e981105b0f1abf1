"""What a run knew of its data: with it, its network works where they are not."""

import contextlib
import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING, Any, Self

import numpy as np

import sam_jax
from sam_jax import errors
from sam_jax.train import files

if TYPE_CHECKING:
    from sam_jax import data

FILE = "data.json"
FORMAT = 1  # of the file; a reader refuses later ones


@dataclasses.dataclass(frozen=True)
class DataRecord:
    """What predictions need of the data.

    Attributes:
        name: of the data set.
        image_shape: height, width, channels of the network's input.
        class_names: of the labels, in their order.
        mean: per channel, in units of pixel / 255; see `data.augment.normalize`.
        std: per channel, likewise.
        steps_per_epoch: updates in an epoch of the run.
        dtype: of the inputs; other than uint8, they are not images.
        network: that was passed from Python, in the place of ``config.model``.
    """

    name: str
    image_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    steps_per_epoch: int
    dtype: str = "uint8"
    network: str | None = None

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """What the network is given: pixels are made numbers."""
        return np.dtype("float32" if self.dtype == "uint8" else self.dtype)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @classmethod
    def of(cls, dataset: "data.Dataset", batch_size: int) -> Self:
        """That of a data set, in batches of some size."""
        return cls(
            dataset.name,
            dataset.image_shape,
            tuple(map(str, dataset.class_names)),
            dataset.mean,
            dataset.std,
            dataset.train.steps_per_epoch(batch_size),
            str(np.dtype(dataset.dtype)),
        )

    def plain(self) -> dict[str, Any]:
        """As JSON, with the format and the version that writes it."""
        versions = {"format": FORMAT, "sam_jax": sam_jax.__version__}
        return versions | dataclasses.asdict(self)


def refuse_network(folder: pathlib.Path) -> None:
    """Refuses a run whose network was passed from Python, and is not now.

    Raises:
        UserError: naming the network.
    """
    network = None
    with contextlib.suppress(errors.UserError):  # of a damaged file others speak
        if (folder / FILE).is_file():
            network = read(folder).network
    if network is not None:
        raise errors.UserError(
            f"{folder} was trained with the network {network}, passed from Python: "
            "pass it again, as in load_run(RUN, model=...) and "
            "train_and_evaluate(config, RUN, model=...)"
        )


def write(folder: pathlib.Path, record: DataRecord) -> None:
    """Writes ``data.json``, unless it says the same already."""
    # Not `files.to_json`, which would read a class named NaN as a number.
    text = json.dumps(record.plain(), indent=2) + "\n"
    path = folder / FILE
    if not path.is_file() or files.read(path) != text.encode():
        files.replace(path, text)


def read(folder: pathlib.Path) -> DataRecord:
    """Reads ``data.json`` of a run."""
    path = folder / FILE
    if not path.is_file():
        raise errors.UserError(
            f"{folder} has no {FILE}, which earlier versions did not write: start its "
            "command once more where its data set is (a finished run trains no "
            "further), or pass load_run(..., dataset=...)"
        )
    try:
        found: Any = json.loads(files.read(path))
        version = found.pop("sam_jax")
        number = found.pop("format")
        if type(number) is not int or number < 1:
            raise ValueError(number)
        if number <= FORMAT:
            fields: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in found.items()
            }
            _check(record := DataRecord(**fields))
            return record
    except errors.UserError:
        raise
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        raise errors.UserError(
            f"{path} is damaged: delete it, then start the run's command once more "
            "where its data set is"
        ) from error
    raise errors.UserError(
        f"{path} is of a later version, sam_jax {version}, than this one, "
        f"{sam_jax.__version__}: update sam_jax"
    )


def _check(record: DataRecord) -> None:
    """Raises ValueError for what no run has written, though it is JSON."""
    sizes = _of((int,), (*record.image_shape, record.steps_per_epoch))
    mean, std = _of((int, float), record.mean), _of((int, float), record.std)
    names = _of((str,), record.class_names)
    images = record.dtype == "uint8"
    if not (
        isinstance(record.name, str)
        and isinstance(record.network, str | None)
        and names
        and record.dtype in ("uint8", "float32", "int32")
        and (len(sizes) == 4 or not images)
        and min(sizes) > 0
        and len(mean) == len(std) == (sizes[2] if images else 0)
        and np.all(np.isfinite((mean, std)))
        and min(std, default=1) > 0
    ):
        raise ValueError(record)


def _of(kinds: tuple[type, ...], values: Any) -> tuple[Any, ...]:
    """The values, if they are a tuple of such."""
    if not isinstance(values, tuple) or {type(x) for x in values} - {*kinds}:
        raise ValueError(values)
    return values
