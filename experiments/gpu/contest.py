"""Programs timed in turns, so that what disturbs the machine disturbs all alike."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.benchmarks import measure
from experiments.gpu.tasks import Context, Row, Task


class Contender(NamedTuple):
    """A way to train.

    Attributes:
        call: does some steps and returns when they are done.
        steps: how many.
        examples: in a step.
        row: what else is known of it, such as the ``flops`` of a step.
    """

    call: Callable[[], object]
    steps: int
    examples: int
    row: Mapping[str, Any] = {}


class Contest:
    """Contenders that are made, warmed up and timed, each of it a task.

    Args:
        context: of the part.
        stages: each name -> makes a contender. The first of all is what the others are
            compared to. Each stage ends with rounds of all contenders so far, so that a
            cut leaves times of those that were made.
        rounds: of a stage.
        preparation: seconds that it takes to make one.
    """

    def __init__(
        self,
        context: Context,
        stages: Sequence[Mapping[str, Callable[[], Contender]]],
        rounds: int,
        preparation: float = 30.0,
    ) -> None:
        self._context, self._stages = context, stages
        self._makers = {k: v for stage in stages for k, v in stage.items()}
        self._rounds, self._preparation = rounds, preparation
        self._made: dict[str, Contender | None] = {}

    def tasks(self) -> Iterator[Task]:
        """A task for each contender, one for each round, a summary."""
        for number, stage in enumerate(self._stages):
            for name in stage:
                prepare = functools.partial(self._prepare, name)
                yield Task(f"program/{name}", self._preparation, prepare)
            for key in self._keys(number):
                again = self._preparation * len(self._to_make_again())
                yield Task(key, 5.0 + again, functools.partial(self._round, key))
        yield Task("summary", 0.0, self._summary)

    def _keys(self, stage: int) -> list[str]:
        return [f"round/{stage}-{number}" for number in range(self._rounds)]

    def _row(self, key: str) -> Row | None:
        return self._context.rows().get(f"{self._context.part}/{key}")

    def _prepare(self, name: str) -> Row:
        self._made[name] = None  # unless all goes well
        start = time.perf_counter()
        made = self._makers[name]()
        made.call()
        first = time.perf_counter() - start
        made.call()
        self._made[name] = made
        return {"to_first_call_seconds": first, "examples": made.examples, **made.row}

    def _to_make_again(self) -> list[str]:
        """Those that an earlier process could make."""
        rows = {name: self._row(f"program/{name}") for name in self._makers}
        return [
            name
            for name, row in rows.items()
            if name not in self._made and row is not None and "error" not in row
        ]

    def _ready(self) -> dict[str, Contender]:
        """Those that could be made; of an earlier process they are made again."""
        for name in self._to_make_again():
            self._prepare(name)
        return {name: made for name, made in self._made.items() if made is not None}

    def _round(self, key: str) -> Row:
        ready = self._ready()
        calls = {name: made.call for name, made in ready.items()}
        times = measure.in_turns(calls, 1, seed=key)
        found = {name: t[0] / ready[name].steps for name, t in times.items()}
        # One that cannot be made today may be tomorrow, and is timed with the others.
        stage = int(key.partition("/")[2].partition("-")[0])
        missing = {x for made in self._stages[: stage + 1] for x in made} - set(ready)
        return {"seconds_per_step": found, **({"partial": True} if missing else {})}

    def _summary(self) -> Row:
        """Medians, ratios round by round, and the share of the peak."""
        stages = range(len(self._stages))
        found = [self._row(key) for stage in stages for key in self._keys(stage)]
        rounds = [
            row["seconds_per_step"] for row in found if row and "error" not in row
        ]
        peak = self._context.rows().get("peak/matmul", {}).get("flops_per_second")
        reference = next(iter(self._makers))
        summary = {}
        for name in self._makers:
            times = [seconds[name] for seconds in rounds if name in seconds]
            if not times:
                continue
            row = self._row(f"program/{name}") or {}
            median = measure.median(times)
            summary[name] = {
                "milliseconds": 1e3 * median,
                "examples_per_second": row["examples"] / median,
            }
            both = [seconds for seconds in rounds if {name, reference} <= set(seconds)]
            if both:
                ratio = measure.ratio(
                    [s[name] for s in both], [s[reference] for s in both]
                )
                summary[name][f"time_over_{reference}"] = ratio._asdict()
            if peak and "flops" in row:
                summary[name]["share_of_peak"] = row["flops"] / median / peak
        partial = any(row is None or "partial" in row for row in found)
        return {
            **{"rounds": len(rounds), "of": summary},
            **({"partial": True} if partial else {}),
        }
