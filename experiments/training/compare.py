"""Compares methods on one run card over several seeds: a table, a picture, a JSON file.

    python -m experiments.training.compare --card=configs/digits_noisy_sam.py \
        --methods=sgd,sam --seeds=5 --out=experiments/training/results/digits_noisy

Settings for all runs follow as ``--config.key=value``. Every run has a folder of its
own below ``--runs``; the same command again continues, without what is finished.
"""

import argparse
import json
import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib import figure

from experiments.benchmarks import measure
from sam_jax import errors
from sam_jax.train import cards, loop, metrics

# One colour per method, in the order given; colour-blind safe (Okabe and Ito).
COLORS = ("#555555", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def main(argv: Sequence[str]) -> int:
    """Runs the comparison of the command line.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        description="Compare methods on a run card over several seeds."
    )
    parser.add_argument("--card", required=True, help="run card")
    parser.add_argument("--methods", default="sgd,sam", help="comma-separated")
    parser.add_argument("--seeds", type=int, default=5, help="runs per method")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="for results")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"))
    args, overrides = parser.parse_known_args(argv)
    use_compilation_cache()
    try:
        runs = {
            method: [
                train(args.card, method, seed, overrides, args.runs)
                for seed in range(args.seeds)
            ]
            for method in args.methods.split(",")
        }
    except errors.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except loop.Stopped as stopped:
        print(f"{stopped}; the same command continues")
        return 128 + stopped.signal
    args.out.mkdir(parents=True, exist_ok=True)
    summary = summarize(runs)
    command = "python -m experiments.training.compare " + " ".join(argv)
    record = {"command": command, "machine": measure.machine(), "methods": summary}
    (args.out / "results.json").write_text(json.dumps(record, indent=2) + "\n")
    (args.out / "table.md").write_text(table(summary) + "\n")
    draw(runs, args.out / "curves.png", pathlib.Path(args.card).stem)
    print(table(summary))
    return 0


def use_compilation_cache() -> None:
    """Keeps compiled programs where the trainer's command line does."""
    cache = os.path.expanduser("~/.cache/sam_jax/xla")
    jax.config.update("jax_compilation_cache_dir", cache)


def train(
    card: str, method: str, seed: int, overrides: Sequence[str], root: pathlib.Path
) -> dict[str, Any]:
    """One run, or what it left behind if it is finished.

    Returns:
        ``results`` of the run and its ``history``.
    """
    config = cards.load(f"{card}:{method}", *overrides, f"--config.seed={seed}")
    settings = re.sub(r"[^\w.=-]", "", "_".join(overrides).replace("--config.", ""))
    name = "_".join(filter(None, [pathlib.Path(card).stem, settings, method]))
    folder = root / f"{name}_seed{seed}"
    results = loop.train_and_evaluate(config, folder)
    return {
        "results": results,
        "history": metrics.read_history(folder / metrics.METRICS_FILE),
    }


def summarize(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Test errors in percent over the seeds.

    Returns:
        Method -> ``last`` and ``best`` (of the last epoch, and of the epoch that was
        best on the validation set): mean, standard deviation (n - 1) and all values.
    """
    summary = {}
    for method, of_method in runs.items():
        results = [run["results"] for run in of_method]
        entry: dict[str, Any] = {"seeds": len(results)}
        for key in ("last", "best"):
            values = [100 * (1 - r[key]["test"]["accuracy"]) for r in results if r[key]]
            if values:
                entry[key] = {
                    "mean": float(np.mean(values)),
                    "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
                    "values": [round(value, 4) for value in values],
                }
        summary[method] = entry
    return summary


def table(summary: Mapping[str, Any]) -> str:
    """The summary as a Markdown table."""
    lines = [
        "| method | seeds | test error, last epoch (%) | selected on validation (%) |",
        "|---|---|---|---|",
    ]
    for method, entry in summary.items():
        cells = [
            f"{entry[key]['mean']:.2f} ± {entry[key]['std']:.2f}"
            if key in entry
            else "–"
            for key in ("last", "best")
        ]
        lines.append(f"| {method} | {entry['seeds']} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def draw(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], path: pathlib.Path, title: str
) -> None:
    """Test error and fit of the training labels over the epochs; bands are one std.

    Args:
        runs: method -> runs.
        path: of the PNG file.
        title: of the picture.
    """
    fig = figure.Figure(figsize=(9, 3.6), layout="constrained")
    left, right = fig.subplots(1, 2)
    panels = (
        (left, "test", "accuracy", "test error (%)", True),
        (right, "train", "accuracy", "training labels fitted (%)", False),
    )
    for axes, split, metric, label, as_error in panels:
        for color, (method, of_method) in zip(COLORS, runs.items(), strict=False):
            curves = [_curve(run["history"], split, metric) for run in of_method]
            epochs = curves[0][0]
            values = 100 * np.array([curve[1] for curve in curves])
            values = 100 - values if as_error else values
            mean = values.mean(axis=0)
            axes.plot(epochs, mean, color=color, label=method, lw=1.6)
            if len(values) > 1:
                std = values.std(axis=0, ddof=1)
                axes.fill_between(
                    epochs, mean - std, mean + std, color=color, alpha=0.2, lw=0
                )
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    seeds = len(next(iter(runs.values())))
    fig.suptitle(f"{title}: mean and standard deviation of {seeds} seeds")
    fig.savefig(path, dpi=150)


def _curve(
    history: Sequence[Mapping[str, Any]], split: str, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of a metric; the rows of training are averaged per epoch."""
    rows = [row for row in history if row["split"] == split]
    epochs = np.ceil([row["epoch"] for row in rows])
    values = np.array([row[metric] for row in rows])
    unique = np.unique(epochs)
    return unique, np.array([values[epochs == epoch].mean() for epoch in unique])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
