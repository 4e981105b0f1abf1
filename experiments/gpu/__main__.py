"""Runs the next jobs of the queue for a GPU that are not done, within some seconds.

    python -m experiments.gpu --seconds=480 --out=DIR --data=IMAGES

begins with what is missing in `experiments/gpu/results/`, writes one JSON file for each
family of jobs into DIR after every measurement, and leaves out, with a line, what needs
a package that is not here. ``--list`` says what is done, ``--jobs=step_time,networks``
chooses, ``--tiny`` tries all of it at the smallest sizes, on any backend (and begins
with nothing). IMAGES holds the real CIFAR-10 in parts, see `experiments.gpu.pack`.
"""

import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from experiments import commands
from experiments.gpu import queue, record

# (job, its arguments, seconds) -> exit code and last lines of what it printed
Spawn = Callable[[queue.Job, Sequence[str], float], tuple[int, str]]


@commands.ends
def main(
    argv: Sequence[str],
    clock: Callable[[], float] = time.monotonic,
    spawn: Spawn | None = None,
) -> int:
    """Runs jobs as the command line says.

    Returns:
        The exit code: 0, also where a job failed, since that is in its rows.
    """
    begun = clock()
    parser = commands.parser(__doc__)
    parser.add_argument(
        "--seconds", type=commands.positive, default=480, help="for all jobs"
    )
    parser.add_argument("--out", type=commands.folder, default=record.RESULTS)
    parser.add_argument("--data", type=pathlib.Path, help="folder of packed images")
    parser.add_argument("--jobs", default="", help="families or jobs, with commas")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes")
    parser.add_argument("--list", action="store_true", help="only say what is done")
    args = parser.parse_args(argv)
    jobs = queue.chosen([name for name in args.jobs.split(",") if name])
    earlier = None if args.tiny else record.RESULTS
    if args.list:
        status = statuses(jobs, args.out, earlier)
        for job in jobs:
            print(f"{status.get(job.name, 'to do'):9} {job.seconds:4.0f} s  {job.name}")
        return 0
    own = [f"--out={args.out.resolve()}"]
    own += [f"--data={args.data.resolve()}"] if args.data else []
    own += ["--tiny"] if args.tiny else []
    attempted: list[str] = []
    while True:
        left = args.seconds - (clock() - begun)
        job = queue.following(jobs, statuses(jobs, args.out, earlier), attempted, left)
        if job is None:
            break
        attempted.append(job.name)
        print(f"{job.name}: {left:.0f} s left", flush=True)
        # What is tiny on a GPU may take its time elsewhere.
        seconds = left if args.tiny else min(left, queue.LIMIT)
        code, said = (spawn or process)(job, own, seconds)
        if code:
            found = _record(job.family, args.out, earlier)
            ended = f"ended with code {code}"
            found.add(f"{job.part}/process", {"error": f"{ended}\n{said}"})
            found.mark(job.part, queue.FAILED)
            print(f"{job.name}: {ended}", flush=True)
    done = statuses(jobs, args.out, earlier)
    complete = sum(done.get(job.name) == queue.COMPLETE for job in jobs)
    print(f"{complete} of {len(jobs)} jobs are complete", flush=True)
    return 0


def statuses(
    jobs: Sequence[queue.Job], out: pathlib.Path, earlier: pathlib.Path | None
) -> dict[str, str]:
    """How each job ended last, by its name; nothing of those never begun."""
    found = {
        family: _record(family, out, earlier).parts
        for family in {job.family for job in jobs}
    }
    return {
        job.name: found[job.family][job.part]
        for job in jobs
        if job.part in found[job.family]
    }


def _record(
    family: str, out: pathlib.Path, earlier: pathlib.Path | None
) -> record.Record:
    name = f"{family}.json"
    return record.Record(out / name, earlier and earlier / name)


def process(job: queue.Job, own: Sequence[str], seconds: float) -> tuple[int, str]:
    """Runs a job in a process, which is killed when the time is over."""
    worker = sys.executable, "-m", "experiments.gpu.worker", job.name
    paths = os.fspath(record.ROOT), os.environ.get("PYTHONPATH")
    return commands.child(
        [*worker, *own, f"--seconds={seconds}"],
        seconds=seconds,
        env=environment(job.env) | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """The user's variables and a job's; flags of XLA are both.

    Example:
        >>> environment({"A_VARIABLE": "1"})["A_VARIABLE"]
        '1'
    """
    flags = " ".join(
        found for found in (os.environ.get("XLA_FLAGS"), own.get("XLA_FLAGS")) if found
    )
    return {**os.environ, **own, "XLA_FLAGS": flags}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
