"""What a run has achieved, from its history."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from sam_jax.train import curves, metrics, report

RESULTS_FILE = "results.json"
CURVES_FILE = "curves.png"


def collect(folder: pathlib.Path, progress: Mapping[str, Any]) -> dict[str, Any]:
    """Collects the results of a run and writes them to ``results.json``.

    Args:
        folder: of the run.
        progress: as kept in its checkpoints.

    Returns:
        ``last``: step, epoch and scores ("validation", "test" -> loss, accuracy) of the
        last evaluation; ``best``: the same of the one that was best on the validation
        set, the first of equals, None without such a set; ``seconds``: spent training
        and evaluating, over all starts; ``skipped``: updates that were not finite and
        left out.
    """
    evaluations = {}
    for row in metrics.read_history(folder / metrics.METRICS_FILE):
        if row["split"] != "train":
            entry = evaluations.setdefault(
                row["step"], {"step": row["step"], "epoch": row["epoch"]}
            )
            entry[row["split"]] = {k: row[k] for k in ("loss", "accuracy")}
    results = {
        "last": evaluations[max(evaluations)] if evaluations else None,
        "best": evaluations[progress["best"]["step"]] if progress["best"] else None,
        "seconds": progress["seconds"],
        "skipped": progress["skipped"],
    }
    path = folder / RESULTS_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=2) + "\n")
    os.replace(temporary, path)
    return results


def rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of the results for `Report.summary`."""
    names = {"last": "last epoch", "best": "best on validation"}
    return [
        {
            "weights of": title,
            "epoch": results[key]["epoch"],
            **{
                f"{split} {name}": results[key][split][name]
                for split in ("validation", "test")
                if split in results[key]
                for name in ("loss", "accuracy")
            },
        }
        for key, title in names.items()
        if results[key]
    ]


def fields(results: Mapping[str, Any], folder: pathlib.Path) -> dict[str, str]:
    """What to say below the table."""
    skipped = results["skipped"]
    return {
        **({"left out": f"{skipped} updates, not finite"} if skipped else {}),
        "time": report.duration(results["seconds"]),
        "curves": str(folder / CURVES_FILE),
        "metrics": str(folder / metrics.METRICS_FILE),
    }


@contextlib.contextmanager
def pictures(folder: pathlib.Path) -> Iterator[None]:
    """Draws ``curves.png`` at the end, also of a run that is stopped or fails."""
    try:
        yield
    finally:
        history = metrics.read_history(folder / metrics.METRICS_FILE)
        if history:
            curves.draw_curves(history, folder / CURVES_FILE, folder.resolve().name)
