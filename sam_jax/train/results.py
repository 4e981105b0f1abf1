"""What a run has achieved, and the files that show it."""

import pathlib
from collections.abc import Mapping
from typing import Any

from sam_jax import errors
from sam_jax.train import files, metrics, report

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"


def collect(folder: pathlib.Path, progress: Mapping[str, Any]) -> dict[str, Any]:
    """Collects the results of a run and writes them to ``results.json``.

    Returns:
        ``last``: step, epoch and scores ("validation", "test" -> loss, accuracy and
        the user's metrics) of the last evaluation; ``best``: the same of the one that
        was best on the validation set, the first of equals, None without such a set;
        ``seconds``: spent training and evaluating, over all starts; ``skipped``:
        updates that were not finite and left out; ``plans``: for how many epochs the
        run was planned, from which update on.
    """
    last, best = progress["last"], progress["best"]
    if last is None or (best and "epoch" not in best):  # of an earlier version
        evaluations = _evaluations(folder)
        last = last or evaluations.get(max(evaluations, default=None))
        best = best and evaluations.get(best["step"])
    results = {"last": last, "best": best}
    results |= {name: progress[name] for name in ("seconds", "skipped", "plans")}
    files.replace(folder / RESULTS_FILE, files.to_json(results, indent=2) + "\n")
    return results


def _evaluations(folder: pathlib.Path) -> dict[Any, dict[str, Any]]:
    """Step to step, epoch and scores, from the history."""
    found: dict[Any, dict[str, Any]] = {}
    for row in metrics.read_history(folder / metrics.METRICS_FILE):
        if row["split"] != "train" and {"epoch", "loss", "accuracy"} <= row.keys():
            first = {"step": row["step"], "epoch": row["epoch"]}
            entry = found.setdefault(row["step"], first)
            entry[row["split"]] = {k: row[k] for k in ("loss", "accuracy")}
    return found


def refuse_finished(folder: pathlib.Path) -> None:
    """Refuses to start again over the results of a run whose checkpoints are gone."""
    if (folder / RESULTS_FILE).exists():
        raise errors.UserError(
            f"{folder} has the results of a finished run, but no checkpoint: give "
            f"another --workdir, or delete {RESULTS_FILE} to train again"
        )


def complete(folder: pathlib.Path, progress: Mapping[str, Any]) -> bool:
    """Whether all that shows a finished run is there.

    The results come last: without them, not all writers were closed.
    """
    return (
        (folder / RESULTS_FILE).is_file()
        and metrics.TensorBoard.has_events(folder)
        and metrics.is_whole(folder, progress["metrics"])
    )


def rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of the results for `Report.summary`."""
    names = {"last": "last epoch", "best": "best on validation"}
    return [
        {
            "weights of": title,
            "epoch": results[key]["epoch"],
            **{
                f"{split} {name}": value
                for split in ("validation", "test")
                if split in results[key]
                for name, value in results[key][split].items()
            },
        }
        for key, title in names.items()
        if results[key]
    ]


def fields(results: Mapping[str, Any], folder: pathlib.Path) -> dict[str, str]:
    """What to say below the table."""
    shown = {"report": REPORT_FILE, "metrics": metrics.METRICS_FILE}
    skipped = results["skipped"]
    return {
        **({"left out": f"{skipped} updates, not finite"} if skipped else {}),
        "time": report.duration(results["seconds"]),
        **{k: str(folder / x) for k, x in shown.items() if (folder / x).is_file()},
    }
