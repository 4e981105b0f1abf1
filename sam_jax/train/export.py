"""A trained network as one file that others read without this package.

``safetensors`` and ``npz`` have the arrays by names such as ``params.Dense_0.kernel``;
network, preprocessing and classes are JSON, in the metadata or the array ``sam_jax``.
``timm`` has them by the names and in the layout of timm's network, as safetensors.
``flax`` has the variables, for ``flax.serialization.msgpack_restore``. ``jax.export``
has the program from bytes to probabilities, normalization included, for any number of
images, on CPU, GPU and TPU; ``jax.export.deserialize(content).call(images)`` runs it.
"""

import dataclasses
import importlib.util
import io
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.export
import numpy as np

from sam_jax import errors, storage
from sam_jax.models import naming, serialization
from sam_jax.train import files, loaded, names


def export(run: loaded.LoadedRun, to: str, out: str | os.PathLike[str]) -> pathlib.Path:
    """Writes what a run has trained to one file.

    Raises:
        UserError: if there is no such format, what it needs is not installed, or the
            file exists or cannot be written.
    """
    if to not in FORMATS:
        raise errors.UserError(errors.unknown("format", to, FORMATS))
    path = storage.path(out)
    files.check_new(path)
    files.replace(path, FORMATS[to](run))
    return path


def safetensors() -> Any:
    """The module of that package for arrays of NumPy."""
    try:
        from safetensors import numpy
    except ImportError as error:
        raise errors.UserError(
            "the format safetensors needs its package: pip install safetensors"
        ) from error
    return numpy


def named_arrays(run: loaded.LoadedRun) -> dict[str, np.ndarray]:
    """Weights and statistics, by names such as ``params.Dense_0.kernel``."""
    variables = jax.device_get({"params": run.params, **run.model_state})
    return names.by_name(variables)


def about(run: loaded.LoadedRun) -> str:
    """Network, preprocessing and class names, as JSON."""
    config = dataclasses.asdict(run.config.model)
    return json.dumps(
        {"model": config, "step": run.step, "data": run.preprocessing.plain()}
    )


def _safetensors(run: loaded.LoadedRun) -> bytes:
    return _saved(named_arrays(run), run)


def _timm(run: loaded.LoadedRun) -> bytes:
    arrays = named_arrays(run)
    places = naming.places("timm", {name: x.shape for name, x in arrays.items()})
    if unknown := sorted(arrays.keys() - places.keys()):
        raise errors.UserError(
            f"timm's network has no place for {errors.one_line(', '.join(unknown), 99)}"
        )
    given = run.config.model.options
    for key, value in naming.VIT_OPTIONS["timm"].items():
        if given.get(key, value) != value:
            raise errors.UserError(
                f"timm's network has {key}={value!r}, and this one is trained with "
                f"config.model.options.{key}={given[key]!r}: there it would give other "
                "logits; take another format, such as safetensors"
            )
    parts: dict[str, list[np.ndarray]] = {}
    for name, place in sorted(places.items(), key=lambda item: item[1].part or 0):
        array = naming.to_library("timm", name, arrays[name])
        parts.setdefault(place.name, []).append(array)
    return _saved({name: np.concatenate(x) for name, x in parts.items()}, run)


def _saved(arrays: Mapping[str, np.ndarray], run: loaded.LoadedRun) -> bytes:
    # It writes the memory of an array, whatever its strides say.
    whole = {name: np.asarray(x, order="C") for name, x in arrays.items()}
    return safetensors().save(whole, metadata={"sam_jax": about(run), "format": "np"})


def _npz(run: loaded.LoadedRun) -> bytes:
    file = io.BytesIO()
    np.savez(file, sam_jax=np.array(about(run)), **named_arrays(run))  # pyright: ignore
    return file.getvalue()


def _flax(run: loaded.LoadedRun) -> bytes:
    variables = jax.device_get({"params": run.params, **run.model_state})
    return serialization.to_bytes(variables)


def _stablehlo(run: loaded.LoadedRun) -> bytes:
    if importlib.util.find_spec("flatbuffers") is None:  # JAX would say so at the end
        raise errors.UserError(
            "the format jax.export needs its package: pip install flatbuffers"
        )

    @jax.jit
    def probabilities(images: jax.Array) -> jax.Array:
        return jax.nn.softmax(run.logits(run.params, run.model_state, images))

    sizes = jax.export.symbolic_shape(
        f"batch, {', '.join(map(str, run.preprocessing.image_shape))}"
    )
    images = jax.ShapeDtypeStruct(sizes, run.preprocessing.dtype)
    platforms = ("cpu", "cuda", "rocm", "tpu")
    exported = jax.export.export(probabilities, platforms=platforms)(images)
    return bytes(exported.serialize())


# Name -> the content of the file.
FORMATS: Mapping[str, Callable[[loaded.LoadedRun], bytes]] = {
    "safetensors": _safetensors,
    "timm": _timm,
    "npz": _npz,
    "flax": _flax,
    "jax.export": _stablehlo,
}
