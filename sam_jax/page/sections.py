"""The sections of a report: what each shows of the runs."""

import json
import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from sam_jax.page import charts, curves, predictions, sharpness
from sam_jax.page.markup import Html, escaped, figure, grid, paragraph, table
from sam_jax.page.seen import Seen, legend
from sam_jax.train import comparison, comparison_files, report, settings, typed
from sam_jax.train.comparison import Run
from sam_jax.train.spread import significant

ERROR = "test error (%)"


def head(seen: Seen) -> Html:
    """What was run, how it ended, and the numbers to remember."""
    first = seen.groups[0].runs[0]
    flat = first.settings
    every = [group.runs[0].settings for group in seen.groups]
    common = {
        name: flat[name]
        for name in ("data.name", "model.name", "epochs")
        if all(other[name] == flat[name] for other in every)
    }
    if "epochs" in common:
        common["epochs"] = f"{common['epochs']} epochs"
    what = ", ".join(common.values())
    seeds = sum(len(group.runs) for group in seen.groups)
    if not seen.single:
        what += f"; {len(seen.groups)} settings, {seeds} runs"
    else:
        what = f"{seen.groups[0].label}: {what}, seed {first.seed}"
    notes = "".join(paragraph(note, "note") for note in seen.notes)
    return Html(paragraph(what, "soft") + notes + _tiles(seen))


def _tiles(seen: Seen) -> Html:
    """The numbers of a single group."""
    if len(seen.groups) > 1:
        return Html("")
    (group,) = seen.groups
    shown: dict[str, str] = {}
    for name, measure in seen.measures.items():
        if spread := group.spread(measure):
            seeds = "" if spread.half is None else f", n = {spread.n}"
            shown[name + seeds] = spread.shown(3 if name in ("ECE", "NLL") else 2)
    if not shown and (latest := group.runs[0].curve("test", "accuracy")):
        error = 100 * (1 - latest[max(latest)])
        shown[f"test error (%) in epoch {max(latest)}"] = f"{error:.2f}"
    if time := group.values(comparison.TIME):
        shown["time"] = report.duration(statistics.median(time))
    tiles = "".join(
        f'<div class="tile"><b>{escaped(value)}</b>{escaped(name)}</div>'
        for name, value in shown.items()
    )
    return Html(f'<div class="tiles">{tiles}</div>')


def results(seen: Seen) -> Html:
    """Errors of all groups, and what differs from the first."""
    finished = [
        (group, style, spread)
        for group, style in zip(seen.groups, seen.styles, strict=True)
        if (spread := group.spread(ERROR))
    ]
    if not finished or seen.single:  # of which the head has the numbers
        return Html("")
    parts = []
    if len(finished) > 1:
        rows = [
            (group.label, style, group.values(ERROR), spread.mean, spread.half)
            for group, style, spread in finished
        ]
        about = "test error of every group, with its seeds and its interval"
        picture = charts.dot_chart(rows, "test error after the last epoch (%)", about)
        parts += [legend(seen), f'<div class="grid">{figure("", picture)}']
        parts += [_sentence(seen), "</div>"]
    shown = comparison_files.cells(seen.groups)
    parts.append(table(shown[0], shown[1:]))
    parts.append(paragraph(comparison_files.caption(shown), "soft"))
    parts.append(_differences(seen))
    return Html("".join(parts))


def _sentence(seen: Seen) -> Html:
    """Which group is best, and what is known of that."""
    spreads = [(group.spread(ERROR), group) for group in seen.groups]
    best, group = min(
        ((s, g) for s, g in spreads if s), key=lambda found: found[0].mean
    )
    said = [f"{group.label} has the lowest mean test error, {best} % (n = {best.n})."]
    first = seen.groups[0]
    found = comparison.differences(seen.groups, ERROR)
    decided = significant(found)
    for number, other in enumerate(seen.groups):
        if (difference := found[number]) and (group in (first, other)):
            said.append(
                f"{other.label} minus {first.label}, seed by seed: {difference} points"
                f", {difference.tested}"
                + (", significant." if decided[number] else ".")
            )
    parts = "".join(paragraph(x) for x in said[:4])
    return Html(f"<div>{parts}</div>")


def _differences(seen: Seen) -> Html:
    """Of each group to the first one, by all measures."""
    found = {
        name: comparison.differences(seen.groups, measure)
        for name, measure in seen.measures.items()
    }
    found = {
        name: x
        for name, x in found.items()
        if name != ERROR and any(d and d.spread.n > 1 for d in x)  # it stands above
    }
    if not found:
        return Html("")
    decided = {name: significant(x) for name, x in found.items()}
    rows = []
    for number, group in enumerate(seen.groups[1:], start=1):
        cells: list[object] = [group.label]
        for name, differences in found.items():
            difference = differences[number]
            if difference is None:
                cells.append("–")
                continue
            digits = 4 if name in ("ECE", "NLL") else 2
            shown = escaped(difference.shown(digits))
            word = ", significant" if decided[name][number] else ""
            small = escaped(f"{difference.tested}{word}")
            cells.append(Html(f"{shown}<br><small>{small}</small>"))
        rows.append(cells)
    title = Html(f"<h3>Less {escaped(seen.groups[0].label)}, seed by seed</h3>")
    said = (
        "Mean difference ± half of its 95 % t-interval, p of the paired t-test. "
        "The differences of a column are judged together (Holm), on five pairs or more."
    )
    return Html(title + table(["run", *found], rows) + paragraph(said, "soft"))


def over_epochs(seen: Seen) -> Html:
    """What was logged, over the epochs."""
    runs = [len(group.runs) > 1 for group in seen.groups]
    band = "Lines are means over the seeds, bands reach from the lowest to the highest."
    found = curves.figures(seen.drawn)
    said = paragraph(band, "soft") if any(runs) else ""
    return Html(legend(seen) + said + grid(found) if found else "")


def cost(seen: Seen) -> Html:
    """Time of the runs and of an update, beside the first group."""
    rows, base = [], None
    for group in seen.groups:
        times = group.values(comparison.TIME)
        rates = [rate for run in group.runs if (rate := _rate(run))]
        if not (times or rates):
            continue
        size = 1000 * group.runs[0].settings["batch_size"]
        step = size / statistics.median(rates) if rates else None
        base = base or step
        ratio = f"{step / base:.2f}" if step and base else "–"
        rows.append(
            [
                group.label,
                report.duration(statistics.median(times)) if times else "–",
                f"{step:.3g}" if step else "–",
                f"{1000 * group.runs[0].settings['batch_size'] / step:,.0f}"
                if step
                else "–",
                ratio,
            ]
        )
    if not rows:
        return Html("")
    titles = [
        "run",
        "time",
        "ms per update",
        "examples per second",
        "cost of an update",
    ]
    if len(rows) == 1:
        titles, rows = titles[:-1], [row[:-1] for row in rows]
    said = (
        "Medians; time is of training and evaluating, over all starts. An update is "
        "timed without evaluations and checkpoints, on the machine of the run"
        + ("; its cost is in units of the first row's." if len(rows) > 1 else ".")
    )
    return Html(table(titles, rows) + paragraph(said, "soft"))


def _rate(run: Run) -> float | None:
    """Examples per second, as the run has logged them."""
    found = [row.get("examples_per_second", 0.0) for row in run.history]
    found = [rate for rate in found if 0 < rate < math.inf]
    return statistics.median(found) if found else None


def settings_of(seen: Seen) -> Html:
    """All settings; what differs between groups, or from the defaults, stands out."""
    defaults = settings.flat(json.loads(json.dumps(typed.plain(settings.Settings()))))
    flat = seen.groups[0].runs[0].settings
    differing = list(dict.fromkeys(key for g in seen.groups for key in g.settings))
    parts = []
    if differing:
        rows = [
            [key, *(group.runs[0].settings.get(key, "–") for group in seen.groups)]
            for key in differing
        ]
        labels = [group.label for group in seen.groups]
        parts.append(table(["differs", *labels], rows, "words", [True] * len(rows)))
    common = {k: v for k, v in flat.items() if k not in differing and k != "seed"}
    shown = "".join(
        f"<div{_marked(defaults, key, value)}><dt>{escaped(key)}</dt>"
        f"<dd>{escaped(_value(value))}</dd></div>"
        for key, value in sorted(common.items())
    )
    listed = f'<dl class="settings">{shown}</dl>'
    title = "Common to all" if len(seen.groups) > 1 else "All settings"
    said = "Marked: other than the default."
    opened = "" if len(seen.groups) > 1 else " open"
    seeds = sorted({run.seed for group in seen.groups for run in group.runs})
    said += f" Seeds: {', '.join(map(str, seeds))}."
    parts.append(
        f"<details{opened}><summary>{title}</summary>{listed}{paragraph(said, 'soft')}"
        "</details>"
    )
    return Html("".join(parts))


def _marked(defaults: Mapping[str, Any], key: str, value: Any) -> str:
    same = key in defaults and defaults[key] == value
    return "" if same else ' class="differs"'


def _value(value: Any) -> str:
    return "–" if value is None else str(value)


SECTIONS: Mapping[str, Callable[[Seen], Html]] = {
    "Results": results,
    "Curves": over_epochs,
    "Calibration": predictions.calibration,
    "Confusion": predictions.confusion,
    "Mistakes": predictions.mistakes,
    "Sharpness": lambda seen: sharpness.section(
        seen.groups, seen.drawn, seen.sharpness
    ),
    "Time": cost,
    "Settings": settings_of,
}
