"""Compares methods on one run card over several seeds: a table, a picture, a JSON file.

    python -m experiments.training.compare --card=configs/digits_noisy_sam.py \
        --methods=sgd,sam --seeds=5 --out=experiments/training/results/digits_noisy

Settings for all runs follow as ``--config.key=value``. Every run has a folder of its
own below ``--runs``; the same command again continues, without what is finished.
"""

import argparse
import hashlib
import io
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib import figure

from experiments import commands
from experiments.benchmarks import measure
from sam_jax.train import cards, files, loop, metrics

# One colour per method, in the order given; colour-blind safe (Okabe and Ito).
COLORS = ("#555555", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@commands.ends
def main(argv: Sequence[str]) -> int:
    """Runs the comparison of the command line.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code.
    """
    args, overrides = parsed(commands.parser(__doc__), argv, ["sgd", "sam"], seeds=5)
    try:
        runs = {
            method: [
                train(args.card, method, seed, overrides, args.runs)
                for seed in range(args.seeds)
            ]
            for method in args.methods
        }
    except loop.Stopped as stopped:
        print(f"{stopped}; the same command continues")
        return 128 + stopped.signal
    summary = summarize(runs)
    command = shlex.join(["python", "-m", "experiments.training.compare", *argv])
    record = {"command": command, "machine": measure.machine(), "methods": summary}
    files.replace(args.out / "results.json", files.to_json(record, indent=2) + "\n")
    files.replace(args.out / "table.md", table(summary) + "\n")
    draw(runs, args.out / "curves.png", pathlib.Path(args.card).stem)
    print(table(summary))
    return 0


def parsed(
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    methods: Sequence[str],
    seeds: int,
) -> tuple[argparse.Namespace, list[str]]:
    """Parses a command line over methods and seeds, and tries all that it names.

    Args:
        parser: with the flags that it has alone.
        argv: the arguments after the program's name.
        methods: unless they are given.
        seeds: likewise, their number.

    Returns:
        The flags' values, and the settings for all runs.

    Raises:
        UserError: if a flag, a setting, the card or a method will not do.
    """
    several = commands.several(str)
    parser.add_argument("--card", required=True, help="run card")
    parser.add_argument("--methods", type=several, default=methods, help="a,b,c")
    parser.add_argument("--seeds", type=commands.count, default=seeds, help="runs each")
    parser.add_argument("--out", type=commands.folder, required=True, help="of results")
    parser.add_argument("--runs", type=commands.folder, default="runs", help="of runs")
    args, overrides = commands.with_settings(parser, argv)
    for method in args.methods:
        cards.load(f"{args.card}:{method}", *overrides)
    use_compilation_cache()
    return args, overrides


def use_compilation_cache() -> None:
    """Keeps compiled programs where the trainer's command line does."""
    cache = os.path.expanduser("~/.cache/sam_jax/xla")
    jax.config.update("jax_compilation_cache_dir", cache)


def train(
    card: str, method: str, seed: int, overrides: Sequence[str], root: pathlib.Path
) -> dict[str, Any]:
    """One run, or what it left behind if it is finished.

    Returns:
        ``results`` of the run and its ``history``; None and nothing if it diverged.
    """
    config = cards.load(f"{card}:{method}", *overrides, f"--config.seed={seed}")
    folder = root / folder_name(card, method, seed, overrides)
    try:
        results = loop.train_and_evaluate(config, folder)
    except loop.Diverged as error:
        print(f"{folder} diverged: {error}", file=sys.stderr)
        return {"results": None, "history": []}
    return {
        "results": results,
        "history": metrics.read_history(folder / metrics.METRICS_FILE),
    }


def folder_name(card: str, method: str, seed: int, overrides: Sequence[str]) -> str:
    """Of a run; a long one ends in a digest, as file systems take 255 bytes.

    Example:
        >>> folder_name("configs/digits_sam.py", "sam", 0, ["--config.epochs=3"])
        'digits_sam_epochs=3_sam_seed0'
    """
    settings = re.sub(r"[^\w.=-]", "", "_".join(overrides).replace("--config.", ""))
    name = "_".join(filter(None, [pathlib.Path(card).stem, settings, method]))
    if len(name.encode()) > 200:
        digest = hashlib.sha256(name.encode()).hexdigest()
        name = f"{name[:40]}_{digest[:16]}_{method}"
    return f"{name}_seed{seed}"


def summarize(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Test errors in percent over the seeds.

    Returns:
        Method -> ``last`` and ``best`` (of the last epoch, and of the epoch that was
        best on the validation set): mean, standard deviation (n - 1) and all values,
        of the runs that did not diverge; ``diverged``, how many did, if any.
    """
    summary = {}
    for method, of_method in runs.items():
        results = [run["results"] for run in of_method if run["results"]]
        entry: dict[str, Any] = {"seeds": len(of_method)}
        if len(results) < len(of_method):
            entry["diverged"] = len(of_method) - len(results)
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
        lost = f" ({entry['diverged']} diverged)" if "diverged" in entry else ""
        lines.append(f"| {method} | {entry['seeds']}{lost} | {cells[0]} | {cells[1]} |")
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
            finished = [run["history"] for run in of_method if run["results"]]
            curves = [_curve(history, split, metric) for history in finished]
            if not curves:
                continue
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
        if axes.lines:
            axes.legend(frameon=False)
    seeds = len(next(iter(runs.values())))
    fig.suptitle(f"{title}: mean and standard deviation of {seeds} seeds")
    save(fig, path)


def save(fig: figure.Figure, path: pathlib.Path) -> None:
    """Writes a picture whole or not at all."""
    picture = io.BytesIO()
    fig.savefig(picture, format="png", dpi=150)
    files.replace(path, picture.getvalue())


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
