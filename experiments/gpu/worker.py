"""The process of one job: its tasks one after another, each row written at once."""

import importlib
import os
import pathlib
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence

from experiments import commands
from experiments.benchmarks.measure import Missing
from experiments.gpu import queue, record
from experiments.gpu.tasks import Context, Row, Task
from sam_jax import errors

MARGIN = 5.0  # seconds for the end of the process


@commands.ends
def main(argv: Sequence[str]) -> int:
    """Does a job as far as the time goes."""
    start = time.monotonic()
    parser = commands.parser(__doc__)
    parser.add_argument("job")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(argv)
    job = queue.Job(args.job, 0)
    if not args.tiny:
        need_gpu()
    path = args.out.resolve() / f"{job.family}.json"
    found = record.Record(path, None if args.tiny else record.RESULTS / path.name)
    found.begin(record.machine(args.tiny))

    def left() -> float:
        return start + args.seconds - MARGIN - time.monotonic()

    current: list[str] = []
    context = Context(
        part=job.part,
        tiny=args.tiny,
        data=args.data,
        left=left,
        rows=lambda: found.rows,
        save=lambda row: found.add(current[0], {**row, "partial": True}),
    )

    def tasks() -> Iterable[Task]:
        _prepare()
        module = importlib.import_module(f"experiments.gpu.{job.family}")
        for task in module.tasks(context):
            current[:] = [f"{job.part}/{task.key}"]
            yield task

    work(job.part, found, tasks(), left)
    return 0


def work(
    part: str,
    found: record.Record,
    tasks: Iterable[Task],
    left: Callable[[], float],
) -> None:
    """Does the tasks that have no row yet, until one does not fit any more.

    Args:
        part: of the family.
        found: rows so far; those of the tasks are added.
        tasks: in their order; what they raise becomes a row, and the next one is done.
        left: seconds.
    """
    status = queue.COMPLETE
    found.mark(part, queue.BEGUN)
    remaining = iter(tasks)
    while True:
        key = f"{part}/preparation"
        try:
            task = next(remaining)
            key = f"{part}/{task.key}"
            if found.has(key):
                continue
            if left() < task.seconds:
                print(f"{key}: no time left", flush=True)
                return
            row = _timed(task)
        except StopIteration:
            break
        except Missing as missing:
            print(f"{key}: left out, {missing}", flush=True)
            status = queue.FAILED
        except Exception:
            found.add(key, {"error": traceback.format_exc()})
            print(f"{key}: failed\n{traceback.format_exc()}", flush=True)
            status = queue.FAILED
        else:
            found.add(key, row)
            print(f"{key}: {row}", flush=True)
    if status == queue.COMPLETE:
        for key in ("process", "preparation"):  # errors of earlier tries
            found.rows.pop(f"{part}/{key}", None)
    found.mark(part, status)


def need_gpu() -> None:
    """Refuses to measure a CPU, to which JAX goes where it finds no GPU."""
    import jax

    if jax.default_backend() == "cpu":
        raise errors.UserError(
            'JAX finds no GPU here: install "jax[cuda13]", or give --tiny to try the '
            "jobs on a CPU"
        )


def _timed(task: Task) -> Row:
    begun = time.monotonic()
    row = task.measure()
    return {**row, "took_seconds": round(time.monotonic() - begun, 3)}


def _prepare() -> None:
    """Compiled programs are kept from job to job; in the user's folder, if any."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = pathlib.Path(tempfile.gettempdir(), "sam_jax_gpu_programs")
        jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
