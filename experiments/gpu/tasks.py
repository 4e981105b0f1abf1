"""What the families of jobs are made of: tasks, each of which measures one row."""

import importlib.util
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Missing(Exception):
    """Something that a task needs is not here; its message is one line."""


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


def need(package: str) -> None:
    """Says that a package is missing.

    Raises:
        Missing: if it is not installed.

    Example:
        >>> need("no_such_package")
        Traceback (most recent call last):
        experiments.gpu.tasks.Missing: no_such_package is not installed
    """
    try:
        found = importlib.util.find_spec(package)
    except ValueError:  # blocked in sys.modules
        found = None
    if found is None:
        raise Missing(f"{package} is not installed")
