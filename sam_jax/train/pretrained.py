"""The arrays that a run may start from: of another run, of a file, of other libraries.

Files are safetensors or npz, which hold arrays and no code.
"""

import io
import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from sam_jax import errors, models, storage
from sam_jax.data import npz
from sam_jax.models import naming
from sam_jax.train import export, files, loaded, settings, workdir

_FILES = (".safetensors", ".npz")
_SETTING = "config.init_from"


class Source(NamedTuple):
    """Arrays by their names.

    Attributes:
        words: where they come from.
        arrays: of the names that they have there.
        library: whose names these are; None for those of this package.
        class_names: that they were trained for, if that is known.
    """

    words: str
    arrays: Mapping[str, np.ndarray]
    library: str | None = None
    class_names: tuple[str, ...] | None = None


def read(config: settings.Settings, model: Any = None) -> Source:
    """What ``config.init_from`` says.

    Args:
        config: of the run that begins.
        model: its network, if it was passed as an object: the other run's as well.

    Raises:
        UserError: if they are not there, cannot be read, or are not arrays of numbers.
    """
    text = config.init_from or ""
    library, colon, rest = text.partition(":")
    if colon and library in naming.LIBRARIES:
        given = config.model.name if model is None else None
        return _of_library(library, rest, given)
    if text.endswith(_FILES):
        return _of_export(text)
    folder, at, step = text.rpartition("@")
    if not at or storage.path(text).exists():
        folder, step = text, "best"
    if not storage.path(folder).expanduser().is_dir():
        libraries = ", ".join(f"{library}:.." for library in naming.LIBRARIES)
        raise errors.UserError(
            f"{_SETTING}={text}: there is no such run, and it is not a file of "
            f"{' or '.join(_FILES)}, nor {libraries}"
        )
    return _of_run(storage.path(folder).expanduser(), step, config, model)


# ── Runs and exports ─────────────────────────────────────────────────────────────────


def _of_run(
    folder: pathlib.Path, step: str, config: settings.Settings, model: Any
) -> Source:
    try:
        theirs = workdir.stored(folder, workdir.texts(config))
    except workdir.OwnCodeError as error:
        raise errors.UserError(
            f"{error}: name the same in this run, or give a file of sam-jax export"
        ) from error
    number = int(step) if step.isdecimal() else step
    run = loaded.load_run(folder, number, config=theirs, model=model)
    arrays = export.named_arrays(run)
    words = f"{folder}, step {run.step}"
    return Source(words, arrays, class_names=run.class_names)


def _of_export(path: str) -> Source:
    arrays, about = _arrays(path)
    if not any(name.startswith("params.") for name in arrays):
        libraries = ", ".join(f"{x}:{path}" for x in naming.LIBRARIES)
        raise errors.UserError(
            f"{_SETTING}={path} is not a file of sam-jax export: its arrays are "
            f"{errors.one_line(', '.join(arrays), 100)}; of another library's names "
            f"give one of {libraries}"
        )
    return Source(path, arrays, class_names=_class_names(about, path))


def _class_names(about: str | None, path: str) -> tuple[str, ...] | None:
    """Those in what `sam-jax export` has written about the arrays of a file."""
    if about is None:
        return None
    with errors.translated(f"{path} has notes that cannot be read", "export it again"):
        return tuple(map(str, json.loads(about)["data"]["class_names"]))


def _arrays(path: str) -> tuple[dict[str, np.ndarray], str | None]:
    """The arrays of a file, and what `sam-jax export` has written about them."""
    file = storage.path(path).expanduser()
    if not file.is_file():
        raise errors.UserError(f"{_SETTING}: there is no file {path}")
    remedy = "give a whole file of safetensors, or of numpy.savez with names"
    content = files.read(file)
    with errors.translated(f"{path} cannot be read", remedy):
        if file.suffix == ".npz":
            npz.check_start(content[:6], path, remedy)
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                arrays = dict(stored)
            about = arrays.pop("sam_jax", None)
            about = None if about is None else str(about)
        else:
            arrays = _of_safetensors(content, path, remedy)
            size = int.from_bytes(content[:8], "little")
            notes = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
            about = notes.get("sam_jax")
    # NumPy has no name for bfloat16, and reads two bytes of an npz file.
    arrays |= {k: x.view(jnp.bfloat16) for k, x in arrays.items() if x.dtype == "V2"}
    numbers = {
        k: x
        for k, x in arrays.items()
        if x.dtype.kind in "fiuV" and x.dtype.type is not np.void
    }
    return {k: x for k, x in numbers.items() if not k.endswith(_COUNTS)}, about


def _of_safetensors(content: bytes, path: str, remedy: str) -> dict[str, np.ndarray]:
    """As `safetensors.numpy.load`, which has no bfloat16."""
    export.safetensors()  # or one sentence
    import safetensors

    try:
        found = dict(safetensors.deserialize(content))
    except safetensors.SafetensorError as error:
        raise errors.UserError(f"{path} cannot be read: {error}; {remedy}") from error
    for name, entry in found.items():
        if (dtype := entry["dtype"]) not in _DTYPES:
            raise errors.UserError(f"{path}: {name} is of {dtype}: {remedy}")
    return {
        name: np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(
            entry["shape"]
        )
        for name, entry in found.items()
    }


_DTYPES: Mapping[str, Any] = {
    **{f"F{8 * n}": np.dtype(f"f{n}") for n in (2, 4, 8)},
    **{f"I{8 * n}": np.dtype(f"i{n}") for n in (1, 2, 4, 8)},
    **{f"U{8 * n}": np.dtype(f"u{n}") for n in (1, 2, 4, 8)},
    **{"BF16": jnp.bfloat16, "BOOL": np.dtype(bool)},
}
_COUNTS = "num_batches_tracked"  # of torch's BatchNorm, which nothing here needs


# ── Other libraries ──────────────────────────────────────────────────────────────────


def _of_library(library: str, rest: str, network: str | None) -> Source:
    name, _, path = rest.rpartition("@")
    if not path.endswith(_FILES):
        name, path = rest, ""
    if network is not None:
        _check_name(f"{library}:{name}", name, network)
    class_names = None
    if path:
        arrays, about = _arrays(path)
        class_names = _class_names(about, path)
    else:
        arrays = _fetched(library, name)
    if library == "hf" and "embeddings.cls_token" in arrays:  # a ViT without a head
        arrays = {f"vit.{key}": x for key, x in arrays.items()}
    for old, new in naming.EARLIER.items():
        arrays = {key.replace(old, new): x for key, x in arrays.items()}
    return Source(f"{library}:{rest}", arrays, library, class_names)


_NETWORK = re.compile(
    r"(?:^|/)(?:resnet-?(?P<depth>\d+)|"
    r"vit[-_](?P<size>tiny|small|base|b)[-_](?:patch)?(?P<patch>\d+))(?=$|[-_.])"
)


def _check_name(text: str, name: str, given: str) -> None:
    """Refuses the name of a network that is another one here."""
    if found := _NETWORK.search(name):
        size = {"tiny": "ti", "small": "s", "base": "b", "b": "b"}
        ours = (
            f"resnet{found['depth']}_imagenet"
            if found["depth"]
            else f"vit_{size[found['size']]}{found['patch']}"
        )
        if given == ours or ".py:" in given:
            return
        if found["depth"] and ours not in models.names():
            raise errors.UserError(
                f"{_SETTING}={text} is a network that is not here: "
                f"{errors.unknown('model', ours, models.names())}"
            )
        raise errors.UserError(
            f"{_SETTING}={text} is a network called {ours} here, and "
            f"config.model.name is {given}: set --config.model.name={ours}"
        )


def _fetched(library: str, name: str) -> dict[str, np.ndarray]:
    """The published weights, from the cache of the library or from the network."""
    if library not in _FETCH or not name:
        raise errors.UserError(
            f"{_SETTING}={library}:{name} names no file: give {library}:FILE, of "
            f"{' or '.join(_FILES)}"
        )
    advice = f"give a file of its weights, {library}:{name}@FILE.safetensors"
    try:
        with errors.translated(f"{library}:{name} cannot be fetched", advice):
            return _FETCH[library](name)
    except ImportError as error:
        raise errors.UserError(
            f"{_SETTING}={library}:{name} needs {error.name}, which is not installed: "
            f"{advice}"
        ) from error


def _from_hub(repository: str) -> dict[str, np.ndarray]:
    import huggingface_hub

    path = huggingface_hub.hf_hub_download(repository, "model.safetensors")
    return _arrays(path)[0]


def _from_timm(name: str) -> dict[str, np.ndarray]:
    import timm

    repository = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None)
    if repository is None:
        raise errors.UserError(f"{_SETTING}: timm knows no weights called {name!r}")
    return _from_hub(repository)


def _from_torchvision(name: str) -> dict[str, np.ndarray]:
    import torchvision

    weights: Any = torchvision.models.get_model_weights(name)
    state = weights.DEFAULT.get_state_dict(progress=False)
    return {k: x.numpy() for k, x in state.items() if not k.endswith(_COUNTS)}


_FETCH: Mapping[str, Callable[[str], dict[str, np.ndarray]]] = {
    "hf": _from_hub,
    "timm": _from_timm,
    "torchvision": _from_torchvision,
}
