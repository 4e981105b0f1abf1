"""Is what SAM finds flatter? At equal epochs, and at equal training loss.

    for seed in 0 1 2; do for method in sgd sam; do
    python -m sam_jax.main --config=configs/digits_noisy_sam.py:$method \
        --workdir=/tmp/digits/${method}_$seed --config.seed=$seed \
        --config.checkpoint.keep_every=40 --config.checkpoint.every_epochs=2
    done; done
    python -m experiments.training.sharpness /tmp/digits/* --examples=all \
        --out=experiments/training/results/sharpness_digits_noisy

Of each seed the run whose training loss ends highest is measured at its end, the others
at their end (equal epochs) and at the kept step whose training loss is nearest to that
(equal loss). Writes ``sharpness.json``, ``table.md`` and ``sharpness.png``.
"""

import collections
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments import commands
from sam_jax import errors
from sam_jax.train import (
    build,
    checkpoint,
    figures,
    files,
    loaded,
    report,
    sharpness,
)
from sam_jax.train.figures import COLORS
from sam_jax.train.slices import PICTURES
from sam_jax.train.spread import Spread
from sam_jax.train.subject import Asked, Losses, Subject, drawn

MEASURES = (
    *("loss", "lambda_max", "trace", "worst_case", "adaptive_worst_case"),
    *("m_sharpness", "sam_sharpness"),
)
ENDS, EQUAL = "equal epochs", "equal loss"

Row = dict[str, Any]


def near(subject: Subject, loss: float) -> Subject:
    """The same run at the kept step whose training loss is nearest to another."""
    kept = [subject.at(step) for step in checkpoint.kept(subject.run.folder)]
    return min(kept, key=lambda one: abs(_loss(one) - loss))


def _loss(subject: Subject) -> float:
    return sharpness.MEASURES["loss"].find(subject)["value"]


def subjects(folders: Sequence[str], asked: Asked) -> Mapping[int, dict[str, Subject]]:
    """The runs at their ends: seed -> method."""
    found: dict[int, dict[str, Subject]] = collections.defaultdict(dict)
    shared: dict[Any, Losses] = {}
    for folder in folders:
        run = loaded.load_run(folder, "last")
        source = build.load_data(run.config.data).train
        few = drawn(source, asked.examples, asked.seed)
        # Runs of one network are measured by the same programs.
        losses = shared.setdefault(repr(run.config.model), Losses.of_run(run))
        name = run.config.method.name.replace("none", "sgd")
        if name in found[run.config.seed]:
            raise errors.UserError(f"{folder}: two runs of {name} with one seed")
        found[run.config.seed][name] = Subject(run, few, losses, asked)
    return found


def measured(folders: Sequence[str], asked: Asked) -> Iterator[Row]:
    """A row for each run at its end and at equal loss."""
    for seed, ends in sorted(subjects(folders, asked).items()):
        losses = {name: _loss(subject) for name, subject in ends.items()}
        highest = max(losses, key=lambda name: losses[name])
        for name, subject in ends.items():
            first = {"method": name, "seed": seed} | row(subject)
            yield {"at": ENDS} | first
            if name != highest:
                first |= row(near(subject, losses[highest]))
            yield {"at": EQUAL} | first


def row(subject: Subject) -> Row:
    """What is measured of a run at a step."""
    known = dict(sharpness.MEASURES) | dict(PICTURES)
    chosen = {name: known[name] for name in (*MEASURES, "line")}
    found = dict(sharpness.measure(subject, chosen))
    line = found.pop("line")
    made = {
        "step": subject.run.step,
        "test_accuracy": subject.run.evaluate().accuracy,
        **{name: record["value"] for name, record in found.items()},
        "trace_standard_error": found["trace"]["standard_error"],
        "lambda_max_residual": found["lambda_max"]["residual"],
        "line": {key: line[key] for key in ("coordinates", "losses")},
    }
    shown = "  ".join(f"{name} {made[name]:.4g}" for name in ("step", *MEASURES))
    print(f"{subject.run.folder}: {shown}", flush=True)
    return made


def table(rows: Sequence[Row]) -> str:
    """Means over the seeds with 95 % t-intervals, as Markdown."""
    groups = dict.fromkeys((row["at"], row["method"]) for row in rows)
    names = ("step", "test_accuracy", *MEASURES)
    lines = [["at", "method", "seeds", *names]]
    for at, method in sorted(groups):
        of = [row for row in rows if (row["at"], row["method"]) == (at, method)]
        spreads = [Spread.of([float(row[name]) for row in of]) for name in names]
        lines.append([at, method, str(len(of)), *map(_cell, spreads)])
    return report.markdown(lines)


def _cell(spread: Spread | None) -> str:
    assert spread is not None
    return f"{spread.mean:.4g}" + f" ± {spread.half:.2g}" * (spread.half is not None)


def draw(rows: Sequence[Row], path: pathlib.Path) -> None:
    """The loss along random directions, less that at the weights, of every seed."""
    figure = figures.empty((9, 4.2), "Rise of the loss along a random direction")
    panels = figure.subplots(1, 2, sharey=True)
    methods = sorted({row["method"] for row in rows}, reverse=True)  # SGD, then SAM
    slots = figures.slots(methods)
    for axes, at in zip(panels, (ENDS, EQUAL), strict=True):
        for method, slot, dashes in zip(methods, slots, figures.LINES, strict=False):
            of = [r for r in rows if (r["at"], r["method"]) == (at, method)]
            along = of[0]["line"]["coordinates"][0]
            rise = np.array([np.subtract(r["line"]["losses"], r["loss"]) for r in of])
            color = COLORS[slot]
            style: dict = {"color": color, "linestyle": dashes, "lw": figures.WIDTH}
            label = f"{method.upper()}, {len(of)} seeds"
            axes.plot(along, rise.mean(0), label=label, **style)
            low, high = rise.min(0), rise.max(0)
            axes.fill_between(along, low, high, color=color, alpha=0.2, lw=0)
        axes.set_title(f"at {at}", fontsize=10)
        axes.set_xlabel("distance, relative to the norm of each filter")
        axes.set_xticks(np.linspace(-1, 1, 5))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, loc="upper center")
    panels[0].set_ylabel("rise of the training loss")
    figure.supxlabel("lines: means; bands: smallest to largest", fontsize=9)
    figures.save(figure, path)


@commands.ends
def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes."""
    made = commands.parser(__doc__)
    made.add_argument("runs", nargs="+", help="folders of runs that differ in the seed")
    made.add_argument("--examples", default="1000", help="a number, or all")
    made.add_argument("--rho", type=commands.positive, default=0.05)
    made.add_argument("--out", type=commands.folder, required=True)
    args = made.parse_args(argv)
    examples = None if args.examples == "all" else commands.count(args.examples)
    asked = Asked(examples=examples, rho=args.rho)
    rows = list(measured(args.runs, asked))
    about = {"examples": args.examples, "rho": args.rho, "batch_norm": asked.batch_norm}
    result = {"measured": about, "rows": rows}
    files.replace(args.out / "sharpness.json", files.to_json(result) + "\n")
    files.replace(args.out / "table.md", table(rows))
    draw(rows, args.out / "sharpness.png")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
