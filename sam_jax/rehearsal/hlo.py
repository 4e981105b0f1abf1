"""What a compiled program does, read from its text: collectives, copies, products."""

import collections
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np


def gather_bytes(size: float, chips: int) -> float:
    """What a chip sends in an all-gather or a reduce-scatter of ``size`` bytes.

    Example:
        >>> gather_bytes(100, 4)
        75.0
    """
    return size * (chips - 1) / chips


def all_reduce_bytes(size: float, chips: int) -> float:
    """What a chip sends in an all-reduce: a reduce-scatter and an all-gather.

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
        place: what of a step it belongs to, see `PLACES`.
        times: how often a step does it: more than once in a loop.
        groups: the devices of each group, int [groups, devices]; None if not told.
        hidden: whether other work is done while it is under way.
    """

    name: str
    elements: tuple[int, ...]
    bytes: int
    devices: int
    place: str = "other"
    times: int = 1
    groups: np.ndarray | None = None
    hidden: bool = False

    @property
    def sent(self) -> float:
        """Bytes that a device sends if its group is a ring, each time.

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
    "collective-permute": lambda part, n: part,
    "collective-broadcast": lambda part, n: part,
    "ragged-all-to-all": gather_bytes,
    "all-reduce between slices": all_reduce_bytes,
}
BETWEEN = "all-reduce between slices"  # over the network of the data center
_KINDS = "|".join(sorted(_SENT, key=len, reverse=True))

# Scopes of the step (`sam_jax.train.step`), in the names of operations.
PLACES = {
    "first_pass": "first pass",
    "second_pass": "second pass",
    "base_optimizer": "optimizer",
    "metrics": "metrics",
    "psum": "direction",
}
NORM = "BatchNorm"


class Instruction(NamedTuple):
    """A line of a program.

    Attributes:
        name: its own.
        type: of the result, as XLA writes it.
        operation: such as ``fusion``.
        text: the line.
    """

    name: str
    type: str
    operation: str
    text: str

    @property
    def arrays(self) -> list[tuple[str, tuple[int, ...]]]:
        """Dtype and shape of each array of the result."""
        return [
            (dtype, tuple(int(n) for n in shape.split(",") if n))
            for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", self.type)
        ]

    @property
    def bytes(self) -> int:
        """Of the result, without the padding of its layout."""
        return sum(_item_bytes(kind) * math.prod(n) for kind, n in self.arrays)

    @property
    def source(self) -> str:
        """The operation of the step that it stems from."""
        found = re.search(r'op_name="([^"]*)"', self.text)
        return found[1] if found else ""


_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\(")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|body|to_apply|\w*computations?)=\{?(%[\w.\-, %]+)")


class Program:
    """A program that XLA has compiled for a device.

    Attributes:
        computations: name -> instructions.
        types: name of an instruction -> that.
        entry: name of the computation that is run.
    """

    def __init__(self, text: str) -> None:
        self.computations: dict[str, list[Instruction]] = {}
        self.types: dict[str, Instruction] = {}
        self.entry, current = "", None
        for line in text.splitlines():
            if head := _HEAD.match(line):
                current = self.computations.setdefault(head[2], [])
                self.entry = head[2] if head[1] else self.entry
            elif found := _LINE.match(line):
                if current is None:  # a part of a program
                    current = self.computations.setdefault(self.entry, [])
                current.append(Instruction(found[1], found[2], found[3], line))
                self.types[found[1]] = current[-1]

    def run(self, name: str | None = None, times: int = 1) -> Iterator[Any]:
        """All instructions that are run, fusions as they stand and what they hold.

        Args:
            name: of the computation; None for the program.
            times: how often that is run.

        Yields:
            Instruction, how often a step runs it, and whether it is inside a fusion. Of
            a branch all sides count; of a loop without a known end, one round.
        """
        for each in self.computations.get(name or self.entry, []):
            yield each, times, False
            if each.operation in _SENT or each.operation.startswith("reduce"):
                continue  # what they apply is the sum of two numbers
            often = times * self._rounds(each)
            for called in _CALLED.findall(each.text):
                for part in re.findall(r"%([\w.\-]+)", called):
                    yield from self._inside(each, part, often)

    def _rounds(self, each: Instruction) -> int:
        """Of a loop, as it says itself, or as its condition on the counter does."""
        if each.operation != "while":
            return 1
        if told := re.search(r'"known_trip_count":\{"n":"(\d+)"', each.text):
            return int(told[1])
        name = re.search(r"condition=%?([\w.\-]+)", each.text)
        lines = [x.text for x in self.computations.get(name[1] if name else "", ())]
        bounds = [re.search(r"s32\[\].* constant\((\d+)\)", text) for text in lines]
        counts = any("direction=LT" in text for text in lines)
        return max((int(n[1]) for n in bounds if n), default=1) if counts else 1

    def _inside(self, caller: Instruction, name: str, times: int) -> Iterator[Any]:
        fused = caller.operation == "fusion"
        for each, often, within in self.run(name, times):
            yield each, often, within or fused

    def collectives(self) -> list[Collective]:
        """All collectives, in the order of the program."""
        found, place = [], "other"
        for each, times, _ in self.run():
            place = _scope(each.source) or place
            if match := re.fullmatch(rf"({_KINDS})(-start)?", each.operation):
                found.append(_collective(each, match[1], times, place))
            elif each.operation == "send" and "megascale" in each.text:
                size = sum(_item_bytes(t) * math.prod(n) for t, n in each.arrays[:1])
                (target,) = re.findall(r'megascale_target="\{([\d,]+)\}', each.text)
                found.append(
                    Collective(
                        BETWEEN,
                        (math.prod(each.arrays[0][1]),),
                        size,
                        len(target.split(",")),
                        place,
                        times,
                    )
                )
        return found

    def products(self) -> list["Product"]:
        """Convolutions and matrix products, which XLA for TPUs writes as the former."""
        found = []
        for each, times, _ in self.run():
            if each.operation in ("convolution", "dot"):
                names = re.findall(r"%([\w.\-]+)", each.text.partition("(")[2])[:2]
                operands = [self.types[name].arrays[0] for name in names]
                found.append(Product(each, operands, times))
        return found

    def copies(self) -> list[tuple[Instruction, int]]:
        """Arrays that are written again in another layout, and how often in a step."""
        return [
            (each, times)
            for each, times, fused in self.run()
            if each.operation in ("copy", "transpose") and not fused
        ]


class Product(NamedTuple):
    """A convolution.

    Attributes:
        instruction: itself.
        operands: dtype and shape of both.
        times: how often a step does it.
    """

    instruction: Instruction
    operands: list[tuple[str, tuple[int, ...]]]
    times: int

    @property
    def flops(self) -> float:
        """Of one time, also those with the padding."""
        ((_, result),) = self.instruction.arrays[:1]
        _, kernel = self.operands[1]
        labels = re.search(r"dim_labels=\w+_(\w+)->", self.instruction.text)
        out = kernel[labels[1].index("o")] if labels else kernel[-1]
        return 2.0 * math.prod(result) * math.prod(kernel) / max(1, out)


def collectives(compiled: Any) -> list[Collective]:
    """All collectives of what ``jax.jit(...).lower(...).compile()`` gives.

    Returns:
        In the order of the program's text; of branches both sides.
    """
    return Program(compiled.as_text()).collectives()


def _collective(each: Instruction, kind: str, times: int, before: str) -> Collective:
    """A collective; XLA names no source of those that it has made itself."""
    arrays = each.arrays
    started = each.operation.endswith("-start")
    if started and kind != "all-reduce":  # operands and results
        arrays = arrays[len(arrays) // 2 :] if kind == "all-gather" else arrays[1:2]
    sizes = [(_item_bytes(dtype), math.prod(shape)) for dtype, shape in arrays]
    groups = _groups(each.text)
    return Collective(
        kind,
        tuple(count for _, count in sizes),
        sum(item * count for item, count in sizes),
        2 if groups is None else groups.shape[1],
        _place(each, arrays) if each.source else before,
        times,
        groups,
        hidden=started,
    )


def _place(each: Instruction, arrays: list[tuple[str, tuple[int, ...]]]) -> str:
    """Where in a step; the sums of gradients are together with those of others."""
    statistics = all(len(shape) == 1 for _, shape in arrays) and len(arrays) <= 8
    if NORM in each.source and statistics:
        return NORM
    return _scope(each.source) or "other"


def _scope(source: str) -> str | None:
    return next((place for scope, place in PLACES.items() if scope in source), None)


def copies(compiled: Any, parameters: int, name: str = "all-reduce") -> float:
    """How many times all parameters such collectives carry, small ones left out."""
    carried = sum(
        sum(each.elements)
        for each in collectives(compiled)
        if each.name == name and each.devices > 1
    )
    return carried / parameters


def totals(found: list[Collective]) -> list[dict[str, Any]]:
    """Collectives over several devices, by kind and place: counts and bytes a step.

    Example:
        >>> (row,) = totals([Collective("all-reduce", (25,), 100, devices=4)] * 2)
        >>> print(*row.values())
        all-reduce other 2 200 300
    """
    rows: dict[tuple[str, str], dict[str, Any]] = collections.defaultdict(
        lambda: {"count": 0, "bytes": 0, "sent": 0}
    )
    for each in found:
        if each.devices > 1:
            row = rows[each.name, each.place]
            row["count"] += each.times
            row["bytes"] += each.times * each.bytes
            row["sent"] += round(each.times * each.sent)
    return [{"kind": kind, "place": at, **row} for (kind, at), row in rows.items()]


def _item_bytes(dtype: str) -> int:
    """Of XLA's types; ``pred`` and those below a byte take one."""
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else 1


def _groups(line: str) -> np.ndarray | None:
    """Devices of each group, from any of the forms in which XLA prints groups."""
    if listed := re.search(r"replica_groups=\{(\{.*?\})\}", line):
        rows = re.findall(r"\{([\d,]*)\}", listed[1])
        return np.array([[int(n) for n in row.split(",")] for row in rows])
    if iota := re.search(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line
    ):
        shape = [int(n) for n in iota[3].split(",")]
        order = [
            int(n)
            for n in (iota[4] or ",".join(map(str, range(len(shape))))).split(",")
        ]
        ids = np.arange(math.prod(shape)).reshape(shape).transpose(order)
        return ids.reshape(int(iota[1]), int(iota[2]))
    if named := re.search(r"replica_groups=mesh\[(.*?)\] ?\{(.*?)\}", line):
        return _of_mesh(named[1], named[2])
    return None  # of neighbours, as in a collective-permute


def _of_mesh(mesh: str, axes: str) -> np.ndarray:
    """Groups along axes of a mesh, or parts of them: ``'a':(2)4`` skips 2, takes 4."""
    sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", mesh)}
    shape, along, position = [], [], 0
    chosen = {
        name: (int(before or 1), int(part or sizes[name]))
        for name, before, part in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", axes)
    }
    for name, size in sizes.items():
        before, part = chosen.get(name, (size, 1))
        shape += [before, part, size // before // part]
        along += [position + 1]
        position += 3
    ids = np.moveaxis(
        np.arange(math.prod(shape)).reshape(shape),
        along,
        range(len(shape) - len(along), len(shape)),
    )
    return ids.reshape(-1, math.prod(shape[i] for i in along))
