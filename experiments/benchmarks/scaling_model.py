"""What a step on many chips sends and keeps, from arithmetic: nothing is measured here.

    python -m experiments.benchmarks.scaling_model

prints the tables of ``docs/cloud_tpu.md``. A ring (or torus) all-reduce of ``s`` bytes
over ``D`` chips is a reduce-scatter and an all-gather, each of which sends
``(D - 1) / D * s`` bytes from every chip (Austin et al., "How to Scale Your Model",
2025, chapter 3, https://jax-ml.github.io/scaling-book). How often a step does it is
counted in compiled programs by the tests of `experiments.benchmarks.hlo`.
"""

import sys
from typing import Any, NamedTuple

from experiments.benchmarks import measure
from experiments.benchmarks.hlo import all_reduce_bytes, gather_bytes

CHIPS, GROUP, ROW = 256, 8, 16  # of the tables
# Bytes of the parameters, or of a gradient: float32, also where activations are not.
MODELS = {"ResNet-50": 4 * 25_557_032, "ViT-B/16": 4 * 86_567_656}


@measure.benchmark()
def main(args: Any) -> tuple[measure.Results, measure.Tables]:
    """Computes all tables."""
    del args
    size = MODELS["ResNet-50"]
    rows = [
        [row.step, row.reductions, row.behind, megabytes(row.bytes(size))]
        for row in traffic(CHIPS, GROUP)
    ]
    columns = "step", "all-reduces of a gradient", "can hide behind", "MB per chip"
    tables = {
        f"Bytes, {CHIPS} chips": measure.markdown(columns, rows),
        f"Bytes, rows of {ROW}": sharded_table(size, CHIPS // ROW, ROW),
        "Memory": memory_table((1, 8, 64)),
    }
    return {row.step: row.bytes(size) for row in traffic(CHIPS, GROUP)}, tables


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


def sharded_table(size: float, rows: int, fsdp: int) -> str:
    """What crosses the network in a step with cut parameters, as Markdown."""

    def gradients(count: int) -> str:
        low, high = (count * sharded_bytes(size, rows, fsdp, g) for g in (1, 2))
        return f"{megabytes(low)} to {megabytes(high)}"

    of_chip = gather_bytes(size, fsdp) + all_reduce_bytes(size, rows * fsdp)
    cut = "reduce-scatter in the row, all-reduce of a part between rows"
    return measure.markdown(
        ["step", "gathers of the weights", "reductions", "MB per chip"],
        [
            ["`sgd`", "1 or 2", cut, gradients(1)],
            ["`sam`, m = batch", "2 or 4", f"2 times: {cut}", gradients(2)],
            ["`sam`, m of one chip", "1", "1 all-reduce", megabytes(of_chip)],
        ],
    )


def memory_table(fsdp: tuple[int, ...]) -> str:
    """What a chip keeps between steps, as Markdown; small arrays are not cut."""
    kinds = {"SGD with momentum, also under SAM": 2, "the same under VaSSO": 3}
    return measure.markdown(
        ["MB per chip", *(f"fsdp = {n}" for n in fsdp)],
        [
            [f"{model}, {kind}", *(megabytes(copies * size / n) for n in fsdp)]
            for model, size in MODELS.items()
            for kind, copies in kinds.items()
        ],
    )


def megabytes(size: float) -> str:
    """Bytes, to a tenth of a megabyte."""
    return f"{size / 1e6:.1f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
