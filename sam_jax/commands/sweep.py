"""``sam-jax sweep``: many runs, all combinations of some settings over seeds."""

import pathlib
import shlex
from collections.abc import Sequence

from sam_jax import commands, storage


@commands.ends
def main(arguments: Sequence[str]) -> int:
    """Trains what is not finished, then compares.

    Returns:
        The exit code; 1 if a run failed.
    """
    made = commands.parser(
        "sweep",
        "Trains all combinations of some settings, over seeds, each run in a folder of "
        "its own, and compares them. The same command continues. All methods: "
        "--set=method.name=all. Multiples of a card's own value: "
        "--set=method.rho=1x,3x. Settings of all runs: --config.NAME=VALUE.",
        "sam-jax sweep --config=digits_sam --set=method.rho=0.05,0.1,0.2 --seeds=3",
    )
    from sam_jax.train import usage

    listed = usage.defaults()
    made.epilog = f"settings, with a card's defaults:\n{listed}\n\n{made.epilog}"
    made.add_argument("--config", metavar="CARD[:METHOD]", help="run card")
    made.add_argument(
        "--set",
        metavar="NAME=A,B,...",
        action="append",
        default=[],
        help="a setting and its values; several of them are combined",
    )
    made.add_argument(
        "--seeds", type=commands.count, default=3, help="runs of each combination"
    )
    made.add_argument("--out", help="folder of the runs; runs/sweep_CARD by default")
    commands.add_tuned(made)
    commands.add_latex(made)
    given, changes = commands.with_settings(made, arguments, "--set")
    card = pathlib.Path(str(given.config).partition(":")[0]).stem
    out = storage.path(given.out or f"runs/sweep_{card}")
    begun = (path.parent for path in out.glob("*/config.json"))
    commands.start_jax(next(begun, None))

    from sam_jax.train import comparison, comparison_files, loop, sweep

    axes = [sweep.Axis.read(text) for text in given.set]
    runs = sweep.planned(given.config, axes, given.seeds, changes)
    command = shlex.join(["sam-jax", "sweep", *arguments])
    try:
        found = sweep.sweep(runs, out, command, tuned=given.tuned, tex=given.latex)
    except loop.Stopped as stopped:
        return commands.say(
            f"{stopped}; the same command continues", 128 + stopped.signal
        )
    shown = comparison_files.latex if given.latex else comparison_files.markdown
    print(shown(comparison.grouped(found, tuned=given.tuned)))
    failed = [run for run in found if run.failure]
    for run in failed:
        commands.say(f"{run.name} failed: {run.failure}", 1)
    return int(bool(failed))
