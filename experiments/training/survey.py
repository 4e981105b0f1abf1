"""Which method to use: all of them on one run card, at equal epochs and at equal time.

    python -m experiments.training.survey --card=configs/digits_noisy_sam.py \
        --out=experiments/training/results/survey_digits_noisy

For each method three radii are tried with the first seed: its fragment's, and multiples
of it (``--factors``); the accuracy of the last epoch on the validation set chooses. The
other seeds then run with that radius, for the card's epochs and, where a step costs
another time than SAM's, once more for as many epochs as SAM's time allows, with the
same radius. Step times are measured first, in turns, and kept in ``costs.json``.
Settings for all runs follow as ``--config.key=value``; the same command again
continues, without what is finished.
"""

import itertools
import math
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib import figure

from experiments import commands
from experiments.benchmarks import measure
from experiments.training import compare
from sam_jax import errors, methods
from sam_jax.train import build, cards, files, loop, sharding

BASELINE, REFERENCE = "sgd", "sam"
UPDATES = 20
SAME_TIME = 0.1  # relative difference of step times that counts as none


@commands.ends
def main(argv: Sequence[str]) -> int:
    """Runs the survey of the command line.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code.
    """
    parser = commands.parser(__doc__)
    factors, default = commands.several(commands.positive), [1.0, 3.0, 10.0]
    parser.add_argument(
        "--factors", type=factors, default=default, help="of the radius"
    )
    parser.add_argument("--rounds", type=commands.count, default=7, help="of times")
    names = [BASELINE, *methods.names()]
    args, overrides = compare.parsed(parser, argv, names, seeds=3)
    settings = cards.load(f"{args.card}:{REFERENCE}", *overrides)
    if not settings.data.validation:
        raise errors.UserError(
            "the radii are chosen by the validation set, and config.data.validation is "
            "0: give a share of the training set, such as --config.data.validation=0.1"
        )
    try:
        chosen = list(dict.fromkeys([REFERENCE, *args.methods]))
        costs = measured_once(
            args.out / "costs.json",
            chosen,
            lambda: step_times(args.card, chosen, overrides, args.rounds),
        )
        survey = {
            method: of_method(
                args.card,
                method,
                costs[method],
                args.factors,
                args.seeds,
                overrides,
                args.runs,
            )
            for method in chosen
        }
    except loop.Stopped as stopped:
        print(f"{stopped}; the same command continues")
        return 128 + stopped.signal
    command = shlex.join(["python", "-m", "experiments.training.survey", *argv])
    record = {"command": command, "machine": measure.machine(), "methods": survey}
    files.replace(args.out / "results.json", files.to_json(record, indent=2) + "\n")
    files.replace(args.out / "table.md", table(survey) + "\n")
    draw(survey, args.out / "errors.png", pathlib.Path(args.card).stem)
    print(table(survey))
    return 0


def measured_once(
    path: pathlib.Path,
    names: Sequence[str],
    measure_all: Callable[[], dict[str, float]],
) -> dict[str, float]:
    """Step times from a file, measured and written if it does not have all of them.

    A continued survey would otherwise train for another number of epochs.

    Raises:
        UserError: if the file is there, but damaged.
    """
    damaged, remedy = f"{path} is damaged", "delete it, and times are measured again"
    with errors.translated(damaged, remedy):
        known = files.from_json(path.read_bytes()) if path.exists() else {}
    times = known.values() if isinstance(known, dict) else [None]
    if not all(isinstance(time, float) and 0 < time < math.inf for time in times):
        raise errors.UserError(f"{damaged}: it must have a time for each; {remedy}")
    if not set(names) <= known.keys():
        known = measure_all()
        files.replace(path, files.to_json(known, indent=2) + "\n")
    return known


def step_times(
    card: str, names: Sequence[str], overrides: Sequence[str], rounds: int
) -> dict[str, float]:
    """Time of an update of each method in units of SAM's, measured in turns.

    `UPDATES` of them are one time, so that those without a second gradient count with
    their share.

    Returns:
        Method -> median over the rounds of the ratio to SAM's time.
    """
    runners = {}
    for name in names:
        run = build.build(cards.load(f"{card}:{name}", *overrides))
        batches = run.dataset.train.batches(
            batch_size=run.config.batch_size, seed=run.config.seed
        )
        first = itertools.islice(batches, UPDATES)
        runners[name] = _Updates(run, [sharding.put_batch(x, run.mesh) for x in first])
        runners[name]()
    times = measure.in_turns(runners, rounds)
    return {name: measure.ratio(times[name], times[REFERENCE]).median for name in names}


class _Updates:
    """Does an update of a run on each of some batches and waits for them."""

    def __init__(self, run: build.Run, batches: Sequence[Any]) -> None:
        self._run, self._batches = run, batches
        self._state = run.init(run.seed)

    def __call__(self) -> None:
        for batch in self._batches:
            self._state, _ = self._run.train_step(self._state, batch)
        jax.block_until_ready(self._state)


def of_method(
    card: str,
    method: str,
    cost: float,
    factors: Sequence[float],
    seeds: int,
    overrides: Sequence[str],
    root: pathlib.Path,
) -> dict[str, Any]:
    """Tunes the radius of one method, then trains it with every seed.

    Args:
        card: path of the run card.
        method: its name.
        cost: time of an update in units of SAM's.
        factors: of the fragment's radius, to try.
        seeds: runs.
        overrides: settings for all runs.
        root: for the runs' folders.

    Returns:
        ``cost``; ``tried``, radius -> validation error of the last epoch (%); ``rho``;
        ``equal_epochs`` and ``equal_time``: number of epochs, mean, standard deviation
        (n - 1) and values of the last epoch's test error (%). A run that diverges has
        an error of 100 %.
    """
    settings = cards.load(f"{card}:{method}", *overrides)

    def trained(rho: float | None, epochs: int, seed: int) -> dict[str, Any]:
        changes = [*overrides, f"--config.epochs={epochs}"]
        changes += [] if rho is None else [f"--config.method.rho={rho:g}"]
        results = compare.train(card, method, seed, changes, root)["results"]
        diverged = {split: {"accuracy": 0.0} for split in ("validation", "test")}
        return results["last"] if results else diverged

    first = settings.method.coefficients.get("rho")
    radii = [None]
    if isinstance(first, int | float):
        radii = [round(f * first, 6) for f in factors]
    tried = {
        rho: _error(trained(rho, settings.epochs, 0), "validation") for rho in radii
    }
    rho = min(tried, key=lambda radius: tried[radius])

    def summary(epochs: int) -> dict[str, Any]:
        values = [_error(trained(rho, epochs, seed), "test") for seed in range(seeds)]
        spread = float(np.std(values, ddof=1)) if seeds > 1 else 0.0
        return {
            "epochs": epochs,
            "mean": float(np.mean(values)),
            "std": spread,
            "values": values,
        }

    affordable = max(1, round(settings.epochs / cost))
    same = abs(cost - 1) < SAME_TIME
    return {
        "cost": cost,
        "tried": {str(radius): value for radius, value in tried.items()},
        "rho": rho,
        "equal_epochs": summary(settings.epochs),
        "equal_time": summary(settings.epochs if same else affordable),
    }


def _error(results: Mapping[str, Any], split: str) -> float:
    return round(100 * (1 - results[split]["accuracy"]), 4)


def table(survey: Mapping[str, Any]) -> str:
    """The survey as a Markdown table, the best first."""
    lines = [
        "| method | rho | time of an update / SAM's | test error at equal epochs (%) "
        "| epochs in SAM's time | test error at equal time (%) |",
        "|---|---|---|---|---|---|",
    ]
    for method in ranked(survey):
        entry = survey[method]
        epochs, time = entry["equal_epochs"], entry["equal_time"]
        rho = "–" if entry["rho"] is None else f"{entry['rho']:g}"
        lines.append(
            f"| `{method}` | {rho} | {entry['cost']:.2f} "
            f"| {epochs['mean']:.2f} ± {epochs['std']:.2f} | {time['epochs']} "
            f"| {time['mean']:.2f} ± {time['std']:.2f} |"
        )
    return "\n".join(lines)


def ranked(survey: Mapping[str, Any]) -> list[str]:
    """The methods by their error at equal epochs."""
    return sorted(survey, key=lambda method: survey[method]["equal_epochs"]["mean"])


def draw(survey: Mapping[str, Any], path: pathlib.Path, title: str) -> None:
    """Means and standard deviations of all methods, in two panels.

    Args:
        survey: method -> what `of_method` returns.
        path: of the PNG file.
        title: of the picture.
    """
    order = ranked(survey)[::-1]
    fig = figure.Figure(figsize=(9, 1.2 + 0.24 * len(order)), layout="constrained")
    panels = fig.subplots(1, 2, sharex=True, sharey=True)
    captions = ("at equal epochs", "at equal time")
    for axes, key, caption in zip(
        panels, ("equal_epochs", "equal_time"), captions, strict=True
    ):
        for place, method in enumerate(order):
            entry = survey[method][key]
            color = {BASELINE: "#555555", REFERENCE: "#D55E00"}.get(method, "#0072B2")
            axes.errorbar(
                entry["mean"], place, xerr=entry["std"], fmt="o", color=color, ms=4
            )
        axes.axvline(survey[REFERENCE][key]["mean"], color="#D55E00", lw=0.8, ls="--")
        axes.set_yticks(range(len(order)), order, fontsize=8)
        axes.set_xlabel("test error of the last epoch (%)")
        axes.set_title(caption, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    fig.suptitle(f"{title}: mean and standard deviation")
    compare.save(fig, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
