"""``sam-jax compare``: finished runs side by side."""

import os
import shlex
from collections.abc import Sequence

from sam_jax import commands, errors, storage


@commands.ends
def main(arguments: Sequence[str]) -> int:
    """Prints the table; writes it if there is a folder to write to."""
    made = commands.parser(
        "compare",
        "Compares finished runs: those that differ in the seed only are one row, with "
        "mean and 95 % t-interval. Trains nothing.",
        "sam-jax compare runs/sgd_* runs/sam_* --out=comparison",
    )
    commands.add_runs(made)
    commands.add_latex(made)
    made.add_argument("--out", help="also a folder of table, CSV, JSON and curves")
    given = made.parse_args(arguments)

    from sam_jax.train import comparison, comparison_files

    out = given.out and storage.path(given.out)
    if out and os.path.realpath(out) in map(os.path.realpath, given.runs):
        raise errors.UserError(
            f"--out={given.out} is one of the folders that are compared, whose record "
            "it would replace: give another one"
        )
    groups = comparison.of_paths(given.runs, tuned=given.tuned)
    if out:
        comparison_files.check_folder(out)
        command = shlex.join(["sam-jax", "compare", *arguments])
        comparison_files.write(out, groups, tex=given.latex, command=command)
        comparison_files.draw(out, groups, out.name)
    shown = comparison_files.latex if given.latex else comparison_files.markdown
    print(shown(groups))
    return 0
