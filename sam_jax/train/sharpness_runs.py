"""The sharpness of finished runs: measured, shown, written into their folders."""

import os
import pathlib
from collections.abc import Sequence

from sam_jax import errors
from sam_jax.train import files, loaded, report, sharpness, sharpness_files
from sam_jax.train.slices import PICTURES
from sam_jax.train.subject import Asked, Losses, Subject, drawn

_ALL = dict(sharpness.MEASURES) | dict(PICTURES)


def measure_runs(
    folders: Sequence[str | os.PathLike[str]],
    measures: str | Sequence[str],
    asked: Asked,
    shown: report.Report,
    out: pathlib.Path | None = None,
    *,
    step: int | str = "last",
    own_code: bool = False,
    data_dir: str | None = None,
) -> dict[str, dict[str, sharpness.Record]]:
    """Measures runs, one after the other.

    Args:
        folders: of the runs.
        measures: names of measures and pictures, or a text with commas between them.
        asked: on what, and how.
        shown: shows progress, and the table.
        out: also a folder of table and pictures of all runs together.
        step: which weights; see `loaded.load_run`.
        own_code: whether files that settings name may be run.
        data_dir: where the data are, if they have moved.

    Returns:
        Folder -> name -> record.

    Raises:
        UserError: if there is no such measure, a folder holds no run, its data are not
            there, or are another's, or something is not finite.
    """
    names = sharpness.names_of(measures, _ALL, "--measures")
    chosen = {name: _ALL[name] for name in names}
    runs = {
        str(folder): loaded.load_run(folder, step, own_code=own_code)
        for folder in folders
    }
    if out:
        if out.resolve() in {run.folder.resolve() for run in runs.values()}:
            raise errors.UserError(
                f"--out={out} is the folder of a run, which has a "
                f"{sharpness_files.FILE} of its own: give another folder"
            )
        files.make_folder(out, "--out")
    found: dict[str, dict[str, sharpness.Record]] = {}
    shown.progress(0, len(runs) * len(chosen), 1)
    for label, run in runs.items():
        others = [other for other in runs.values() if other is not run]
        subject = _subject(run, asked, next(iter(others), None), data_dir)
        records = found.setdefault(label, {})
        try:
            for name, record in sharpness.measure(subject, chosen):
                records[name] = record
                shown.step(sum(map(len, found.values())), {})
                value = sharpness_files.value(record) if "value" in record else "done"
                cost = sharpness_files.cost(record)
                shown.message(f"{label}, step {run.step}: {name} {value} ({cost})")
        finally:  # what is measured stays, if the next one is refused or interrupted
            if records:
                sharpness_files.write(run.folder, *sharpness_files.parted(records))
    tables = {
        label: sharpness_files.parted(records)[0] for label, records in found.items()
    }
    rows = sharpness_files.rows(tables)
    shown.summary(rows if any(tables.values()) else [], _fields(found, out))
    if out:
        _write_together(out, found, rows)
    return found


def _subject(
    run: loaded.LoadedRun,
    asked: Asked,
    end: loaded.LoadedRun | None,
    data_dir: str | None,
) -> Subject:
    dataset = run.own_data(data_dir)
    run.check_classes(dataset)
    source = drawn(dataset.train, asked.examples, asked.seed)
    return Subject(run, source, Losses.of_run(run), asked, end)


def _fields(
    found: dict[str, dict[str, sharpness.Record]], out: pathlib.Path | None
) -> dict[str, str]:
    """What to say below the table."""
    every = [one for records in found.values() for one in records.values()]
    examples, norms = (
        " or ".join(dict.fromkeys(str(one[key]) for one in every))
        for key in ("examples", "batch_norm")
    )
    return {
        "examples": f"{examples}, of the training set",
        "BatchNorm": f"as in {norms}",
        "time": report.duration(sum(one["seconds"] for one in every)),
        "written to": str(out or f"{sharpness_files.FILE} and pictures in each folder"),
    }


def _write_together(
    out: pathlib.Path,
    found: dict[str, dict[str, sharpness.Record]],
    rows: Sequence[dict[str, str]],
) -> None:
    """Numbers, table and pictures of all runs."""
    files.replace(out / sharpness_files.FILE, files.to_json(found, indent=1) + "\n")
    if rows:
        table = report.markdown([rows[0], *(row.values() for row in rows)])
        files.replace(out / "table.md", table)
    drawn = dict.fromkeys(
        k for records in found.values() for k in sharpness_files.parted(records)[1]
    )
    for name in drawn:
        of_runs = {label: records[name] for label, records in found.items()}
        if len({pathlib.Path(label).name for label in of_runs}) == len(of_runs):
            of_runs = {pathlib.Path(k).name: record for k, record in of_runs.items()}
        sharpness_files.draw(name, of_runs, out / f"sharpness_{name}.png")
