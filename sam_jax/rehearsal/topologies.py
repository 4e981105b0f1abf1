"""TPU slices by name: what a chip can do, and how many there are.

Sources of the numbers: Austin et al., "How to Scale Your Model", 2025, chapter 2
(https://jax-ml.github.io/scaling-book/tpus), and the pages of Cloud TPU's versions
(https://cloud.google.com/tpu/docs/system-architecture-tpu-vm).
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sam_jax import errors


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one chip, or one device of several that a chip is, can do.

    Attributes:
        hbm: its memory, GiB.
        flops: products and sums in bfloat16 each second.
        bandwidth: of its memory, bytes/s.
        link: of one link to a neighbour, in one direction, bytes/s.
        network: of its share of the network between slices, bytes/s.
        shapes: of slices that there are, as in ``4x4``.
        cores: by which Cloud TPU names slices, per chip.
        wraps: chips along an axis from which on its ends are joined.
        options: of the compiler, to see a chip as one device.
        devices: that a chip is.
    """

    hbm: int
    flops: float
    bandwidth: float
    link: float
    network: float
    shapes: tuple[str, ...]
    cores: int = 1
    wraps: int = 16
    options: tuple[tuple[str, str], ...] = ()
    devices: int = 1


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBE = (
    *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    *("8x8x16", "8x16x16", "16x16x16"),
)
CHIPS: Mapping[str, Chip] = MappingProxyType(
    {
        # Of each of its two cores, which are a device each.
        "v3": Chip(
            *(16, 61.5e12, 450e9, 35e9, 1.6e9),
            *(("2x2", "4x4", "4x8", "8x8", "16x16", "32x32"), 2, 16, (), 2),
        ),
        "v4": Chip(
            *(32, 275e12, 1228e9, 45e9, 3.125e9, _CUBE, 2, 4),
            (("chip_config_name", "megacore"),),
        ),
        "v5e": Chip(16, 197e12, 819e9, 45e9, 3.125e9, _FLAT),
        "v5p": Chip(95, 459e12, 2765e9, 90e9, 6.25e9, _CUBE, 2, 4),
        "v6e": Chip(32, 918e12, 1640e9, 90e9, 12.5e9, _FLAT),
    }
)
HOP = 1e-6  # seconds from a chip to its neighbour, whatever is sent
_OTHER_NAMES = {"v5litepod": "v5e", "v5lite": "v5e", "v5": "v5p"}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips on a grid, in one slice or several.

    Attributes:
        kind: of the chips, a key of `CHIPS`.
        shape: of a slice.
        slices: their number.

    Example:
        >>> read("v5e:4x4"), read("v5litepod-16").name, read("v5p-32*2").name
        (Topology(kind='v5e', shape=(4, 4), slices=1), 'v5e:4x4', 'v5p:2x2x4*2')
    """

    kind: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def name(self) -> str:
        """As `read` takes it."""
        several = f"*{self.slices}" if self.slices > 1 else ""
        return f"{self.kind}:{'x'.join(map(str, self.shape))}{several}"

    @property
    def chip(self) -> Chip:
        """What each chip can do."""
        return CHIPS[self.kind]

    @property
    def size(self) -> int:
        """Devices of all slices: chips, or of v3 cores."""
        return self.slices * math.prod(self.shape) * self.chip.devices

    def devices(self) -> list[Any]:
        """The devices, which can be compiled for and nothing else."""
        from jax.experimental import topologies

        options = dict(self.chip.options)
        small = math.prod(self.shape) < 4
        bounds = {"chips_per_host_bounds": (1, 1, 1)} if small else {}
        several = {"num_slices": self.slices} if self.slices > 1 else {}
        name = f"{self.kind}:{'x'.join(map(str, self.shape))}"
        what = f"the compiler refuses --topology={self.name}"
        with errors.translated(what, f"there are {_listed(self.kind)}"):
            found = topologies.get_topology_desc(
                name, "tpu", **options, **bounds, **several
            )
        return list(found.devices)

    def seconds(self, sent: float, devices: int) -> float:
        """How long a collective within a slice takes at least.

        Args:
            sent: bytes that each device sends.
            devices: that take part.

        Returns:
            Seconds: bytes over the links of all axes of the torus, or of lines where
            their ends are not joined, and the way through it.
        """
        axes = [n for n in self.shape if n > 1]
        ways = sum(2 if n >= self.chip.wraps else 1 for n in axes) or 1
        share = min(1.0, devices * self.slices / self.size)
        hops = sum(n / 2 if n >= self.chip.wraps else n - 1 for n in axes) * share
        return sent / (ways * self.chip.link) + 2 * HOP * hops


def read(text: str) -> Topology:
    """A topology by its name.

    Args:
        text: ``v5e:4x4``, or as Cloud TPU has it, ``v5litepod-16``; ``*2`` behind it
            for two slices.
    """
    found = re.fullmatch(r"([\w]+)(?:-(\d+)|:(\d+(?:x\d+)*))(?:\*(\d+))?", text.strip())
    kind = _OTHER_NAMES.get(found[1], found[1]) if found else ""
    if found is None or kind not in CHIPS:
        raise errors.UserError(_unknown(text))
    slices = int(found[4] or 1)
    if not slices:
        raise errors.UserError(_unknown(text))
    if found[2]:
        chips = int(found[2]) / CHIPS[kind].cores
        fit = [x for x in CHIPS[kind].shapes if math.prod(_shape(x)) == chips]
        if not fit:
            raise errors.UserError(_unknown(text))
        return Topology(kind, _shape(fit[0]), slices)
    shape = _shape(found[3])
    if len(shape) != len(_shape(CHIPS[kind].shapes[0])) or 0 in shape:
        raise errors.UserError(_unknown(text))
    return Topology(kind, shape, slices)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


def _unknown(text: str) -> str:
    names = [f"{kind}:{shape}" for kind, chip in CHIPS.items() for shape in chip.shapes]
    near = difflib.get_close_matches(text, names, 3, 0.3) or names[:3]
    kinds = ", ".join(CHIPS)
    return (
        f"unknown topology {text!r}: did you mean {' or '.join(near)}? There are "
        f"{kinds}, as in v5e:4x4 or v5litepod-16, several slices as in v5e:4x4*2"
    )


def _listed(kind: str) -> str:
    return ", ".join(f"{kind}:{shape}" for shape in CHIPS[kind].shapes)
