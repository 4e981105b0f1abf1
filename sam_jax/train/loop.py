"""A run from start to end: build, resume, train, evaluate, save, report."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from sam_jax import data, page, storage
from sam_jax.train import (
    agreement,
    build,
    checkpoint,
    data_record,
    dispatch,
    due,
    environment,
    hosts,
    interrupt,
    layout,
    losses,
    metrics,
    network,
    optimizer,
    remarks,
    report,
    settings,
    sharding,
    state,
    window,
)
from sam_jax.train import results as results_lib
from sam_jax.train import scores as scores_lib
from sam_jax.train import start as start_lib
from sam_jax.train import watch as watch_lib
from sam_jax.train import workdir as workdir_lib
from sam_jax.train.evaluation import evaluate


class Stopped(Exception):
    """The run was asked to stop; its state is saved.

    Attributes:
        signal: one of `interrupt.SIGNALS`.
        step: updates done and saved.
    """

    def __init__(self, signal: int, step: int) -> None:
        super().__init__(f"stopped after step {step}; the state is saved")
        self.signal = signal
        self.step = step


class Diverged(RuntimeError):
    """The loss or an update is NaN or infinite."""


def train_and_evaluate(
    config: settings.Settings,
    workdir: str | os.PathLike[str],
    command: str | None = None,
    *,
    dataset: data.Dataset | None = None,
    model: Any = None,
    loss: losses.Loss | None = None,
    builder: Callable[..., build.Run] | None = None,
    out: report.Report | None = None,
) -> dict[str, Any]:
    """Trains as configured, or continues the run that the folder holds.

    If the run has several processes (see `sam_jax.train.hosts`), all of them call this
    with the same arguments, and the folder is one that all of them see.

    Args:
        config: the settings; the configuration of a run card is read, see
            `sam_jax.train.settings.read`.
        workdir: folder of the run; created if missing.
        command: how to continue the run, for the header.
        dataset: another one than that of the configuration, such as
            `sam_jax.data.of_arrays` makes; of ``config.data`` only what is done to
            images in training is used then.
        model: another network, such as a Linen module or the class of an NNX module;
            see `sam_jax.models.own.build`.
        loss: another loss of the examples; see `sam_jax.train.losses`.
        builder: builds the run, as `build.build` does; see `sam_jax.train.shared`.
        out: where to show the run.

    Returns:
        The results; see `sam_jax.train.results.collect`. They are also in
        ``results.json``.

    Raises:
        UserError: if a setting, the data, the folder or its checkpoint will not do.
        Diverged: if a loss, an update or a weight is not finite, and such updates are
            not to be left out, or have been in a row too long.
        Stopped: after Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, with the state saved.
    """
    config = settings.read(config)
    folder = storage.path(workdir)
    # ── Build. Mistakes of the configuration show before the folder is touched.
    agreement.check_same(config, folder)
    with agreement.agreed():
        if model is None:
            data_record.refuse_network(folder)
        make = builder or build.build
        run = make(config, dataset=dataset, model=model, loss=loss)
        watch = watch_lib.Watch(run)
        # A run that continues does not need any more what it began with.
        begins = None if checkpoint.kept(folder) else start_lib.of(run, model)
    agreement.check_same_data(run.dataset)
    agreement.check_same_weights(begins and begins.given)
    with (
        workdir_lib.claimed(workdir, config) as planned,
        checkpoint.Checkpoints(folder, config.checkpoint) as checkpoints,
        out or report.Report(quiet=not hosts.is_first()) as out,
    ):
        # ── Resume, or start.
        restored = checkpoints.restore(run.abstract_state())
        resumed = restored is not None
        if restored is None:
            agreement.from_first(lambda: results_lib.refuse_finished(folder))
            agreement.from_first(lambda: begins and begins.write(folder))
            restored = run.init(run.seed, begins and begins.given), {}
        train_state, saved = restored
        progress = _progress(run, planned, saved)
        shown = page.AtTheEnd(
            folder, config.report if hosts.is_first() else "off", out.warning
        )
        named = config.model.name if model is None else network.name_of(model)
        training = _Training(
            run, watch, folder, progress, checkpoints, out, shown, named
        )
        training.say(train_state, begins, command, resumed=resumed)
        # ── Train; of a finished run, make what is missing.
        finished = training.is_finished(train_state)
        if not finished or not agreement.from_first(
            lambda: results_lib.complete(folder, progress)
        ):
            with (
                training.writers(int(train_state.step) if resumed else None) as lines,
                interrupt.request() as stop,
                shown,
                training.advice(),
            ):
                if not finished:
                    training.go_on(train_state, lines, stop)
        # ── Results.
        results = agreement.from_first(lambda: results_lib.collect(folder, progress))
        shown.write(missing_only=finished)
        out.summary(results_lib.rows(results), results_lib.fields(results, folder))
        return results


def _progress(run: build.Run, planned: int, saved: dict[str, Any]) -> dict[str, Any]:
    """What is kept in checkpoints beside the state, at the beginning of a start."""
    progress = {"seconds": 0.0, "skipped": 0, "in_a_row": 0, "metrics": None}
    progress |= {"last": None, "best": None}
    progress |= {"plans": [{"step": 0, "epochs": planned}]} | saved
    progress["data"] = agreement.check_unchanged(run.dataset, saved.get("data"))
    return progress


@dataclasses.dataclass(frozen=True)
class _Training:
    """What a start of a run works with; ``progress`` is kept up to date."""

    run: build.Run
    watch: watch_lib.Watch
    folder: pathlib.Path
    progress: dict[str, Any]
    checkpoints: checkpoint.Checkpoints
    out: report.Report
    shown: page.AtTheEnd
    named: str  # the network

    def is_finished(self, train_state: state.TrainState) -> bool:
        """Whether nothing is left to do."""
        return int(train_state.step) == self.run.total_steps

    def say(
        self,
        train_state: state.TrainState,
        begins: start_lib.Start | None,
        command: str | None,
        *,
        resumed: bool,
    ) -> None:
        """Notes what the run is trained on and with; shows settings and remarks."""
        run, out = self.run, self.out
        record = data_record.DataRecord.of(run.dataset, run.config.batch_size)
        if self.named != run.config.model.name:
            record = dataclasses.replace(record, network=self.named)
        agreement.from_first(lambda: data_record.write(self.folder, record))
        flags = agreement.from_first(
            lambda: environment.keep(
                self.folder, workdir_lib.own_files(run.config), resumed=resumed
            )
        )
        words = {"begins with": begins.words()} if begins else {}
        head = _header(run, self.named, train_state, self.folder, command)
        out.header(head | words)
        more = _more_epochs(run, self.progress, int(train_state.step))
        told = *flags, *(begins.remarks if begins else ()), *remarks.of(run), *more
        for remark in told:
            out.warning(remark)
        finished = self.is_finished(train_state)
        _say_what_is_lost(self.progress, self.checkpoints, out, finished=finished)
        if finished:
            out.message("This run is finished: nothing is left to do.")

    def writers(self, resume_step: int | None) -> Any:
        """What the metrics go to, of process 0, as a context."""
        config = self.run.config
        return agreement.on_first(
            lambda: metrics.open_writers(
                self.folder,
                json.loads(settings.to_json(config)),
                resume_step=resume_step,
                wandb=config.wandb,
                written=self.progress["metrics"],
                warn=self.out.warning,
            ),
            metrics.Writers([]),
        )

    @contextlib.contextmanager
    def advice(self) -> Iterator[None]:
        """Says how to continue after what is not finite."""
        try:
            yield
        except window.NotFiniteError as error:
            self.checkpoints.wait()
            saved = self.checkpoints.latest_step()
            raise Diverged(
                f"{error}. "
                + (f"The checkpoint of step {saved} is good. " if saved else "")
                + "Lower config.learning_rate or config.method.rho, or clip with "
                "--config.clip_norm=1, in another --workdir"
                + (
                    "; or leave such updates out with --config.on_nonfinite=skip"
                    if isinstance(error, window.UpdateNotFiniteError)
                    and not self.run.config.skips_nonfinite
                    else ""
                )
            ) from error

    def go_on(
        self,
        train_state: state.TrainState,
        writers: metrics.Writers,
        stop: interrupt.Interrupt | interrupt.Preemption,
    ) -> None:
        """Trains to the end, or until it is asked to stop; saves on the way."""
        run, out, progress = self.run, self.out, self.progress
        config, start = run.config, int(train_state.step)
        advance = dispatch.from_step(run, start)
        recent = window.Window(
            start,
            config.log_every_steps,
            config.batch_size,
            most_skips=config.max_consecutive_skips if config.skips_nonfinite else 0,
            in_a_row=progress["in_a_row"],
        )
        evaluate_every = config.eval_every_epochs * run.steps_per_epoch
        saving = due.Saves(config.checkpoint, run.steps_per_epoch, start)
        # One step, or several up to the next one that something else follows.
        stations = evaluate_every, *saving.every, *self.watch.every, run.total_steps
        clock = time.monotonic()
        out.progress(start, run.total_steps, config.batch_size)

        done = start
        while done < run.total_steps:
            # ── Metrics are read once the next steps are on their way.
            most = min(every - done % every for every in stations)
            train_state, step_metrics, steps = advance(train_state, most)
            if done == start:
                jax.block_until_ready(step_metrics)
                self._say_first(steps, time.monotonic() - clock)
                recent.restart_clock()
            done += steps
            recent.add(step_metrics, steps)
            self._log(recent.ready(), writers)
            last = done == run.total_steps
            evaluates = last or done % evaluate_every == 0
            stops = stop.at_step() if not last else None
            saves = last or stops is not None or saving.due(done)
            if not (evaluates or saves or self.watch.due(done)):
                continue
            # Nothing is saved before everything so far is known to be finite.
            self._log(recent.flush(), writers)
            if not run.is_finite(train_state):
                raise window.NotFiniteError(f"a weight after step {done} is not finite")

            if self.watch.due(done):
                self._measure(train_state, writers)
            is_best = evaluates and self._evaluate(train_state, writers)
            if saves or is_best:
                now = time.monotonic()
                progress["seconds"] += now - clock
                clock = now
                progress |= {"metrics": writers.sync(done), "in_a_row": recent.in_a_row}
                self.checkpoints.save(done, train_state, progress, is_best=is_best)
                saving.saved(done)
            if stops is not None:
                self.checkpoints.wait()
                raise Stopped(stops, done)
            recent.restart_clock()
        self.checkpoints.wait()  # before the results say that the run is finished

    def _say_first(self, steps: int, seconds: float) -> None:
        first = "step" if steps == 1 else f"{steps} steps"
        took = report.duration(seconds)
        self.out.message(f"compiled and ran the first {first} in {took}")

    def _log(self, rows: Iterator[window.Row], writers: metrics.Writers) -> None:
        """Writes and shows rows of training metrics."""
        for row in rows:
            self.progress["skipped"] += row.skipped
            if row.skipped:
                self.out.warning(
                    f"step {row.step}: {row.skipped} updates not finite, left out"
                )
            values = dict(row.metrics)
            if not self.run.config.data.label_noise:
                del values["true_accuracy"]
            if "perturbed_loss" in values:
                values["sharpness"] = values["perturbed_loss"] - values["loss"]
            epoch = row.step / self.run.steps_per_epoch
            writers.write(row.step, "train", {**values, "epoch": epoch})
            self.out.step(row.step, values)

    def _measure(self, train_state: state.TrainState, writers: metrics.Writers) -> None:
        """Writes and shows the sharpness, and what it took."""
        step = int(train_state.step)
        values = self.watch.measured(train_state, self.out.warning, self.folder)
        epoch = step / self.run.steps_per_epoch
        writers.write(step, "sharpness", {**values, "epoch": epoch})
        took = report.duration(values.pop("seconds"))
        shown = ", ".join(f"{name} {report.number(x)}" for name, x in values.items())
        self.out.message(f"sharpness at step {step}: {shown}, in {took}")

    def _evaluate(
        self, train_state: state.TrainState, writers: metrics.Writers
    ) -> bool:
        """Whether this is the best; validation selects, the test is only reported."""
        run, step = self.run, int(train_state.step)
        seen: dict[str, scores_lib.OfEach] = {}
        examines = step == run.total_steps and run.config.report != "off"
        scores = evaluate(run, train_state, seen.__setitem__ if examines else None)
        skipped = self.progress["skipped"]
        if skipped == run.total_steps:
            raise window.NotFiniteError(f"none of the {skipped} updates was finite")
        epoch = step / run.steps_per_epoch
        for split, values in scores.items():
            writers.write(step, split, {**values, "epoch": epoch})
        self.out.evaluation(epoch, run.config.epochs, step, scores)
        for split, values in scores.items():
            if not math.isfinite(values["loss"]):
                what = f"the {split} loss after step {step} is not finite"
                raise window.NotFiniteError(f"{what} ({values['loss']})")
        if examines:
            self.shown.examine(step, seen["test"], scores["test"], run.dataset)
        return _improves(self.progress, {"step": step, "epoch": epoch, **scores})


def _improves(progress: dict[str, Any], scores: dict[str, Any]) -> bool:
    """Whether this is the best validation accuracy so far; notes the scores."""
    progress["last"], best = scores, progress["best"]
    if "validation" not in scores:
        return False
    # Earlier versions noted the accuracy alone.
    before = best.get("validation", best)["accuracy"] if best else -1.0
    if scores["validation"]["accuracy"] <= before:
        return False
    progress["best"] = scores
    return True


def _more_epochs(run: build.Run, progress: dict[str, Any], start: int) -> Iterator[str]:
    """Notes that a run continues past its plan; says what that does."""
    planned, epochs = progress["plans"][-1]["epochs"], run.config.epochs
    if epochs > planned:
        progress["plans"] = [*progress["plans"], {"step": start, "epochs": epochs}]
        yield from remarks.of_more_epochs(run, planned, start)


def _say_what_is_lost(
    progress: dict[str, Any],
    checkpoints: checkpoint.Checkpoints,
    out: report.Report,
    *,
    finished: bool,
) -> None:
    for line in checkpoints.lost:
        out.warning(line)
    best = progress["best"]
    if best is not None and best["step"] not in checkpoints.steps():
        out.warning(
            f"the weights that were best on validation, of step {best['step']}, are "
            "lost: "
            + (
                "their scores stay in the results"
                if finished
                else "the best is chosen again, from the evaluations to come"
            )
        )
        if not finished:
            progress["best"] = None


def _header(
    run: build.Run,
    named: str,
    train_state: state.TrainState,
    folder: pathlib.Path,
    command: str | None,
) -> dict[str, str]:
    config, dataset, start = run.config, run.dataset, int(train_state.step)
    held_out = dataset.validation.num_examples if dataset.validation else 0
    trained, kept = (
        sum(x.size for x in jax.tree.leaves(part))
        for part in (train_state.params, train_state.frozen)
    )
    fields = {
        "devices": sharding.describe(run.mesh),
        "data": f"{dataset.name}: {dataset.train.num_examples} training, {held_out} "
        f"validation, {dataset.test.num_examples} test examples",
        "model": f"{named}, {trained + kept:,} parameters"
        + (f" ({kept:,} frozen)" if kept else "")
        + f", {config.model.dtype}",
        **optimizer.describe(config),
        "batch size": layout.describe(config, run.groups),
        "steps": f"{run.total_steps} ({config.epochs} epochs of {run.steps_per_epoch})",
        "workdir": str(folder),
    }
    if start:
        fields["resumed"] = f"after step {start}"
    if command:
        fields["to resume"] = command
    return fields
