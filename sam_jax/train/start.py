"""What a run starts from: the arrays of ``config.init_from``, each in its place."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from sam_jax import errors
from sam_jax.models import naming
from sam_jax.train import build, files, frozen, names, pretrained

FILE = "init_from.json"
_OTHER_CLASSES = "the classes differ"


class Start(NamedTuple):
    """What a run starts from.

    Attributes:
        given: ``(params, model_state)`` of NumPy, None for what is drawn.
        source: where they come from, in words.
        matched: names of the arrays that were found.
        resized: those of them that were interpolated for another size of image.
        fresh: names of those that are drawn, and why.
        left: names in the source that nothing is made of.
        remarks: what the network computes in another way than that of the source.
    """

    given: Any
    source: str
    matched: list[str]
    resized: list[str]
    fresh: Mapping[str, str]
    left: list[str]
    remarks: list[str]

    def words(self) -> str:
        """In a line, for the head of the log."""
        count = len(self.matched)
        said = [f"{self.source}: {count} of {count + len(self.fresh)} arrays"]
        for reason in sorted(set(self.fresh.values())):
            drawn = [name for name, why in self.fresh.items() if why == reason]
            said.append(f"drawn as {reason}: {errors.one_line(', '.join(drawn), 99)}")
        for what in ("resized", "left"):
            if listed := getattr(self, what):
                said.append(f"{what}: {errors.one_line(', '.join(listed), 99)}")
        return "; ".join(said)

    def write(self, folder: pathlib.Path) -> None:
        """Writes the whole lists to ``init_from.json``."""
        fields = {k: v for k, v in self._asdict().items() if k != "given"}
        files.replace(folder / FILE, json.dumps(fields, indent=2) + "\n")


def of(run: build.Run, model: Any = None) -> Start | None:
    """Reads what a run starts from.

    Returns:
        The arrays; None if ``config.init_from`` says nothing.

    Raises:
        UserError: if they cannot be read, are not those of this network, or
            ``config.init_fresh`` does not fit.
    """
    config = run.config
    if config.init_from is None:
        if config.init_fresh is not None:
            raise errors.UserError(
                "config.init_fresh has no effect, as config.init_from is None: leave "
                "it out"
            )
        return None
    source = pretrained.read(config, model)
    tree = _shapes(run, run.spec, model)
    own = names.by_name(tree)
    more = run.spec._replace(num_classes=run.spec.num_classes + 1)
    of_classes = {
        name
        for name, leaf in names.by_name(_shapes(run, more, model)).items()
        if name in own and leaf.shape != own[name].shape
    }
    found = _matched(source, own, of_classes, run)
    given = jax.tree_util.tree_map_with_path(
        lambda path, _: found.arrays.get(names.name(path)), tree
    )
    used = {place.name for name, place in found.places.items() if name in found.arrays}
    return Start(
        (given.pop("params"), given),
        source.words,
        sorted(found.arrays),
        found.resized,
        found.fresh,
        sorted(set(source.arrays) - used),
        _remarks(source, own, config.model.options)
        + _of_other_classes(source, of_classes, run.dataset.class_names)
        + _more_than_ours(source, {place.name for place in found.places.values()}),
    )


def _of_other_classes(
    source: pretrained.Source, of_classes: set[str], class_names: Any
) -> list[str]:
    """A remark where no array is known to be of the classes, which are others."""
    if of_classes or source.class_names in (None, class_names):
        return []
    return [
        "config.init_from: these weights are of other classes, and no array of the "
        "network depends on their number: draw the last layer by config.init_fresh"
    ]


def _shapes(run: build.Run, spec: build.DataSpec, model: Any) -> dict[str, Any]:
    """The arrays of a network for data, and nothing computed."""
    made = build.steps(run.config, spec, model=model)
    state = jax.eval_shape(made.init, made.seed)
    return {"params": frozen.whole(state.params, state.frozen), **state.model_state}


class _Found(NamedTuple):
    places: Mapping[str, naming.Place]
    arrays: dict[str, np.ndarray]
    resized: list[str]
    fresh: dict[str, str]


def _matched(
    source: pretrained.Source,
    own: Mapping[str, Any],
    of_classes: set[str],
    run: build.Run,
) -> _Found:
    shapes = {name: leaf.shape for name, leaf in own.items()}
    places = {name: naming.Place(name) for name in own}
    if source.library:
        places = naming.places(source.library, shapes)
    found = _Found(places, {}, [], _fresh(run.config.init_fresh, own))
    if source.class_names not in (None, run.dataset.class_names):
        found.fresh.update({n: _OTHER_CLASSES for n in own if n in of_classes})
    missing, other = [], []
    for name in [name for name in own if name not in found.fresh]:
        place = places.get(name)
        array = source.arrays.get(place.name) if place else None
        if place is None or array is None:
            if name in of_classes:
                found.fresh[name] = "it is not there"
            else:
                missing.append(name)
            continue
        array, expected = _part(array, place.part), _expected(source, name, shapes)
        of_array = name, array.shape, expected
        if grid := _other_grid(*of_array, run.spec, shapes, source.library):
            array = naming.resized(array, grid)
            found.resized.append(name)
        elif array.shape != expected:
            if name in of_classes:
                found.fresh[name] = _OTHER_CLASSES
            else:
                other.append(
                    f"{place.name} is {list(array.shape)} there, and this network "
                    f"needs {list(expected)}"
                )
            continue
        if source.library:
            array = naming.from_library(source.library, name, array, shapes[name])
        found.arrays[name] = array.astype(own[name].dtype)
    _refuse(source, found, missing, other)
    return found


def _fresh(pattern: str | None, own: Mapping[str, Any]) -> dict[str, str]:
    """Names that ``config.init_fresh`` asks for; it does not see the collection."""
    if pattern is None:
        return {}
    inner = {name: name.partition(".")[2] for name in own}
    setting = "config.init_fresh"
    asked = set(names.matching(pattern, list(inner.values()), setting))
    if asked == set(inner.values()):
        raise errors.UserError(
            f"{setting}: {pattern!r} matches every array of the network: leave "
            "config.init_from out to initialize all at random"
        )
    return {name: f"{setting} says" for name in own if inner[name] in asked}


def _part(array: np.ndarray, part: int | None) -> np.ndarray:
    if part is None or array.ndim == 0:
        return array
    third = len(array) // 3
    return array[part * third : (part + 1) * third]


def _expected(
    source: pretrained.Source, name: str, shapes: naming.Shapes
) -> tuple[int, ...]:
    """The shape that an array should have in the source."""
    if source.library is None:
        return shapes[name]
    like = np.broadcast_to(np.float32(0), shapes[name])
    return naming.to_library(source.library, name, like).shape


def _other_grid(
    name: str,
    shape: tuple[int, ...],
    expected: tuple[int, ...],
    spec: build.DataSpec,
    shapes: naming.Shapes,
    library: str | None,
) -> tuple[int, int] | None:
    """Patches of a column and of a row, if these are positions of others."""
    if name != "params.positions" or len(shape) != 3 or shape[::2] != expected[::2]:
        return None
    if "params.token" not in shapes or len(spec.image_shape) != 3:
        return None  # of a network of the user's
    side = shapes["params.Conv_0.kernel"][0]
    grid = spec.image_shape[0] // side, spec.image_shape[1] // side
    # Other libraries' are those of squares, also where there are as many.
    as_there = shape == expected and (library is None or grid[0] == grid[1])
    return None if as_there else grid


def _refuse(
    source: pretrained.Source, found: _Found, missing: list[str], other: list[str]
) -> None:
    what = f"config.init_from={source.words}"
    advice = (
        "take the network that they are of, or draw these by config.init_fresh, a "
        "regular expression"
    )
    if other:
        more = f" ({len(other)} arrays are of other shapes)" * (len(other) > 1)
        raise errors.UserError(f"{what}: {other[0]}{more}: {advice}")
    if missing:
        raise errors.UserError(
            f"{what} lacks {len(missing)} of {len(missing) + len(found.arrays)} arrays "
            f"of this network, such as {missing[0]} (it has "
            f"{errors.one_line(', '.join(source.arrays), 99)}): {advice}"
        )
    if not found.arrays:
        raise errors.UserError(f"{what}: nothing of it is used: leave it out")
    for name, array in found.arrays.items():
        if not np.all(np.isfinite(array)):
            raise errors.UserError(f"{what}: {name} is not finite: take other weights")


_LAYER = re.compile(r".*?\d+(?=[./])")


def _more_than_ours(source: pretrained.Source, known: set[str]) -> list[str]:
    """Says what the network's layers have at the source and not here."""
    if not source.library:
        return []
    layers = {found[0] for name in known if (found := _LAYER.match(name))}
    more = [
        name
        for name in source.arrays
        if name not in known and (found := _LAYER.match(name)) and found[0] in layers
    ]
    if not more:
        return []
    return [
        f"config.init_from: its layers have {len(more)} arrays that this network has "
        f"no place for ({errors.one_line(', '.join(sorted(more)), 60)}): this network "
        "computes something else"
    ]


def _remarks(
    source: pretrained.Source, own: Mapping[str, Any], options: Mapping[str, Any]
) -> list[str]:
    if "params.positions" not in own:
        return []
    theirs = naming.VIT_OPTIONS.get(source.library or "", {})
    return [
        f"config.init_from: these weights were trained with {key}={value!r}: "
        f"config.model.options.{key}={value} computes the same"
        for key, value in theirs.items()
        if options.get(key, naming.VIT_DEFAULTS[key]) != value
    ]
