"""``sam-jax sharpness``: how flat the minima are that runs have found."""

import argparse
import math
from collections.abc import Sequence

from sam_jax import commands, storage


@commands.ends
def main(arguments: Sequence[str]) -> int:
    """Measures runs; prints a table, writes numbers and pictures into their folders."""
    given = _parser().parse_args(arguments)
    commands.start_jax(given.runs[0])

    from sam_jax import checks, errors
    from sam_jax.train import report, sharpness_runs

    try:
        asked = sharpness_runs.Asked(
            None if given.examples == "all" else given.examples,
            *(given.batch_norm, given.seed, given.rho, given.m, given.k),
            given.directions,
        )
    except checks.BadValue as error:
        raise errors.UserError(f"--{error}") from error
    out = given.out and storage.path(given.out)
    with report.Report(interval=math.inf) as shown:  # a line for each measure
        sharpness_runs.measure_runs(
            *(given.runs, given.measures, asked, shown, out),
            step=given.step,
            own_code=given.own_code,
            data_dir=given.data_dir,
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    made = commands.parser(
        "sharpness",
        "Measures how sharp the loss of runs is, on examples of their training set, "
        "with the labels trained on and without augmentation. The folder of each run "
        "gets a sharpness.json and pictures.",
        "sam-jax sharpness runs/sgd runs/sam --measures=lambda_max,trace,line",
    )
    made.add_argument("runs", metavar="RUN", nargs="+", help="folders of runs")
    commands.add_step(made, "last")
    commands.add_data_dir(made)
    made.add_argument(
        "--measures",
        default="lambda_max,trace,worst_case,m_sharpness,sam_sharpness,line",
        help="names with commas between them; docs/sharpness.md lists them",
    )
    made.add_argument(
        "--examples",
        type=lambda text: text if text == "all" else commands.count(text),
        default=1000,
        help="of the training set, drawn with the seed; all: the whole set",
    )
    made.add_argument(
        "--batch_norm",
        default="evaluation",
        help="evaluation, by the running statistics, or training, by each batch's own",
    )
    made.add_argument("--rho", type=float, default=0.05, help="radius of the ball")
    made.add_argument(
        "--m", type=commands.count, default=128, help="group of the m-sharpness"
    )
    made.add_argument(
        "--k", type=commands.count, default=1, help="how many eigenvalues"
    )
    made.add_argument(
        "--directions",
        default="random",
        help="of line and plane: random, filter-normalized, or eigenvectors",
    )
    made.add_argument("--seed", type=int, default=0, help="of the draws")
    made.add_argument(
        "--out", help="also a folder, new, of table and pictures of all runs together"
    )
    return made
