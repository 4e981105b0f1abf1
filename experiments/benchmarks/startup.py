"""How long the quick start takes to the end of its first step, and what takes it.

    python -m experiments.benchmarks.startup --rounds=3 \
        --out=experiments/benchmarks/results/startup.json

The command line of the trainer is started as a user would, with an empty compilation
cache (cold) and then again with what that left (warm), and its output is watched. What
importing and reading the data take of that time is measured in processes of their own;
the rest up to the header makes the first state, and the step is compiled after it.
"""

import os
import sys
import tempfile
import time
from typing import Any

from experiments import commands
from experiments.benchmarks import measure
from experiments.benchmarks.measure import Flag
from sam_jax.train import cards

HEADER, FIRST_STEP = "devices", "compiled and ran the first step"
PARTS = ("imports", "data", "state", "step")
# What the command line imports before it builds a run.
IMPORTS = "import sam_jax.main, jax; from sam_jax.train import cards, loop, workdir"
DATA = "from sam_jax import data; data.load(config.data.name)"

Starts = dict[str, dict[str, list[float]]]  # cache -> part -> seconds of each start


@measure.benchmark(
    card=Flag(str, "configs/digits_sam.py", "run card"),
    rounds=Flag(commands.count, 3, "starts of each kind"),
)
def main(args: Any) -> tuple[Starts, measure.Tables]:
    """Starts the trainer with an empty cache and with a full one."""
    cards.load(args.card)  # its mistakes show before anything is timed
    starts: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as cache:
            for of_kind in starts.values():
                of_kind.append(start(args.card, cache))
    found = {
        kind: {part: [s[part] for s in of_kind] for part in ("total", *PARTS)}
        for kind, of_kind in starts.items()
    }
    return found, {"": table(found)}


def start(card: str, cache: str) -> dict[str, float]:
    """One start of the trainer.

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
    code_of_exit, said = commands.child([sys.executable, "-c", code])
    if code_of_exit:
        raise RuntimeError(said)
    return time.perf_counter() - begin


def watch(card: str, cache: str) -> tuple[float, float]:
    """Runs one epoch of a card and watches for two lines of its output.

    Returns:
        Seconds to the header, and to the end of the first step.
    """
    seen: dict[str, float] = {}

    def look(line: str) -> None:
        for mark in (HEADER, FIRST_STEP):
            if line.startswith(mark):
                seen[mark] = time.perf_counter() - begin

    with tempfile.TemporaryDirectory() as workdir:
        begin = time.perf_counter()
        code, said = commands.child(
            [
                *(sys.executable, "-m", "sam_jax.main"),
                f"--config={card}",
                "--config.epochs=1",
                f"--compilation_cache={cache}",
                f"--workdir={workdir}",
            ],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            seen=look,
        )
    if code or len(seen) != 2:
        raise RuntimeError(f"exit code {code}, lines seen: {list(seen)}\n{said}")
    return seen[HEADER], seen[FIRST_STEP]


def table(starts: Starts) -> str:
    """Medians over the starts in seconds, and the slowest, as a Markdown table."""
    rows = [
        [
            kind,
            *(f"{measure.median(found[part]):.1f}" for part in (*PARTS, "total")),
            f"{max(found['total']):.1f}",
        ]
        for kind, found in starts.items()
    ]
    return measure.markdown(["cache", *PARTS, "first step done", "slowest"], rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
