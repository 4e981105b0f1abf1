"""``sam-jax report``: one page of a run, or of several side by side."""

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sam_jax import commands, errors, storage

if TYPE_CHECKING:
    from sam_jax.train import comparison


@commands.ends
def main(arguments: Sequence[str]) -> int:
    """Writes the page."""
    made = commands.parser(
        "report",
        "Writes one HTML page of runs, finished or not: results over seeds, with their "
        "differences to the first setting, curves, calibration, confusions, mistakes, "
        "sharpness, time, settings. It opens without a network. Trains nothing.",
        "sam-jax report runs/sgd_* runs/sam_* --out=sgd_and_sam.html",
    )
    commands.add_runs(made)
    made.add_argument(
        "--out", help="the page; report.html in a single RUN, or here, by default"
    )
    made.add_argument(
        "--no_images",
        action="store_true",
        help="without images of wrong predictions, as for a page to publish",
    )
    made.add_argument(
        "--evaluate",
        action="store_true",
        help="evaluate the last weights of runs that keep no predictions (scores.json)",
    )
    commands.add_data_dir(made)
    commands.add_own_code(made)
    given = made.parse_args(arguments)

    from sam_jax import page
    from sam_jax.train import comparison

    out = page.place(given.runs, given.out)
    groups = comparison.of_paths(given.runs, tuned=given.tuned, unfinished=True)
    if given.evaluate:
        _evaluate(groups, given.data_dir, given.own_code)
    command = shlex.join(["sam-jax", "report", *arguments])
    only = storage.path(given.runs[0]).resolve().name
    title = only if len(given.runs) == 1 else out.stem
    page.write(out, groups, title, command, images=not given.no_images)
    print(out)
    return 0


def _evaluate(
    groups: Sequence["comparison.Group"], data_dir: str | None, own_code: bool
) -> None:
    """Writes the ``scores.json`` of runs that have none; says which cannot."""
    from sam_jax.train import examined

    missing = [
        run.folder
        for group in groups
        for run in group.runs
        if run.folder and run.last and not examined.is_of(run.folder, run.last)
    ]
    if not missing:
        return
    commands.start_jax(missing[0])
    from sam_jax.train import loaded

    for folder in missing:
        try:
            run = loaded.load_run(folder, "last", own_code=own_code)
            dataset = run.own_data(data_dir)
            found = run.evaluate(dataset)
        except errors.UserError as error:
            print(f"warning: {folder} is not evaluated: {error}", file=sys.stderr)
            continue
        examined.write(folder, found, run.step, examined.images(dataset))
        print(f"evaluated {folder}", flush=True)
