"""What the terminal shows while a run continues.

On a terminal there is a bar below the lines; in a file or a pipe only plain lines, few
enough that the log of a long run stays short. Metrics come as fractions and seconds
and are formatted here for people.
"""

import collections
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self, TextIO

from sam_jax import errors

with errors.needing("train"):
    from rich import console, progress, table, text

_SCORES = ("loss", "accuracy")
_WIDEST = 10_000  # columns of what is not a terminal


class _Console(console.Console):
    """One that leaves it to the command what a pipe without a reader means."""

    def on_broken_pipe(self) -> None:
        raise  # rich is handling the BrokenPipeError


class Report:
    """Shows a run: settings, progress, evaluations and results.

    Use it in a ``with`` statement, so that an error or Ctrl-C leaves the terminal as it
    was. The environment variable ``NO_COLOR`` turns colours off.

    Args:
        file: where to write; None stands for the standard output.
        quiet: write nothing, as all processes but the first do.
        interval: least time between two progress lines where there is no bar, in
            seconds. After long runs it is 2 % of the time since the start.
        clock: returns the time in seconds.

    Example:
        >>> with Report() as report:
        ...     report.header({"method": "sam", "batch size": "128"})
        ...     report.evaluation(1, 60, 20, {"test": {"loss": 0.5, "accuracy": 0.875}})
        method      sam
        batch size  128
        epoch  1/60  step 20  test loss 0.5000 acc  87.50 %
    """

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        quiet: bool = False,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._console = _Console(file=file, quiet=quiet, highlight=False)
        # A pipe has lines of any length.
        self._width = self._console.width if self._console.file.isatty() else _WIDEST
        # rich takes a pipe for a terminal where FORCE_COLOR is set; a bar needs a real
        # one.
        self._live = (
            self._console.file.isatty()
            and not self._console.is_dumb_terminal
            and not quiet
        )
        if not self._live:
            self._console = _Console(
                file=file,
                quiet=quiet,
                highlight=False,
                force_terminal=False,
                width=self._width,
            )
        self._interval = interval
        self._clock = clock
        self._progress: progress.Progress | None = None
        self._task = progress.TaskID(0)
        self._batch_size = self._step = 0
        self._started = self._evaluated = self._next_line = 0.0
        # Of the steps since the last evaluation: their number, the time they took, and
        # sums of their metrics.
        self._sums: dict[str, float] = collections.defaultdict(float)

    def header(self, fields: Mapping[str, str]) -> None:
        """Print the settings of the run as an aligned list."""
        width = max((len(name) for name in fields), default=0)
        for name, value in fields.items():
            self._print((f"{name:<{width}}", "cyan"), f"  {value}")

    def progress(self, start_step: int, total_steps: int, batch_size: int) -> None:
        """Start to show progress."""
        self._stop()
        self._batch_size, self._step = batch_size, start_step
        self._sums.clear()
        self._progress = progress.Progress(
            progress.TextColumn("step {task.completed}/{task.total}"),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("{task.percentage:.0f} %"),
            progress.TextColumn("{task.description}", markup=False),
            progress.TimeElapsedColumn(),
            progress.TextColumn("<"),
            progress.TimeRemainingColumn(),
            console=self._console,
            # The rate over the last thousand reports, evaluations included, so that the
            # time left is what the user waits.
            speed_estimate_period=float("inf"),
            get_time=self._clock,
            refresh_per_second=4,
            expand=True,
            transient=True,
            disable=not self._live,
        )
        self._task = self._progress.add_task(
            "starting", total=total_steps, completed=start_step
        )
        self._started = self._evaluated = self._clock()
        self._next_line = self._started + self._interval
        self._progress.start()

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show how far the run is; costs about 0.01 ms.

        Args:
            step: updates so far.
            metrics: means over the steps since the last call, of which ``loss``,
                ``accuracy`` and ``examples_per_second`` are shown.

        Raises:
            RuntimeError: if `progress` was not called before.
        """
        if self._progress is None:
            raise RuntimeError("call Report.progress before Report.step")
        shown = "  ".join(
            _labelled(name, metrics[name])
            for name in (*_SCORES, "examples_per_second")
            if name in metrics
        )
        self._progress.update(self._task, completed=step, description=shown)
        self._add(step, metrics)
        now = self._clock()
        if self._live or now < self._next_line:
            return
        self._next_line = now + max(self._interval, 0.02 * (now - self._started))
        task = self._progress.tasks[self._task]
        left = task.time_remaining
        self._print(
            f"step {step}/{task.total:.0f} ({task.percentage:.0f} %)  {shown}"
            + ("" if left is None else f"  {duration(left)} left")
        )

    def evaluation(
        self,
        epoch: float,
        epochs: float,
        step: int,
        splits: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Print the one line of an evaluation, on a terminal as wide as that.

        It starts with the means of the training metrics since the evaluation before
        and ends with the speed of training and the time since then. The speed leaves
        out evaluations and all else that ``examples_per_second`` leaves out. Where all
        of it is too long, a loss and an accuracy follow each split without their
        names, and the end is left out.

        Args:
            epoch: epochs so far.
            epochs: epochs that the run ends with.
            step: updates so far.
            splits: split (``"validation"``, ``"test"``) to its metrics, of which
                ``loss`` and ``accuracy`` are shown.
        """
        epoch_of = f"{round(epoch, 2):>{len(f'{epochs:g}')}g}/{epochs:g}"
        sums, self._sums = self._sums, collections.defaultdict(float)
        train = {name: sums[name] / sums["steps"] for name in _SCORES if name in sums}
        ends = []
        if sums["seconds"]:
            rate = sums["steps"] * self._batch_size / sums["seconds"]
            ends.append(f"  {_labelled('examples_per_second', rate)}")
        if self._progress is not None:
            now = self._clock()
            ends.append(f"  {duration(now - self._evaluated)}")
            self._evaluated = now

        def line(show: Callable[[str, float], str], middle: str = "") -> text.Text:
            parts: list[str | tuple[str, str]] = [(f"epoch {epoch_of}", "bold"), middle]
            for split, metrics in {"train": train, **splits}.items():
                shown = [
                    f" {show(name, metrics[name])}"
                    for name in _SCORES
                    if name in metrics
                ]
                if shown:
                    parts += ["  ", ("val" if split == "validation" else split, "cyan")]
                    parts += shown
            return text.Text.assemble(*parts)

        made = line(_labelled, f"  step {step}")
        if len(made) + sum(map(len, ends)) > self._width:
            made = line(_short)
        for end in ends:
            if len(made) + len(end) <= self._width:
                made.append(end)
        self._print(made)

    def summary(
        self,
        rows: Sequence[Mapping[str, object]],
        fields: Mapping[str, str] | None = None,
    ) -> None:
        """End the progress and print the results.

        Args:
            rows: one mapping of column to value per row of the table, such as
                ``{"weights": "last", "epoch": 60, "test accuracy": 0.93}``. Columns
                whose names end in ``accuracy`` or ``error`` hold fractions, shown in
                percent.
            fields: what to list below the table: wall time, speed, directory.
        """
        self._stop()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        made = table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in columns:
            made.add_column(column, justify="right" if made.columns else "left")
        for row in rows:
            made.add_row(*(_cell(name, row.get(name, "-")) for name in columns))
        self._print("")
        if columns:
            self._console.print(made)
        if fields:
            self._print("")
            self.header(fields)

    def message(self, message: str) -> None:
        """Print a line; above the bar if there is one."""
        self._print(message)

    def warning(self, message: str) -> None:
        """Print a line that begins with ``warning:``."""
        self._print(("warning:", "bold yellow"), f" {message}")

    def _add(self, step: int, metrics: Mapping[str, float]) -> None:
        steps, self._step = step - self._step, step
        self._sums["steps"] += steps
        for name in _SCORES:
            if name in metrics:
                self._sums[name] += steps * metrics[name]
        if "examples_per_second" in metrics:
            rate = metrics["examples_per_second"] / self._batch_size
            self._sums["seconds"] += steps / rate

    def _print(self, *parts: str | text.Text | tuple[str, str]) -> None:
        # Soft wrap leaves long lines to the terminal: in a file they stay one line.
        self._console.print(text.Text.assemble(*parts), soft_wrap=True)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()


def number(value: float) -> str:
    """A loss or a norm for people.

    Example:
        >>> number(2.302585), number(1.5e-7), number(float("nan"))
        ('2.3026', '1.5e-07', 'nan')
    """
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1000 else f"{value:.3g}"


def percent(fraction: float) -> str:
    """A fraction for people.

    Example:
        >>> percent(0.9312)
        '93.12 %'
    """
    return f"{100 * fraction:.2f} %"


def markdown(rows: Iterable[Iterable[str]]) -> str:
    """Rows of cells, the head first, as a Markdown table whose lines all end.

    Example:
        >>> print(markdown([["run", "error"], ["sam", "0.1"]]), end="")
        | run | error |
        | --- | --- |
        | sam | 0.1 |
    """
    head, *others = map(list, rows)
    lines = [head, ["---"] * len(head), *others]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def duration(seconds: float) -> str:
    """A time for people.

    Example:
        >>> duration(12.34), duration(754), duration(7380)
        ('12.3 s', '12 min 34 s', '2 h 03 min')
    """
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _labelled(name: str, value: float) -> str:
    """A metric with its name or unit, of about the same width for all values."""
    if name == "examples_per_second":
        return f"{value:,.0f} ex/s" if value >= 10 else f"{value:.2g} ex/s"
    if name == "accuracy":
        return f"acc {percent(value):>8}"
    return f"{name} {number(value)}"


def _short(name: str, value: float) -> str:
    """As `_labelled`, of a score, without its name."""
    return f"{percent(value):>8}" if name == "accuracy" else f"{value:#.3g}".rstrip(".")


def _cell(column: str, value: object) -> str:
    """A value of the table of results."""
    if not isinstance(value, float):
        return str(value)
    if column.endswith(("accuracy", "error")):
        return percent(value)
    return f"{round(value, 2):g}" if column == "epoch" else number(value)
