"""What a compiled program sends over the network."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


def gather_bytes(size: float, chips: int) -> float:
    """What a chip sends in an all-gather or a reduce-scatter.

    Args:
        size: bytes of the whole array.
        chips: that take part.

    Returns:
        Bytes.

    Example:
        >>> gather_bytes(100, 4)
        75.0
    """
    return size * (chips - 1) / chips


def all_reduce_bytes(size: float, chips: int) -> float:
    """What a chip sends in an all-reduce: a reduce-scatter and an all-gather.

    Args:
        size: bytes of the array.
        chips: that take part.

    Returns:
        Bytes; ``2 * size`` is the limit.

    Example:
        >>> all_reduce_bytes(100, 4), all_reduce_bytes(100, 1)
        (150.0, 0.0)
    """
    return 2 * gather_bytes(size, chips)


class Collective(NamedTuple):
    """One collective operation.

    Attributes:
        name: such as ``all-reduce``.
        elements: of each array that it results in.
        bytes: of all these arrays.
        devices: in one of its groups.
    """

    name: str
    elements: tuple[int, ...]
    bytes: int
    devices: int

    @property
    def sent(self) -> float:
        """Bytes that a device sends if its group is a ring.

        Raises:
            KeyError: for an operation whose bytes are not known here.

        Example:
            >>> Collective("all-reduce", (10, 15), 100, devices=4).sent
            150.0
        """
        return _SENT[self.name](self.bytes, self.devices)


# Results, in bytes, and devices of a group -> bytes sent by a device.
_SENT: Mapping[str, Callable[[float, int], float]] = {
    "all-reduce": all_reduce_bytes,
    "all-gather": gather_bytes,
    "reduce-scatter": lambda part, n: gather_bytes(n * part, n),
    "all-to-all": gather_bytes,
}
_NAMES = (
    "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    "|collective-broadcast|ragged-all-to-all"
)


def collectives(compiled: Any) -> list[Collective]:
    """All of them, also those in loops and branches; each is counted once.

    Args:
        compiled: what ``jax.jit(...).lower(...).compile()`` gives.

    Returns:
        In the order of the program's text.
    """
    found = []
    for line in compiled.as_text().splitlines():
        match = re.search(rf"= (.*?) ({_NAMES})(?:-start)?\(", line)
        if match:
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
            elements = tuple(
                math.prod(int(n) for n in shape.split(",") if n) for _, shape in shapes
            )
            size = sum(
                n * _item_bytes(dtype)
                for n, (dtype, _) in zip(elements, shapes, strict=True)
            )
            found.append(Collective(match[2], elements, size, _devices(line)))
    return found


def copies(compiled: Any, parameters: int, name: str = "all-reduce") -> float:
    """How many times all parameters such collectives carry, small ones left out.

    Args:
        compiled: the program.
        parameters: their number.
        name: of the collectives.

    Returns:
        Elements carried over parameters.
    """
    carried = sum(
        sum(each.elements)
        for each in collectives(compiled)
        if each.name == name and each.devices > 1
    )
    return carried / parameters


def _item_bytes(dtype: str) -> int:
    """Of XLA's types; ``pred`` and those below a byte take one."""
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else 1


def _devices(line: str) -> int:
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
