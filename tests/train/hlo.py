"""What a compiled program sends over the network, and which buffers it writes over."""

import math
import re
from typing import NamedTuple


class Collective(NamedTuple):
    """One collective operation.

    Attributes:
        name: such as ``all-reduce``.
        elements: of each array that it results in.
        devices: in one of its groups.
    """

    name: str
    elements: tuple[int, ...]
    devices: int


_NAMES = (
    "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    "|collective-broadcast|ragged-all-to-all"
)


def collectives(compiled) -> list[Collective]:
    """All of them, also those in loops and branches; each is counted once."""
    found = []
    for line in compiled.as_text().splitlines():
        match = re.search(rf"= (.*?) ({_NAMES})(?:-start)?\(", line)
        if match:
            shapes = re.findall(r"\w+\[([\d,]*)\]", match[1])
            elements = tuple(
                math.prod(int(n) for n in shape.split(",") if n) for shape in shapes
            )
            found.append(Collective(match[2], elements, _devices(line)))
    return found


def _devices(line) -> int:
    """Devices in a group, from any of the forms in which XLA prints groups."""
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return len(listed[1].split(","))
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(iota[1])
    named = re.search(r"replica_groups=mesh\[(.*?)\] ?\{(.*?)\}", line)
    assert named is not None, line
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
    axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named[2])
    return math.prod(int(part or sizes[axis]) for axis, part in axes)


def copies(compiled, parameters: int, name: str = "all-reduce") -> float:
    """How many times all parameters such collectives carry, small ones left out."""
    carried = sum(
        sum(each.elements)
        for each in collectives(compiled)
        if each.name == name and each.devices > 1
    )
    return carried / parameters
