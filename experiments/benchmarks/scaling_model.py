"""How far a step scales over chips, from arithmetic alone: nothing is measured here.

    python -m experiments.benchmarks.scaling_model

prints the tables of ``docs/cloud_tpu.md``.

Bytes. A ring (or torus) all-reduce of ``s`` bytes over ``D`` chips is a reduce-scatter
and an all-gather, each of which sends ``(D - 1) / D * s`` bytes from every chip.

Seconds. An axis of a torus carries the link's one-way bandwidth, twice that where the
axis closes to a ring; axes add up. Each of the two halves has a latency for every hop
of its longest way. Slices beyond a pod are joined by the data centre's network: reduced
inside of a slice, then between slices, each chip with its share. All this follows
Austin et al., "How to Scale Your Model" (2025), chapters 2 and 3,
https://jax-ml.github.io/scaling-book.

Overlap. An all-reduce can hide behind nothing but the backward pass that makes its
gradient: SAM's second gradient is taken at weights that need all of the first one, and
the next step needs all of the last one. At best what is longer than the backward pass
remains, and never less than the latency, since the last part cannot start before the
pass ends. How much of this XLA achieves is not known here: the truth lies between "no
overlap" and "overlap".

Efficiency is compute time over step time, which for a fixed batch per chip (weak
scaling) and for a fixed batch (strong scaling) is the speed-up over D. Compute runs at
an assumed share of the peak, also for few examples per chip, where it would fall. Left
out: input, BatchNorm's statistics, weight update, stragglers. A lower share of the peak
makes the network look better.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments import commands
from experiments.benchmarks import measure

BYTES = 4  # of a parameter and its gradient: float32, also where activations are not
UTILIZATION = 0.5  # assumed share of the peak
# Seconds a hop. ICI: about 1e-6 ("How to Scale Your Model", chapter 3). The data
# centre's network: assumed, a round figure for a message between hosts of a zone.
HOP, NETWORK_HOP = 1e-6, 5e-5

COUNTS = (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
STRONG_BATCH = 4096  # of SAM's ImageNet runs (Foret et al. 2021, section 3.1)
TABLE_CHIPS, TABLE_GROUP, TABLE_ROW = 256, 8, 16  # of the tables of bytes


class Axis(NamedTuple):
    """An axis of a slice.

    Attributes:
        size: chips along it.
        ring: its ends are linked.
    """

    size: int
    ring: bool


class Chip(NamedTuple):
    """A TPU and how it is wired.

    Attributes:
        name: such as ``"v5e"``.
        peak: bfloat16 FLOP/s.
        memory: bytes of HBM.
        link: bytes/s one way over one link between neighbours (ICI).
        network: bytes/s one way and chip over the data centre's network (DCN).
        slices: chips -> axes of a slice.
    """

    name: str
    peak: float
    memory: float
    link: float
    network: float
    slices: Mapping[int, tuple[Axis, ...]]


class Model(NamedTuple):
    """A network.

    Attributes:
        name: of it.
        parameters: their number.
        multiply_adds: of a forward pass of one image; each is 2 FLOP.
        batch: examples per chip in the tables of weak scaling.
    """

    name: str
    parameters: int
    multiply_adds: float
    batch: int

    @property
    def bytes(self) -> int:
        """Of the parameters, or of a gradient."""
        return BYTES * self.parameters


class Method(NamedTuple):
    """What a step does one after another.

    Attributes:
        name: with its m, the examples that share a perturbation.
        gradients: forward and backward passes.
        all_reduces: of a gradient over all chips, each after a pass.
    """

    name: str
    gradients: int
    all_reduces: int


class Seconds(NamedTuple):
    """Duration of a collective.

    Attributes:
        transfer: bytes over bandwidth.
        latency: of its hops.
    """

    transfer: float
    latency: float

    @property
    def total(self) -> float:
        """Both."""
        return self.transfer + self.latency


class Step(NamedTuple):
    """A step in seconds.

    Attributes:
        compute: of all passes.
        network: of all collectives.
        exposed: what is left of these with the best overlap.
    """

    compute: float
    network: float
    exposed: float

    @property
    def efficiency(self) -> tuple[float, float]:
        """Compute time over step time, without overlap and with the best one."""
        return (
            self.compute / (self.compute + self.network),
            self.compute / (self.compute + self.exposed),
        )


# ── Constants and where they are from ────────────────────────────────────────────────

# A pod is a 16 x 16 torus; in smaller slices only an axis of 16 is a ring.
_PLANES = {
    chips: tuple(Axis(n, n == 16) for n in sizes)
    for chips, sizes in {
        1: (1, 1),
        4: (2, 2),
        8: (2, 4),
        16: (4, 4),
        32: (4, 8),
        64: (8, 8),
        128: (8, 16),
        256: (16, 16),
    }.items()
}
# Cubes of 4 x 4 x 4 are joined by optical switches, which also close the rings.
_CUBES = {
    chips: tuple(Axis(n, all(size % 4 == 0 for size in sizes)) for n in sizes)
    for chips, sizes in {
        1: (1, 1, 1),
        4: (2, 2, 1),
        8: (2, 2, 2),
        16: (2, 2, 4),
        32: (2, 4, 4),
        64: (4, 4, 4),
        128: (4, 4, 8),
        256: (4, 8, 8),
        512: (8, 8, 8),
        1024: (8, 8, 16),
        2048: (8, 16, 16),
        4096: (16, 16, 16),
    }.items()
}

# Peak, memory, link and network: https://cloud.google.com/tpu/docs/v5e, /v5p and /v6e.
# They give both directions of all links of a chip: 400 GB/s over 4 links (v5e), 800
# over 4 (v6e), 1200 over 6 (v5p). Network: 6.4 and 25.6 Tbit/s for a pod of 256 chips
# (v5e, v6e), 50 Gbit/s a chip (v5p). Shapes: the same pages; rings: "How to Scale Your
# Model", chapter 2.
CHIPS = {
    "v5e": Chip("v5e", 197e12, 16e9, 5e10, 6.4e12 / 8 / 256, _PLANES),
    "v5p": Chip("v5p", 459e12, 95e9, 1e11, 50e9 / 8, _CUBES),
    "v6e": Chip("v6e", 918e12, 32e9, 1e11, 25.6e12 / 8 / 256, _PLANES),
}

# Parameters and multiply-adds at 224 x 224: torchvision's tables of its weights
# ResNet50_Weights and ViT_B_16_Weights, whose "GFLOPS" count a multiply-add once,
# https://docs.pytorch.org/vision/stable/models.html.
MODELS = {
    "resnet50": Model("ResNet-50", 25_557_032, 4.089e9, 64),
    "vit_b16": Model("ViT-B/16", 86_567_656, 17.564e9, 32),
}

SGD = Method("SGD", 1, 1)
SAM = Method("SAM, m = batch", 2, 2)
SAM_PER_CHIP = Method("SAM, m of one chip", 2, 1)
METHODS = (SGD, SAM, SAM_PER_CHIP)


# ── Bytes ────────────────────────────────────────────────────────────────────────────


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


def sharded_bytes(size: float, rows: int, fsdp: int, gathers: int) -> float:
    """What a chip sends for one gradient with parameters cut over ``fsdp`` chips.

    The weights are gathered in each row of chips, the gradient is reduce-scattered in
    it, and the parts are all-reduced between rows.

    Args:
        size: bytes of the parameters.
        rows: of the grid.
        fsdp: chips in a row.
        gathers: 1 if the gathered weights are kept for the backward pass, 2 if they are
            gathered again for it.

    Returns:
        Bytes; with one gather as many as an all-reduce over all chips.

    Example:
        >>> sharded_bytes(100, rows=4, fsdp=2, gathers=1), all_reduce_bytes(100, 8)
        (175.0, 175.0)
    """
    in_row = (gathers + 1) * gather_bytes(size, fsdp)
    return in_row + all_reduce_bytes(size / fsdp, rows)


def state_bytes(model: Model, copies: int, fsdp: int) -> float:
    """What a chip keeps between steps.

    Args:
        model: the network.
        copies: of the parameters, themselves among them: 2 with momentum, 3 with a
            method that keeps an average.
        fsdp: chips over which they are cut.

    Returns:
        Bytes. The few arrays too small to be cut are neglected.
    """
    return copies * model.bytes / fsdp


# ── Seconds ──────────────────────────────────────────────────────────────────────────


def all_reduce(chip: Chip, chips: int, size: float) -> Seconds:
    """Duration of an all-reduce over all chips.

    Args:
        chip: their kind.
        chips: one of `COUNTS`; what exceeds the largest slice is several of these.
        size: bytes of the array.

    Returns:
        Transfer and latency.
    """
    inside = min(chips, max(chip.slices))
    slices = chips // inside
    axes = [axis for axis in chip.slices[inside] if axis.size > 1]
    bandwidth = sum(chip.link * (2 if axis.ring else 1) for axis in axes)
    hops = sum(axis.size // 2 if axis.ring else axis.size - 1 for axis in axes)
    transfer = all_reduce_bytes(size, inside) / bandwidth if axes else 0.0
    between = all_reduce_bytes(size / inside, slices) / chip.network
    return Seconds(transfer + between, 2 * (hops * HOP + (slices - 1) * NETWORK_HOP))


def step(
    chip: Chip,
    model: Model,
    method: Method,
    chips: int,
    batch: float,
    utilization: float = UTILIZATION,
) -> Step:
    """Duration of a step.

    Args:
        chip: kind of the chips.
        model: the network.
        method: what the step does.
        chips: one of `COUNTS`.
        batch: examples per chip.
        utilization: share of the peak that the passes reach.

    Returns:
        Seconds of compute and of the network.
    """
    forward = 2 * model.multiply_adds * batch / (chip.peak * utilization)
    backward = 2 * forward  # gradients by inputs and by weights
    once = all_reduce(chip, chips, model.bytes)
    exposed = max(once.latency, once.total - backward)
    return Step(
        compute=method.gradients * (forward + backward),
        network=method.all_reduces * once.total,
        exposed=method.all_reduces * exposed,
    )


# ── Tables ───────────────────────────────────────────────────────────────────────────


class Traffic(NamedTuple):
    """A row of the table of bytes.

    Attributes:
        step: method and m.
        reductions: all-reduces of a gradient, in words.
        rings: chips in each of them.
        behind: what they can hide behind.
    """

    step: str
    reductions: str
    rings: tuple[int, ...]
    behind: str

    def bytes(self, size: float) -> float:
        """What a chip sends in a step with all of them, for a gradient of ``size``."""
        return sum(all_reduce_bytes(size, ring) for ring in self.rings)


def traffic(chips: int, group: int) -> list[Traffic]:
    """What crosses the network in a step with replicated parameters.

    Args:
        chips: their number.
        group: chips that share a perturbation, where it is several.

    Returns:
        The rows.
    """
    once, groups = (chips,), chips // group
    own, last = "each its own backward pass", "the last backward pass"
    kept = "last backward pass; the average: all of the second gradient"
    look = "2, and 1 where the component is reused"
    in_groups = f"2 inside of each group, 1 between the {groups} groups"
    return [
        Traffic("`sgd`", "1", once, "its backward pass"),
        Traffic("`sam`, m = batch", "2", once * 2, own),
        Traffic(f"`sam`, m of {group} chips", in_groups, (group, group, groups), own),
        Traffic("`sam`, m of one chip", "1", once, last),
        Traffic("`sam`, several groups on a chip", "1", once, "nothing: after a loop"),
        Traffic("`vasso`, `friendly_sam`, m = batch", "2", once * 2, own),
        Traffic("`vasso`, `friendly_sam`, m of one chip", "2", once * 2, kept),
        Traffic("`looksam`, m = batch", look, once * 2, own),
        Traffic("`looksam`, m of one chip", look, once * 2, last),
    ]


def traffic_table(model: Model, chips: int, group: int) -> str:
    """`traffic` as Markdown."""
    return measure.markdown(
        ["step", "all-reduces of a gradient", "can hide behind", "MB per chip"],
        [
            [row.step, row.reductions, row.behind, _megabytes(row.bytes(model.bytes))]
            for row in traffic(chips, group)
        ],
    )


def sharded_table(model: Model, rows: int, fsdp: int) -> str:
    """What crosses the network in a step with cut parameters, as Markdown."""
    size = model.bytes

    def gradients(count: int) -> str:
        low, high = (count * sharded_bytes(size, rows, fsdp, g) for g in (1, 2))
        return f"{_megabytes(low)} to {_megabytes(high)}"

    of_chip = gather_bytes(size, fsdp) + all_reduce_bytes(size, rows * fsdp)
    cut = "reduce-scatter in the row, all-reduce of a part between rows"
    return measure.markdown(
        ["step", "gathers of the weights", "reductions", "MB per chip"],
        [
            ["`sgd`", "1 or 2", cut, gradients(1)],
            ["`sam`, m = batch", "2 or 4", f"2 times: {cut}", gradients(2)],
            ["`sam`, m of one chip", "1", "1 all-reduce", _megabytes(of_chip)],
        ],
    )


def memory_table(fsdp: Sequence[int]) -> str:
    """What a chip keeps between steps, as Markdown."""
    kinds = {"SGD with momentum, also under SAM": 2, "the same under VaSSO": 3}
    return measure.markdown(
        ["MB per chip", *(f"fsdp = {n}" for n in fsdp)],
        [
            [f"{model.name}, {name}"]
            + [_megabytes(state_bytes(model, copies, n)) for n in fsdp]
            for model in MODELS.values()
            for name, copies in kinds.items()
        ],
    )


def scaling(utilization: float) -> list[dict[str, Any]]:
    """Efficiencies of everything.

    Args:
        utilization: share of the peak.

    Returns:
        A record for each kind of scaling, chip, model, method and number of chips.
    """
    records = []
    for chip in CHIPS.values():
        for model in MODELS.values():
            for kind in ("weak", "strong"):
                for chips in COUNTS:
                    batch = model.batch if kind == "weak" else STRONG_BATCH / chips
                    for method in METHODS:
                        times = step(chip, model, method, chips, batch, utilization)
                        records.append(
                            {
                                "scaling": kind,
                                "chip": chip.name,
                                "model": model.name,
                                "method": method.name,
                                "chips": chips,
                                "batch_per_chip": batch,
                                **times._asdict(),
                                "efficiency": times.efficiency,
                            }
                        )
    return records


def scaling_table(
    records: Sequence[Mapping[str, Any]], kind: str, chip: str, model: str
) -> str:
    """Efficiencies in percent, without overlap to with it, as Markdown."""
    shown = [
        record
        for record in records
        if (record["scaling"], record["chip"], record["model"]) == (kind, chip, model)
    ]

    def cell(chips: int, method: Method) -> str:
        found = next(
            record
            for record in shown
            if (record["chips"], record["method"]) == (chips, method.name)
        )
        low, high = found["efficiency"]
        return f"{100 * low:.1f} to {100 * high:.1f}"

    per_chip = {record["chips"]: record["batch_per_chip"] for record in shown}
    return measure.markdown(
        ["chips", "examples per chip", *(method.name for method in METHODS)],
        [
            [chips, f"{batch:g}", *(cell(chips, method) for method in METHODS)]
            for chips, batch in per_chip.items()
        ],
    )


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f}"


@commands.ends
def main(argv: Sequence[str]) -> int:
    """Computes as the command line says, prints the tables, writes the record.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code.
    """
    parser = measure.parser(__doc__)
    parser.add_argument(
        "--utilization", type=float, default=UTILIZATION, help="share of the peak"
    )
    args = parser.parse_args(argv)
    if not 0 < args.utilization <= 1:
        parser.error("--utilization is a share in (0, 1]")
    resnet = MODELS["resnet50"]
    records = scaling(args.utilization)
    tables = {
        f"Bytes, {TABLE_CHIPS} chips": traffic_table(resnet, TABLE_CHIPS, TABLE_GROUP),
        f"Bytes, rows of {TABLE_ROW}": sharded_table(
            resnet, TABLE_CHIPS // TABLE_ROW, TABLE_ROW
        ),
        "Memory": memory_table((1, 8, 64)),
    } | {
        f"{kind} scaling, {chip.name}, {model.name}": scaling_table(
            records, kind, chip.name, model.name
        )
        for kind in ("weak", "strong")
        for chip in CHIPS.values()
        for model in MODELS.values()
    }
    for title, table in tables.items():
        print(f"{title}\n\n{table}\n")
    measure.write(args.out, "experiments.benchmarks.scaling_model", argv, records)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
