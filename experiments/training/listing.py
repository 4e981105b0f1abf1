"""What tables there are, what they cost, and the commands of their runs."""

import pathlib
import shlex
from collections.abc import Iterator

from experiments.training import engine
from experiments.training import table as table_lib
from sam_jax.train import cards, settings


def of_tables(results: pathlib.Path, runs: pathlib.Path) -> str:
    """A line for each table: finished and planned runs, cost, title."""
    lines = []
    for name in table_lib.names():
        table = table_lib.load(name)
        plan = table_lib.planned(table)
        done = engine.finished(plan, results, runs)
        left = {key: config for key, config in plan.items() if key not in done}
        cost = table_lib.cost(table, left)
        lines.append(
            f"{name:<18} {len(done):>4} of {len(plan):<4} {cost:<26} {table.title}"
        )
    return "\n".join(lines)


def commands(job: engine.Job) -> Iterator[str]:
    """The missing runs as commands of the trainer, for machines of any kind."""
    table, _, missing = job.state()
    for name, config in missing.items():
        method = "sgd" if config.method.name == "none" else config.method.name
        card = f"{table.card.partition(':')[0]}:{method}"
        base = cards.load(card)
        before = settings.flat_text(base)
        words = [
            f"--config.{key}={value}"
            for key, value in settings.flat_text(config).items()
            if before.get(key) != value
        ]
        run = ["--config=" + card, f"--workdir={job.runs / name}"]
        yield shlex.join(["python", "-m", "sam_jax.main", *run, *words])
