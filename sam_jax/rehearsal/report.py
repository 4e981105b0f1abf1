"""What a rehearsal has found, for people: a table, and a picture over slices."""

import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sam_jax.train import figures, files, report
from sam_jax.train.figures import COLORS

Result = Mapping[str, Any]
PREDICTED = "Predicted by the compiler, not run."

_COLORS = {"products": "#0072B2", "memory": "#56B4E9", "network": "#D55E00"}


def table(results: Sequence[Result]) -> str:
    """Rows of numbers, a column for each slice, as Markdown.

    Example:
        >>> small = {"topology": "v5e:1x1", "fits": False, "batch_size": 8}
        >>> small |= {"needed_bytes": 2**35, "there_bytes": 2**34, "advice": "remat"}
        >>> small |= {"missing_bytes": 2**34, "warnings": [], "per_chip": 8}
        >>> print(table([small]).splitlines()[3])
        | fits | no: 16.00 GiB missing |
    """
    rows = [
        [label, *(_cell(read, result) for result in results)]
        for label, read in ROWS.items()
    ]
    head = ["", *(result["topology"] for result in results)]
    kept = [row for row in rows if any(row[1:])]
    shown = report.markdown([head, *kept, *_collectives(results)])
    return "\n".join([shown, *_remarks(results)]).rstrip("\n")


def _cell(read: Callable[[Result], str], result: Result) -> str:
    try:
        return read(result)
    except KeyError:  # a step that does not fit has no program
        return ""


def gib(size: float) -> str:
    """Bytes in GiB."""
    return f"{size / 2**30:.2f} GiB"


def _milliseconds(name: str) -> Callable[[Result], str]:
    return lambda result: f"{1e3 * result['seconds'][name]:.2f} ms"


def _fits(result: Result) -> str:
    if result["fits"]:
        return "yes"
    if "refused" in result:
        return "refused"
    return f"no: {gib(result['missing_bytes'])} missing"


ROWS: Mapping[str, Callable[[Result], str]] = {
    "batch, examples a chip": lambda r: f"{r['batch_size']}, {r['per_chip']}",
    "largest batch that fits": lambda r: str(r["largest_batch"]),
    "fits": _fits,
    "memory of a chip": lambda r: gib(r["hbm_bytes"]),
    "peak": lambda r: gib(r["memory"]["peak"]),
    "  arguments": lambda r: gib(r["memory"]["arguments"]),
    "  temporaries": lambda r: gib(r["memory"]["temporaries"]),
    "TFLOP a chip and step": lambda r: f"{r['flops'] / 1e12:.3f}",
    "GB moved in its memory": lambda r: f"{r['moved_bytes'] / 1e9:.2f}",
    "step, by the compiler": _milliseconds("compiler"),
    "step, by a roofline": _milliseconds("roofline"),
    "  products": _milliseconds("products"),
    "  memory": _milliseconds("memory"),
    "  network": _milliseconds("network"),
    "communication": lambda r: f"{r['communication']:.1%}",
    "of the peak FLOP/s": lambda r: f"{r['utilization']:.0%}",
    "BatchNorm's examples (one chip has)": lambda r: (
        f"{r['batch_norm']['examples']} ({r['batch_norm']['one_chip']})"
    ),
    "compiled in": lambda r: f"{r['compile_seconds']:.0f} s",
}


def _collectives(results: Sequence[Result]) -> list[list[str]]:
    """A row for each kind and place."""
    of = [
        {(row["kind"], row["place"]): row for row in result.get("collectives", ())}
        for result in results
    ]
    keys = list(dict.fromkeys(key for rows in of for key in rows))
    return [
        [f"{kind}, {place}", *(_sent(rows.get((kind, place))) for rows in of)]
        for kind, place in keys
    ]


def _sent(row: Mapping[str, Any] | None) -> str:
    return f"{row['count']}, {row['sent'] / 1e6:.2f} MB sent" if row else "none"


def _remarks(results: Sequence[Result]) -> list[str]:
    """Warnings, each with the slices that it is about, and what would fit."""
    about: dict[str, list[str]] = {}
    for result in results:
        for text in result.get("warnings", [result.get("refused")]):
            about.setdefault(text, []).append(result["topology"])
        if "missing_bytes" in result:
            text = (
                f"the step needs {gib(result['needed_bytes'])} of "
                f"{gib(result['there_bytes'])}: try {result['advice']}"
            )
            about.setdefault(text, []).append(result["topology"])
    everywhere = len(results)
    return [
        "warning: "
        + ("" if len(where) == everywhere > 1 else f"{', '.join(where)}: ")
        + text
        for text, where in about.items()
    ]


def write(
    folder: pathlib.Path, results: Sequence[Result], command: str, about: str
) -> None:
    """Writes ``rehearsal.json``, ``rehearsal.md`` and ``rehearsal.png``."""
    record = {"command": command, "about": PREDICTED, "results": list(results)}
    files.replace(folder / "rehearsal.json", files.to_json(record, indent=2) + "\n")
    text = f"# {about}\n\n{PREDICTED} `{command}`\n\n{table(results)}\n"
    files.replace(folder / "rehearsal.md", text)
    if any(result["fits"] for result in results):
        draw(results, folder / "rehearsal.png", about)


def draw(results: Sequence[Result], path: pathlib.Path, title: str) -> None:
    """Memory, time and bytes of each slice, as a PNG."""
    shown = [result for result in results if result["fits"]]
    names = [result["topology"] for result in shown]
    places = range(len(shown))
    drawn = figures.empty((10, 3.4), f"{title}. {PREDICTED}", fontsize=10)
    memory, step, sent = drawn.subplots(1, 3)
    memory.bar(names, [r["memory"]["peak"] / 2**30 for r in shown], color="#0072B2")
    for place, result in zip(places, shown, strict=True):
        limit = result["hbm_bytes"] / 2**30
        memory.plot([place - 0.4, place + 0.4], [limit, limit], "k--", lw=1)
    memory.set_title("peak memory of a chip, and all of it (GiB)", fontsize=9)
    width = 0.8 / len(_COLORS)
    for i, (name, color) in enumerate(_COLORS.items()):
        step.bar(
            [place + (i - 1) * width for place in places],
            [1e3 * r["seconds"][name] for r in shown],
            width,
            color=color,
            label=name,
        )
    compiler = [1e3 * r["seconds"]["compiler"] for r in shown]
    step.plot(places, compiler, "kx", label="by the compiler")
    step.set_title("a step (ms)", fontsize=9)
    step.legend(fontsize=7)
    step.set_xticks(list(places), names)
    kinds = sorted({row["place"] for r in shown for row in r["collectives"]})
    below = [0.0] * len(shown)
    for kind, color in zip(kinds, itertools.cycle(COLORS)):
        rows = [
            sum(row["sent"] for row in r["collectives"] if row["place"] == kind) / 1e6
            for r in shown
        ]
        sent.bar(names, rows, bottom=below, label=kind, color=color)
        below = [a + b for a, b in zip(below, rows, strict=True)]
    sent.set_title("sent by a chip in a step (MB)", fontsize=9)
    if kinds:
        sent.legend(fontsize=7)
    for axes in (memory, step, sent):
        axes.tick_params(labelsize=7)
        axes.tick_params(axis="x", rotation=30)
    figures.save(drawn, path)
