"""Lower bounds of pyproject.toml that a resolver did not take: they promise too much.

    python -m tests.bounds RESOLVED.txt

RESOLVED.txt is what ``uv pip compile --all-extras --resolution lowest-direct`` wrote.
"""

import pathlib
import re
import sys
import tomllib

from packaging import requirements

ROOT = pathlib.Path(__file__).parents[1]


def untrue(project: dict, resolved: str) -> list[str]:
    """Requirements whose lower bound is not the version resolved to."""
    found = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", resolved, re.MULTILINE)
    }
    extras = project["optional-dependencies"].values()
    promises = {*project["dependencies"], *(each for extra in extras for each in extra)}
    wrong = []
    for promise in sorted(each for each in promises if ">=" in each):
        marker = requirements.Requirement(promise).marker
        if marker is not None and not marker.evaluate():  # for another platform
            continue
        name, bound = re.match(r"([\w.-]+)>=([\d.]+)", promise).groups()
        version = found.get(re.sub(r"[-_.]+", "-", name).lower(), "nothing")
        if _parts(version) != _parts(bound):
            wrong.append(f"{promise}: the lowest that resolves is {version}")
    return wrong


def _parts(version: str) -> list[str]:
    return re.sub(r"(\.0)+$", "", version).split(".")


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wrong = untrue(project, pathlib.Path(sys.argv[1]).read_text())
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))
