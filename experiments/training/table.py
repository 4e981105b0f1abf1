"""A table as a small file of data, and the runs that fill it."""

import dataclasses
import hashlib
import pathlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from sam_jax import errors, plugins
from sam_jax.train import coefficients, files, settings, sweep, workdir

TABLES = pathlib.Path(__file__).parent / "tables"


@dataclasses.dataclass(frozen=True)
class Table:
    """What its file says.

    Attributes:
        name: of the file.
        title: in one line.
        about: what is asked, and what was written down before the runs.
        card: the run card of all runs.
        seeds: runs of each row.
        rows: each a mapping from settings to a value or several, which are combined.
        settings: of all rows, likewise.
        by: a setting; each of its values has a table of its own.
        baseline: settings of the row that the others are compared with, of each part.
        seconds: a run takes on one core here; None: it needs a GPU.
        published: ``where`` (settings of a row), ``value`` and ``source``.
        listed: published rows without a command, ``row``, ``published``, ``source`` and
            ``why``.
        assumed: settings that the source does not say.
        weights: whether the weights of each row's first seed are kept.
        tuned: whether of a method only the coefficients that are best on validation are
            shown.
        first_seed: of the seeds.
        gain_of: settings of the row whose gain over the baseline is the measure of all,
            in a table of errors against times.
        curves: a setting; ``curves.png`` has a panel with the training losses of the
            rows for each of its values and each of those of `by`.
    """

    name: str
    title: str
    card: str = ""
    about: str = ""
    source: str = ""
    seeds: int = 1
    rows: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    by: str | None = None
    baseline: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float | None = None
    published: Sequence[Mapping[str, Any]] = ()
    listed: Sequence[Mapping[str, str]] = ()
    assumed: Sequence[str] = ()
    weights: bool = False
    tuned: bool = False
    first_seed: int = 0
    gain_of: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    curves: str | None = None


def names() -> list[str]:
    """Of all tables."""
    return sorted(path.stem for path in TABLES.glob("*.toml"))


def load(name: str) -> Table:
    """A table by its name, or by the path of its file."""
    path = pathlib.Path(name) if name.endswith(".toml") else TABLES / f"{name}.toml"
    if not path.is_file():
        raise errors.UserError(errors.unknown("table", name, names()))
    with errors.translated(f"{path} is not a table", "fix the file"):
        tree = tomllib.loads(path.read_text())
    keys = {field.name for field in dataclasses.fields(Table)} - {"name"}
    if unknown := set(tree) - keys:
        raise errors.UserError(f"{path}: {errors.unknown('key', min(unknown), keys)}")
    if "title" not in tree:
        raise errors.UserError(f"{path} has no title")
    rows = tree.get("rows", [])
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise errors.UserError(f"{path}: rows must be tables, [[rows]], of settings")
    return Table(path.stem, **tree)


def planned(table: Table, changes: Sequence[str] = ()) -> dict[str, settings.Settings]:
    """The runs of a table: all rows with the first seed, then all with the second, ....

    So an interruption leaves fewer seeds of all rows, and no row without any.

    Args:
        table: of `load`.
        changes: of the settings of all runs, such as ``--config.data.data_dir=DIR``.

    Returns:
        Name of the folder -> settings. The name has a digest of the settings, so that
        tables share their runs.
    """
    found: dict[str, settings.Settings] = {}
    for row in table.rows:
        chosen = {**table.settings, **row}
        seeds = chosen.pop("seeds", table.seeds)
        axes = [sweep.Axis(key, _texts(value)) for key, value in chosen.items()]
        axes = [sweep.Axis.read(f"{axis.key}={','.join(axis.values)}") for axis in axes]
        words = [f"--config.seed={table.first_seed}", *changes]
        for config in sweep.planned(table.card, axes, seeds, words).values():
            method, *others = workdir.brief(config)
            method = re.sub(r".*\.py:", "", method)  # of one's own no folders
            words = ["sgd" if method == "none" else method, *others, digest(config)]
            found.setdefault("_".join(words), config)
    order = _texts(table.settings.get(table.by or "", ""))

    def place(config: settings.Settings) -> tuple[int, int]:
        value = settings.flat_text(config).get(table.by or "")
        same = [n for n, text in enumerate(order) if text == str(value)]
        return config.seed, same[0] if same else 0

    return dict(sorted(found.items(), key=lambda item: place(item[1])))


def cost(table: Table, missing: Mapping[str, settings.Settings]) -> str:
    """Of the runs that are missing: hours of a core like those here, or epochs."""
    if not missing:
        return "–"
    if table.seconds is None:
        epochs = sum(config.epochs for config in missing.values())
        return f"needs a GPU, {epochs:,} epochs"
    return f"{len(missing) * table.seconds / 3600:.1f} core hours"


def _texts(value: Any) -> list[str]:
    return [str(x) for x in value] if isinstance(value, list) else [str(value)]


def own(found: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that change nothing, such as folders of a machine."""
    free = tuple(f"{key}." for key in settings.FREE_SETTINGS)
    return {
        key: value
        for key, value in found.items()
        if not (key in settings.FREE_SETTINGS or key.startswith(free))
    }


def identity(found: Mapping[str, Any]) -> str:
    """What makes a run another one: settings with values of their own, and the seed.

    Settings and coefficients that later versions add, with a default, change nothing.
    """
    name = found["method.name"]
    known = {} if plugins.is_reference(name) else coefficients.parameters(name)
    defaults = settings.flat_text(settings.Settings())
    defaults |= {f"method.{key}": each.default for key, each in known.items()}
    changed = {
        key: value
        for key, value in own(found).items()
        if key not in defaults or defaults[key] != value
    }
    return files.to_json(changed, sort_keys=True)


def digest(config: settings.Settings) -> str:
    """Eight letters of the `identity`."""
    return hashlib.sha256(identity(settings.flat_text(config)).encode()).hexdigest()[:8]
