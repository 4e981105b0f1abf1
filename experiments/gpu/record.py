"""Results of a family of jobs: one JSON file, written anew after every measurement.

{"runs":  [what each process ran on],
 "parts": {part: "complete", "begun" or "failed"},
 "rows":  {"part/measurement": {"run": which process, ...}}}
"""

import datetime
import hashlib
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

from experiments.benchmarks import measure
from sam_jax import errors
from sam_jax.train import files

ROOT = measure.ROOT
RESULTS = pathlib.Path(__file__).parent / "results"
CLOCKS = "clocks.sm,clocks.mem,temperature.gpu,power.draw,memory.used"
PAUSE = 5.0  # seconds between two questions for the clocks


class Record:
    """The rows of a family.

    Args:
        path: of the file.
        earlier: rows to begin with where that file does not exist yet.

    Attributes:
        rows: key -> what was measured.
        parts: part -> how it ended last.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record = Record(pathlib.Path(folder, "a.json"))
        ...     record.add("x/time", {"seconds": 1.0})
        ...     Record(pathlib.Path(folder, "a.json")).has("x/time")
        True
    """

    def __init__(self, path: pathlib.Path, earlier: pathlib.Path | None = None) -> None:
        self._path, self._asked = path, 0.0
        found: dict[str, Any] = {}
        for place in (path, earlier):
            if place is not None and place.exists():
                with errors.translated(f"{place} is damaged", "delete it"):
                    found = files.from_json(place.read_bytes())
                break
        self._runs: list[Any] = found.get("runs", [])
        self.parts: dict[str, str] = found.get("parts", {})
        self.rows: dict[str, dict[str, Any]] = found.get("rows", {})

    def begin(self, run: Mapping[str, Any]) -> None:
        """Says what the next rows are measured on."""
        self._runs.append(dict(run))
        self._write()

    def has(self, key: str) -> bool:
        """Whether something was measured to its end, without an error."""
        row = self.rows.get(key)
        return row is not None and "error" not in row and "partial" not in row

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Keeps a row, in place of an earlier one of this key."""
        stamp: dict[str, Any] = {"run": len(self._runs) - 1}
        # The question takes a while; rows come in quick succession.
        if time.monotonic() - self._asked > PAUSE:
            stamp["clocks"] = nvidia_smi(CLOCKS)
            self._asked = time.monotonic()
        self.rows[key] = {**row, **stamp}
        self._write()

    def mark(self, part: str, status: str) -> None:
        """Says how a part ended."""
        self.parts[part] = status
        self._write()

    def _write(self) -> None:
        """All of it, into a new file that then takes the place of the old one."""
        whole = {"runs": self._runs, "parts": self.parts, "rows": self.rows}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(self._path, files.to_lines(whole) + "\n")


def machine(tiny: bool) -> dict[str, Any]:
    """What rows are measured on: card, driver, versions, code."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "tiny": tiny,
        "card": nvidia_smi("name,driver_version,memory.total,clocks.max.sm"),
        "versions": measure.versions(),
        **measure.machine(),
        "source": source(),
        "command": sys.argv[1:],
    }


def nvidia_smi(query: str) -> dict[str, str]:
    """What ``nvidia-smi`` says of the first GPU; nothing without one."""
    options = (f"--query-gpu={query}", "--format=csv,noheader", "--id=0")
    found = measure.output("nvidia-smi", *options)
    if not found:
        return {}
    values = [value.strip() for value in found.split(",")]
    return dict(zip(query.split(","), values, strict=False))


def source() -> str:
    """A hash of the code, for machines that have a copy without its history."""
    digest = hashlib.sha256()
    for folder in ("sam_jax", "experiments", "configs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
