"""What the families of jobs are made of: tasks, each of which measures one row."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Row = Mapping[str, Any]

# Settings of `experiments.benchmarks.programs` that the families share.
BFLOAT16 = {"dtype": "bfloat16"}
TINY = {"name": "resnet_digits", "width": 4, **BFLOAT16}


class Task(NamedTuple):
    """One measurement.

    Attributes:
        key: of its row.
        seconds: that it is expected to take; with less left it is not begun.
        measure: gives the row.
    """

    key: str
    seconds: float
    measure: Callable[[], Row]


class Context(NamedTuple):
    """What a family is told.

    Attributes:
        part: of the family.
        tiny: the smallest sizes, to try the code on any backend.
        data: folder with the packed images, if any.
        left: seconds until all must be written.
        rows: what the family has so far, by part and task.
        save: keeps what a task has so far.
    """

    part: str
    tiny: bool
    data: pathlib.Path | None
    left: Callable[[], float]
    rows: Callable[[], Mapping[str, Row]]
    save: Callable[[Row], None]
