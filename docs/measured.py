"""What is measured and published of a method, for its page."""

import json
import pathlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
COSTS = EXPERIMENTS / "benchmarks" / "results"
RESULTS = EXPERIMENTS / "training" / "results"
TABLES = EXPERIMENTS / "training" / "tables"
BASELINES = ("sgd", "sam")  # shown for comparison


def table(head: str, rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head.split(" | "), ["---"] * len(head.split(" | ")), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def cost(name: str) -> str:
    """Time, work and memory of its step beside SGD's, of each network's calmest run."""
    rows: dict[str, tuple[float, list[str]]] = {}
    for path in sorted(COSTS.glob("step_cost*.json")):
        for network, of in json.loads(path.read_text())["results"].items():
            if name not in of:
                continue
            found, ratio = of[name], of[name]["time_ratio"]["sgd"]
            median, low, high = (ratio[key] for key in ("median", "low", "high"))
            cells = [
                network.replace("resnet18:", "ResNet-18, width "),
                f"{median:.2f} [{low:.2f}, {high:.2f}]",
                f"{found['flops_ratio']:.2f}",
                f"{found['extra_temp_copies']['sgd']:.1f}",
            ]
            rows[network] = min(rows.get(network, (high, [])), (high - low, cells))
    if not rows:
        return "The cost of a step has not been measured yet."
    head = "network | time | FLOPs | memory"
    return (
        f"{table(head, [cells for _, cells in rows.values()])}\n\nTime and FLOPs of a "
        "step are relative to SGD's: medians of alternating rounds [smallest, "
        "largest], on two cores of a cloud CPU (`python -m "
        "experiments.benchmarks.step_cost`). FLOPs count both branches of a condition; "
        "the time is that of the branch that runs. Memory is the temporary memory "
        "beyond SGD's, in copies of the parameters."
    )


def ours(name: str) -> str:
    """Its rows in the tables of our experiments, with those of SGD and SAM."""
    rows = []
    for path in sorted(RESULTS.glob("*/table.md")):
        found = list(_errors(path.read_text()))
        if any(run == name for _, run, *_ in found):
            place = f"[{path.parent.name}](../experiments/{path.parent.name}.md)"
            for part, run, label, error in found:
                if run in {name, *BASELINES}:
                    shown = f"**{label}**" if run == name else label
                    rows.append([place, part, shown, error])
    if not rows:
        return "No experiment with this method has been run yet."
    return table("experiment | part | run | test error (%)", rows)


def _errors(text: str) -> Iterator[tuple[str, str, str, str]]:
    """Part of the table, method, run and test error of its rows that were run."""
    part, columns = "", []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("## "):
            part = line[3:]
        elif "run" in cells:
            columns = cells
        elif line.startswith("| ") and columns and "test error (%)" in columns:
            error = cells[columns.index("test error (%)")]
            if re.match(r"\d", error):
                label = cells[columns.index("run")]
                yield part, re.split(r"[(,]", label)[0], label, error


def published(name: str) -> str:
    """What papers or their authors' code report of it."""
    rows = []
    for path in sorted(TABLES.glob("*.toml")):
        text = tomllib.loads(path.read_text())
        for cell in text.get("published", ()):
            if name in _methods(text, cell["where"]):
                where = ", ".join(
                    str(value) if key.endswith("name") else f"{place} {value}"
                    for key, value in cell["where"].items()
                    if key != "method.name" and (place := key.split(".")[-1])
                )
                chosen = text.get("settings", {}) | cell["where"]
                official = chosen.get("data.name") == "cifar100"
                source = cell["source"] + ", official split" * official
                rows.append([text["title"], where, cell["value"], source])
    if not rows:
        return "No published number that could be checked is recorded here."
    head = "table | setting | test error (%), unless it says otherwise | source"
    return table(head, rows)


def _methods(text: Mapping[str, Any], where: Mapping[str, Any]) -> set[str]:
    """The methods that a published cell may be of."""
    if "method.name" in where:
        return {where["method.name"]}

    def agrees(row: Mapping[str, Any]) -> bool:
        mine = text.get("settings", {}) | row
        return all(value in _all(mine.get(key, value)) for key, value in where.items())

    own = [key for key in where if key.startswith("method.")]
    rows = [row for row in text["rows"] if all(key in row for key in own)]
    found = [_all(row.get("method.name", [])) for row in rows if agrees(row)]
    return {name for names in found for name in names} if own else set()


def _all(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
