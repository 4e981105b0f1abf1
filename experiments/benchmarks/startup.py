"""How long the quick start takes to the end of its first step, and what takes it.

    python -m experiments.benchmarks.startup --rounds=3 \
        --out=experiments/benchmarks/results/startup.json

The command line of the trainer is started as a user would, with an empty compilation
cache (cold) and then again with what that left (warm), and its output is watched. What
importing and reading the data take of that time is measured in processes of their own;
the rest up to the header makes the first state, and the step is compiled after it.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import commands
from experiments.benchmarks import measure
from sam_jax.train import cards

HEADER, FIRST_STEP = "devices", "compiled and ran the first step"
PARTS = ("imports", "data", "state", "step")
# What the command line imports before it builds a run.
IMPORTS = "import sam_jax.main, jax; from sam_jax.train import cards, loop, workdir"
DATA = "from sam_jax import data; data.load(config.data.name)"


@commands.ends
def main(argv: Sequence[str]) -> int:
    """Measures as the command line says, prints the table, writes the record.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code.
    """
    parser = measure.parser(__doc__)
    parser.add_argument("--card", default="configs/digits_sam.py", help="run card")
    parser.add_argument(
        "--rounds", type=commands.count, default=3, help="starts of each kind"
    )
    args = parser.parse_args(argv)
    cards.load(args.card)  # its mistakes show before anything is timed
    starts: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as cache:
            for of_kind in starts.values():
                of_kind.append(start(args.card, cache))
    print(table(starts))
    measure.write(args.out, "experiments.benchmarks.startup", argv, starts)
    return 0


def start(card: str, cache: str) -> dict[str, float]:
    """One start of the trainer.

    Args:
        card: run card.
        cache: folder of the compilation cache.

    Returns:
        ``total``, seconds to the end of the first step, and its `PARTS`.
    """
    imports = seconds_of(IMPORTS)
    loads = f"config = cards.load({card!r}); {DATA}"
    data = seconds_of(f"{IMPORTS}; {loads}") - imports
    header, total = watch(card, cache)
    return {
        "total": total,
        "imports": imports,
        "data": data,
        "state": header - imports - data,
        "step": total - header,
    }


def seconds_of(code: str) -> float:
    """Seconds that a fresh Python takes for some code, its own start included."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begin


def watch(card: str, cache: str) -> tuple[float, float]:
    """Runs one epoch of a card and watches for two lines of its output.

    Args:
        card: run card.
        cache: folder of the compilation cache.

    Returns:
        Seconds to the header, and to the end of the first step.

    Raises:
        RuntimeError: if the run fails or does not print the two lines.
    """
    seen: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as workdir:
        command = [
            *(sys.executable, "-m", "sam_jax.main"),
            f"--config={card}",
            "--config.epochs=1",
            f"--compilation_cache={cache}",
            f"--workdir={workdir}",
        ]
        begin = time.perf_counter()
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                for mark in (HEADER, FIRST_STEP):
                    if line.startswith(mark):
                        seen[mark] = time.perf_counter() - begin
    if process.returncode or len(seen) != 2:
        raise RuntimeError(f"exit code {process.returncode}, lines seen: {list(seen)}")
    return seen[HEADER], seen[FIRST_STEP]


def table(starts: dict[str, list[dict[str, Any]]]) -> str:
    """Medians over the starts in seconds, and the slowest, as a Markdown table."""
    rows = [
        [
            kind,
            *(f"{np.median([s[part] for s in of_kind]):.1f}" for part in PARTS),
            f"{np.median([s['total'] for s in of_kind]):.1f}",
            f"{max(s['total'] for s in of_kind):.1f}",
        ]
        for kind, of_kind in starts.items()
    ]
    return measure.markdown(["cache", *PARTS, "first step done", "slowest"], rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
