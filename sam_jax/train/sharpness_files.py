"""What the measured sharpness of runs leaves: ``sharpness.json``, pictures, a table."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sam_jax import errors
from sam_jax.train import figures, files, report
from sam_jax.train.figures import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE = "sharpness.json"
FORMAT = 1

Records = Mapping[str, Mapping[str, Any]]


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """What was measured of a run; None where nothing was.

    Returns:
        ``format``, ``measures`` and ``pictures``, name -> record; see
        `sam_jax.train.sharpness.measure`.
    """
    path = folder / FILE
    if not path.exists():
        return None
    advice = "delete it, and measure again"
    with errors.translated(f"{path} is damaged", advice):
        found = files.from_json(files.read(path))
    parts = [found.get(key) if isinstance(found, dict) else None for key in _PARTS]
    if (
        not all(isinstance(part, dict) for part in parts)
        or found.get("format") != FORMAT
    ):
        raise errors.UserError(f"{path} is damaged, or of a later version: {advice}")
    return found


_PARTS = ("measures", "pictures")


def parted(records: Records) -> tuple[Records, Records]:
    """Numbers, and pictures."""
    numbers = {name: one for name, one in records.items() if "value" in one}
    return numbers, {k: one for k, one in records.items() if k not in numbers}


def write(folder: pathlib.Path, measures: Records, pictures: Records) -> None:
    """Writes ``sharpness.json`` and draws the pictures, ``sharpness_<name>.png``.

    Earlier measurements stay unless they are repeated.
    """
    before = read(folder) or {key: {} for key in _PARTS}
    new = {
        "format": FORMAT,
        "measures": before["measures"] | dict(measures),
        "pictures": before["pictures"] | dict(pictures),
    }
    files.replace(folder / FILE, files.to_json(new, indent=1) + "\n")
    for name, record in pictures.items():
        path = folder / f"sharpness_{name}.png"
        draw(name, {folder.resolve().name: record}, path)


def rows(of_runs: Mapping[str, Records]) -> list[dict[str, Any]]:
    """The table: a row for each measure, a column for each run.

    Example:
        >>> record = {"value": 12.5, "residual": None, "standard_error": 0.25}
        >>> rows({"a": {"trace": record}})
        [{'measure': 'trace', 'a': '12.5000 ± 0.2500'}]
    """
    names = dict.fromkeys(name for found in of_runs.values() for name in found)
    return [
        {
            "measure": name,
            **{
                run: value(found[name]) if name in found else "-"
                for run, found in of_runs.items()
            },
        }
        for name in names
    ]


def value(record: Mapping[str, Any]) -> str:
    """A measure for people, with its standard error or residual."""
    text = report.number(record["value"])
    if record["standard_error"] is not None:
        return f"{text} ± {report.number(record['standard_error'])}"
    if record["residual"] is not None:
        return f"{text} (residual {report.number(record['residual'])})"
    return text


def cost(record: Mapping[str, Any]) -> str:
    """What a measure took.

    Example:
        >>> cost({"products": 3, "gradients": 0, "losses": [1.0], "seconds": 2.0})
        '3 products, 2.0 s'
    """
    units = ("products", "gradients", "losses")
    taken = [
        f"{record[unit]} {unit}"
        for unit in units
        if isinstance(record[unit], int) and record[unit]
    ]
    return ", ".join([*taken, report.duration(record["seconds"])])


# ── Pictures ─────────────────────────────────────────────────────────────────────────


def draw(name: str, shown: Records, path: pathlib.Path) -> None:
    """Draws a picture of one or of several runs.

    Lines of several runs are in one panel, told apart by style as well as by colour;
    planes are side by side, with the same levels.
    """
    first = next(iter(shown.values()))
    flat = len(first.get("coordinates", [0])) == 2
    size = (4.6 * len(shown) + 0.8, 7.6) if flat else (6.4, 4.4)
    figure = figures.empty(size, _title(first), fontsize=10)
    if flat:
        _planes(figure, shown)
    else:
        axes = figure.subplots()
        (_densities if name == "density" else _lines)(axes, shown)
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.legend(frameon=False, fontsize=9)
    figures.save(figure, path)


def _title(record: Mapping[str, Any]) -> str:
    return (
        f"{record['about']}\n{record['examples']} training examples, BatchNorm as in "
        f"{record['batch_norm']}"
    )


def _each(shown: Records) -> Any:
    """Label, record, and how its line is drawn."""
    for i, (label, record) in enumerate(shown.items()):
        color, style = (
            COLORS[(i + 2) % len(COLORS)],
            (figures.LINES * 2)[i % len(COLORS)],
        )
        yield label, record, {"color": color, "linestyle": style, "lw": figures.WIDTH}


def _lines(axes: "Axes", shown: Records) -> None:
    for label, record, style in _each(shown):
        axes.plot(
            record["coordinates"][0], _finite(record["losses"]), label=label, **style
        )
    is_path = "end" in next(iter(shown.values()))
    axes.set_xlabel("from one run to the other" if is_path else "along the direction")
    axes.set_ylabel("loss")


def _densities(axes: "Axes", shown: Records) -> None:
    for label, record, style in _each(shown):
        density = np.maximum(record["values"], 1e-12)
        axes.semilogy(record["grid"], density, label=label, **style)
    highest = max(max(record["values"]) for record in shown.values())
    axes.set_ylim(1e-7 * highest, 3 * highest)
    axes.set_xlabel("eigenvalue")
    axes.set_ylabel("density")


def _planes(figure: "Figure", shown: Records) -> None:
    """Contours above, surfaces below."""
    found = {label: _finite(record["losses"]) for label, record in shown.items()}
    every = np.concatenate([x[np.isfinite(x)] for x in found.values()])
    low, high = every.min(), np.quantile(every, 0.95)
    levels = np.unique(np.linspace(low, max(high, low + 1e-9), 13))
    for i, (label, record) in enumerate(shown.items()):
        x, y = np.meshgrid(*record["coordinates"], indexing="ij")
        above = figure.add_subplot(2, len(shown), 1 + i)
        z = found[label]
        drawn = above.contourf(x, y, z, levels, cmap="cividis", extend="both")
        lines = above.contour(x, y, z, levels, colors="k", linewidths=0.4)
        above.clabel(lines, fontsize=6, fmt="%.3g")
        if "points" in record:
            above.plot(*np.transpose(record["points"]), "o-w", ms=3, mec="k", lw=1)
        else:
            above.plot(0, 0, "Pw", mec="k")
        above.set_title(label, fontsize=10, parse_math=False)
        figure.colorbar(drawn, ax=above, label="loss")
        below: Any = figure.add_subplot(
            2, len(shown), 1 + i + len(shown), projection="3d"
        )
        capped = np.minimum(z, levels[-1])
        below.plot_surface(x, y, capped, cmap="cividis", linewidth=0, alpha=0.95)
        below.set_zlabel("loss")
        below.tick_params(labelsize=7)


def _finite(losses: Sequence[Any]) -> np.ndarray:
    """Losses with gaps where they overflow."""
    found = np.asarray(losses, float)
    return np.where(np.isfinite(found), found, np.nan)
