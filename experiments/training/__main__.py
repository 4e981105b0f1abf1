"""The published tables, and tables of our own, as commands.

    python -m experiments.training                  # what there is, and what it costs
    python -m experiments.training small_stage1     # runs what is missing, writes it
    python -m experiments.training small_stage1 --workers=2
    python -m experiments.training khanh_table4 --print-commands

Runs lie below ``--runs``, where tables share them; ``--out`` has a folder for each
table with ``table.md``, ``table.json`` (all numbers, settings and environments) and
``table.png``. The same command continues: what ``table.json`` or a run folder has is
not run again, and several processes may work on one table. Settings of all runs:
``--config.NAME=VALUE``. What needs a GPU is not started without one.
"""

import pathlib
import sys
from collections.abc import Sequence

from experiments import commands
from sam_jax import commands as verbs

RESULTS = pathlib.Path(__file__).parent / "results"
RUNS = pathlib.Path("runs/tables")


@commands.ends
def main(argv: Sequence[str]) -> int:
    """Runs the command line.

    Returns:
        The exit code: 0 all done, 1 a run or a worker failed, 2 a mistake of the user.
    """
    parser = commands.parser(__doc__, prog="python -m experiments.training")
    parser.add_argument("table", nargs="?", default="list", help="its name, or list")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="of results")
    parser.add_argument(
        "--runs", type=pathlib.Path, default=RUNS, help="of run folders"
    )
    parser.add_argument(
        "--print-commands", action="store_true", help="one for each missing run"
    )
    parser.add_argument(
        "--write-only", action="store_true", help="the table of what is finished"
    )
    parser.add_argument(
        "--workers", type=commands.count, help="processes or jobs; this one by default"
    )
    parser.add_argument(
        "--cluster", default="local", choices=["local", "slurm"], help="of the workers"
    )
    args, changes = commands.with_settings(parser, argv)
    verbs.start_jax(None)

    from experiments.training import engine, listing, workers
    from sam_jax.train import loop

    if args.table == "list":
        print(listing.of_tables(args.out, args.runs))
        return 0
    job = engine.Job(args.table, changes, args.out, args.runs)
    if args.print_commands:
        print(*listing.commands(job), sep="\n")
        return 0
    if args.write_only:
        engine.write(job)
        return 0
    try:
        if args.workers:
            return workers.run(job, args.workers, args.cluster)
        return engine.run(job)
    except loop.Stopped as stopped:
        return verbs.say(f"{stopped}; the same command continues", 128 + stopped.signal)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
