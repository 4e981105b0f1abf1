"""Runs what is missing of a table, and keeps what each run has reached.

Each run has a folder of its own below a common one, which tables share and several
processes may work in: who holds a run's lock trains it. ``table.json`` keeps the
finished runs, so that their folders need not stay.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from experiments.benchmarks import measure
from experiments.training import robustness
from experiments.training import table as table_lib
from sam_jax import errors, locks
from sam_jax.train import (
    comparison,
    comparison_files,
    export,
    files,
    loaded,
    loop,
    settings,
    shared,
    sweep,
)

EXTRA = "extra.json"  # of a run folder: what this module knows of it
RECORD = "table.json"
LOSSES = "training_losses"  # of the epochs, in the record of a table with curves
PROGRAMS = 40  # compiled steps in memory together: seeds of many methods take turns

Plan = Mapping[str, settings.Settings]


@functools.cache
def commit() -> str:
    """Of this checkout; with a plus if something is changed in it."""
    words = ("git", "-C", str(measure.ROOT), "describe", "--always", "--dirty=+")
    return measure.output(*words, "--exclude=*") or "unknown"


def recorded(results: pathlib.Path) -> dict[str, comparison.Run]:
    """Identity -> finished run, of the records of all tables below a folder."""
    found = {}
    for path in sorted(results.glob(f"*/{RECORD}")):
        for run in comparison.read(path):
            found[table_lib.identity(run.settings)] = run
    return found


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        name: of the table, or path of its file.
        changes: of the settings of all runs.
        out: folder with a folder of results for each table.
        runs: folder of the run folders.
    """

    name: str
    changes: Sequence[str]
    out: pathlib.Path
    runs: pathlib.Path

    def state(self) -> tuple[table_lib.Table, list[comparison.Run], Plan]:
        """The table, its finished runs in the order of the plan, and those missing."""
        table = table_lib.load(self.name)
        plan = table_lib.planned(table, self.changes)
        self._refuse_others(table, plan)
        done = finished(plan, self.out, self.runs)
        missing = {name: each for name, each in plan.items() if name not in done}
        return table, list(done.values()), missing

    def _refuse_others(self, table: table_lib.Table, plan: Plan) -> None:
        """Refuses results with runs that the table does not have any more."""
        path = self.out / table.name / RECORD
        if not path.is_file():
            return
        known = {
            table_lib.identity(settings.flat_text(config)) for config in plan.values()
        }
        others = [
            run.name
            for run in comparison.read(path)
            if table_lib.identity(run.settings) not in known
        ]
        if others:
            raise errors.UserError(
                f"{path.parent} is of another version of the table: it has "
                f"{len(others)} runs that are not in this one ({others[0]}, ...): give "
                "another --out, or move it away; run folders are kept"
            )


def finished(
    plan: Plan, results: pathlib.Path, runs: pathlib.Path
) -> dict[str, comparison.Run]:
    """Those of the runs that are finished, by their names."""
    known, found = recorded(results), {}
    for name, config in plan.items():
        flat = settings.flat_text(config)
        run = known.get(table_lib.identity(flat))
        if (runs / name / EXTRA).is_file():
            run = _read(runs / name)
        if run is not None:
            mine = table_lib.own(run.settings)  # no folders of this machine
            mine = {key: mine[key] for key in [*flat, *mine] if key in mine}
            found[name] = dataclasses.replace(run, name=name, settings=mine)
    return found


def _read(folder: pathlib.Path) -> comparison.Run:
    remedy = "delete it, and the same command trains the run again"
    extra = files.read_mapping(folder / EXTRA, remedy)
    if failure := extra.get("failure"):
        mine = comparison.read_settings(folder)
        return comparison.Run(folder.name, mine, failure=failure, extra=extra)
    return dataclasses.replace(comparison.read_run(folder), extra=extra)


# ── Work ─────────────────────────────────────────────────────────────────────────────


def run(job: Job) -> int:
    """Runs what is missing and no other process works on, and writes the table.

    Returns:
        The exit code; 1 if a run failed.

    Raises:
        UserError: as of `Job.state`, or if the data are not there.
        WriteError: if a file cannot be written; what is finished is kept.
        Stopped: as of `loop.train_and_evaluate`.
    """
    table, done, missing = job.state()
    todo = f"{len(missing)} to do ({table_lib.cost(table, missing)})"
    print(f"{table.name}: {len(done)} runs finished, {todo}", flush=True)
    if missing and table.seconds is None and jax.default_backend() == "cpu":
        print("it needs a GPU: nothing is run here, its rows stay empty")
        missing = {}
    files.make_folder(job.runs, "--runs")
    programs, failed = shared.Shared(PROGRAMS), 0
    for config in missing.values():
        programs.dataset(config.data)  # before all runs, one sentence
        break
    try:
        for name, config in missing.items():
            if (reached := _run(job.runs / name, config, programs)) is None:
                continue
            said = reached.failure or f"test error {reached.error('last'):.2f} %"
            print(f"{name}: {said}", flush=True)
            failed += bool(reached.failure)
    except loop.Stopped:
        write(job)
        raise
    write(job)
    return int(bool(failed))


def write(job: Job) -> None:
    """Writes the table with what is finished."""
    from experiments.training import written

    files.make_folder(job.runs, "--runs")
    # Of two processes that end together the second sees what the first has run.
    with locks.held(job.runs / f".{pathlib.Path(job.name).stem}.lock", wait=True):
        table, done, missing = job.state()
        if table.curves:
            done = [_with_losses(run) for run in done]
        folder = job.out / table.name
        written.write(folder, table, done, missing)
        if table.weights:
            first = min((run.seed for run in done), default=0)
            for run in done:
                if run.seed == first and not run.failure:
                    _keep_weights(job.runs / run.name, folder / "weights")


def _with_losses(run: comparison.Run) -> comparison.Run:
    """With its mean training loss in each epoch, if its metrics are there."""
    if not (found := run.curve("train", "loss")):
        return run
    losses = [float(f"{found[epoch]:.4g}") for epoch in sorted(found)]
    return dataclasses.replace(run, extra={**(run.extra or {}), LOSSES: losses})


def _keep_weights(run: pathlib.Path, folder: pathlib.Path) -> None:
    """Those of a run whose folder is there, in half precision; statistics are whole."""
    path = folder / f"{run.name}.safetensors"
    if path.exists() or not run.is_dir():
        return
    files.make_folder(folder, "--out")
    found = loaded.load_run(run, "last")
    half = jax.tree.map(lambda x: np.asarray(x, np.float16), found.params)
    content = export.FORMATS["safetensors"](dataclasses.replace(found, params=half))
    files.replace(path, content)  # two processes may end together


def _run(
    folder: pathlib.Path, config: settings.Settings, programs: shared.Shared
) -> comparison.Run | None:
    """A run, trained now; None if another process works on it, or has finished it."""
    try:
        with locks.held(folder.with_name(f".{folder.name}.lock"), wait=False):
            if (folder / EXTRA).is_file():
                return None
            return _trained(folder, config, programs)
    except BlockingIOError:
        return None
    except OSError as error:
        raise errors.WriteError(
            f"cannot write to {folder.parent} ({error.strerror}): fix that, then "
            "start the same command again; finished runs are kept"
        ) from error


def _trained(
    folder: pathlib.Path, config: settings.Settings, programs: shared.Shared
) -> comparison.Run:
    run = sweep.trained(folder, config, programs)
    extra = {"commit": commit(), "environment": comparison_files.environment()}
    if not run.failure:
        batches = list(programs.dataset(config.data).test.eval_batches(1000))
        images, labels = (
            np.concatenate([batch[key][batch["mask"]] for batch in batches])
            for key in ("image", "true_label")
        )
        reached = loaded.load_run(folder, "last", config=config)
        extra |= robustness.measured(reached, images, labels)
    elif not (run.extra or {}).get("diverged"):
        return run  # the next start tries it again
    else:
        extra["failure"] = run.failure
    files.replace(folder / EXTRA, files.to_json(extra, indent=1) + "\n")
    return _read(folder)
