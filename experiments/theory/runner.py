"""Runs claims, several at once, each in a process that JAX starts in float64."""

import concurrent.futures
import concurrent.futures.process
import contextlib
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import rich.console
import rich.progress

from experiments.theory import catalog, mutations, report
from sam_jax.train import environment


def run(patterns: Sequence[str], quick: bool, out: pathlib.Path, workers: int) -> int:
    """Runs claims, several at once, and writes their results and the index.

    Args:
        patterns: claims, papers, or ``all``.
        quick: the short form.
        out: folder of all results.
        workers: processes.

    Returns:
        0 if all verdicts are the expected ones, else 1.

    Raises:
        UserError: if a name is unknown.
    """
    chosen, surprises = catalog.select(list(patterns)), None
    with _pool(min(workers, len(chosen)), out) as pool:
        surprises = _outcomes(chosen, quick, out, pool)
    if surprises is None:  # a process was killed
        return 1
    print(f"\nindex: {out / 'README.md'}")
    if surprises:
        print(f"not as expected: {', '.join(sorted(surprises))}")
    return 1 if surprises else 0


def _outcomes(
    chosen: Sequence[str],
    quick: bool,
    out: pathlib.Path,
    pool: concurrent.futures.Executor,
) -> list[str]:
    """Runs claims and shows a line for each; those that are not as expected."""
    surprises: list[str] = []
    console = rich.console.Console()
    bar = rich.progress.Progress(
        "{task.completed}/{task.total}",
        rich.progress.BarColumn(),
        rich.progress.TimeElapsedColumn(),
        "{task.description}",
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=len(chosen))
        # From the end, where most of the long ones are.
        futures = {pool.submit(run_one, n, quick, out): n for n in chosen[::-1]}
        for future in concurrent.futures.as_completed(futures):
            record, error = future.result()
            name = futures[future]
            if record is None or record["verdict"] != record["expected"]:
                surprises.append(name)
            bar.console.print(_line(name, record), markup=False, highlight=False)
            if error:
                bar.console.print(error, markup=False, highlight=False)
            bar.update(task, advance=1, description=name)
    return surprises


def mutate(patterns: Sequence[str], out: pathlib.Path, workers: int) -> int:
    """Runs claims with a mutated ascent and writes which survive; see `mutations`.

    Returns:
        0 if exactly the declared mutations survive, else 1.

    Raises:
        UserError: as `run`.
    """
    chosen, code = catalog.select(list(patterns)), 1
    with _pool(workers, out) as pool:
        code = mutations.run(chosen, out, pool)
    return code


@contextlib.contextmanager
def _pool(
    workers: int, out: pathlib.Path
) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Processes that end with what they are for; the index is written then.

    That one of them was killed is said in a line; Ctrl-C ends them.
    """
    pool = processes(workers)
    try:
        yield pool
    except concurrent.futures.process.BrokenProcessPool:
        print(
            "error: a process was killed, perhaps because memory ran out; finished "
            "claims are kept: run the others again, with fewer --workers",
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        for process in list(pool._processes.values()):  # pyright: ignore
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        report.index(out)


def processes(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    """A process of its own for each worker: JAX must start unforked."""
    environment.for_tiny_programs()
    return concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )


def _end_with_parent() -> None:
    """Lets only the parent end this process, or the process itself without a parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_one(
    name: str, quick: bool, out: pathlib.Path
) -> tuple[dict[str, Any] | None, str]:
    """Runs one claim in this process, in float64, and writes its folder.

    Args:
        name: ``paper/claim``.
        quick: the short form.
        out: folder of all results.

    Returns:
        The record, or None and the traceback if the experiment broke.
    """
    try:
        with jax.enable_x64(True):
            module = catalog.load(name)
            start = time.perf_counter()
            outcome = module.run(quick)
            seconds = time.perf_counter() - start
        return report.write(out, name, module.CLAIM, outcome, seconds, quick), ""
    except Exception:  # one broken experiment must not take the others with it
        return None, traceback.format_exc()


def _line(name: str, record: dict[str, Any] | None) -> str:
    if record is None:
        return f"ERROR  {name}"
    cells = report.row(record)
    return f"{cells[4]:14} {name:38} {cells[5]:>6} {record['seconds']:7.1f} s"
