"""What the compiler counts in the step of every method, kept to be watched.

    python -m experiments.benchmarks.counts \
        --out=experiments/benchmarks/results/counts.json

Operations, bytes moved, temporary memory and state of the trainer's step of a small
network, whose optimizer weighs as much as its passes. Nothing runs: a machine's speed
and its load change no number, another jaxlib may. tests/experiments/test_counts.py
fails where one has grown by more than one percent.
"""

import sys
from collections.abc import Mapping
from typing import Any

from experiments import commands
from experiments.benchmarks import measure, programs
from experiments.benchmarks.measure import Flag

SILENT = "sam, no diagnostics"
MODEL, BATCH, IMAGE = "mlp:64", 32, 8

Counts = dict[str, int]


@measure.benchmark(
    methods=Flag(commands.several(str), [*programs.names(), SILENT], "names"),
)
def main(args: Any) -> tuple[measure.Results, measure.Tables]:
    """Counts the steps of all methods."""
    results = {name: counted(name) for name in args.methods}
    return results, {f"{MODEL}, batch {BATCH}": table(results)}


def counted(name: str) -> Counts:
    """The counts of one method's step.

    Returns:
        ``flops`` and ``accessed_bytes`` as compiled, ``temporary_bytes``, and
        ``state_bytes``: parameters, optimizer and method.
    """
    method = name.partition(",")[0]
    told = name != SILENT
    chosen = programs.settings(method, MODEL, batch_size=BATCH, diagnostics=told)
    program = programs.Program(programs.run(chosen, programs.noise(BATCH, IMAGE)))
    cost = program.compiled.cost_analysis()
    return {
        "flops": int(cost["flops"]),
        "accessed_bytes": int(cost["bytes accessed"]),
        "temporary_bytes": program.row["temporary_bytes"],
        "state_bytes": program.row["shared_bytes"],
    }


def table(results: Mapping[str, Counts]) -> str:
    """The counts as a Markdown table, in thousands."""
    columns = ("flops", "accessed_bytes", "temporary_bytes", "state_bytes")
    rows = [
        [name, *(f"{found[column] / 1e3:.1f}" for column in columns)]
        for name, found in results.items()
    ]
    return measure.markdown(
        ["step", "kFLOP", "kB moved", "kB temporary", "kB of state"], rows
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
