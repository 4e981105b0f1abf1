"""Networks of ImageNet on slices of Cloud TPU, by the compiler: nothing is run.

    python -m experiments.benchmarks.pods --out=experiments/benchmarks/results/pods.json

Strong scaling has a batch of 4096, weak scaling 128 examples a chip. The calibration
compiles what was published with its time for a step: the compiler takes no account of
the input pipeline, the host and much of the chip. What ``--out`` has already is not
compiled again.
"""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.benchmarks import measure
from sam_jax import errors
from sam_jax.rehearsal import processes, report, topologies
from sam_jax.train import files

MODULE = "experiments.benchmarks.pods"
BATCH, SHARE = 4096, 128
CARD = "imagenet_resnet50_sam"
NETWORKS = {"ResNet-50": "resnet50_imagenet", "ViT-B/16": "vit_b16"}
WAYS = ("SGD", "SAM, m = batch", "SAM, m of a chip")
SLICES = ("v5e:2x4", "v5e:4x8", "v5e:8x8", "v5e:16x16")


class Published(NamedTuple):
    """A step whose time was published.

    Attributes:
        topology: that it ran on.
        settings: of the rehearsal.
        seconds: of a step.
        source: of that number.
    """

    topology: str
    settings: tuple[str, ...]
    seconds: float
    source: str


PUBLISHED = {
    "ResNet-50, batch 1024 on v3-8": Published(
        "v3:2x2",
        ("--config.batch_size=1024", "--config.method_group_size=128"),
        4.4 * 3600 / 125_100,
        "google/flax, examples/imagenet/README.md: 125,100 steps in 4.4 h",
    ),
    "ViT-S/16, batch 1024 on v3-8": Published(
        "v3:2x2",
        (
            *("--config.batch_size=1024", "--config.model.name=vit_s16"),
            *("--config.method_group_size=128", "--config.optimizer.name=adamw"),
        ),
        6.5 * 3600 / (90 * 0.99 * 1_281_167 / 1024),
        "google-research/big_vision, configs/vit_s16_i1k.py: 90 epochs in 6 to 7 h",
    ),
    "ResNet-50, batch 32,768 on 1024 chips of v3": Published(
        "v3:32x32",
        ("--config.batch_size=32768", "--config.method_group_size=16"),
        32_768 / 1.05e6,
        "Ying et al. 2018, arXiv:1811.06992: over 1.05 million images/s",
    ),
}


def request(
    topology: str, settings: tuple[str, ...], method: str = "sgd"
) -> dict[str, Any]:
    """What is asked of a process."""
    return {
        "card": f"{CARD}:{method}",
        "changes": ["--config.model.dtype=bfloat16", *settings],
        "topology": topology,
        "per_chip": None,
        "shapes": {},
        "effort": -1.0,
    }


def cases() -> dict[str, dict[str, Any]]:
    """All that is compiled: name -> request."""
    made = {
        f"calibration, {name}": request(each.topology, each.settings)
        for name, each in PUBLISHED.items()
    }
    for network, model in NETWORKS.items():
        for kind in ("strong", "weak"):
            for topology in SLICES if kind == "strong" else SLICES[::3]:
                size = topologies.read(topology).size
                batch = BATCH if kind == "strong" else SHARE * size
                for way in WAYS:
                    group = batch // size if way == WAYS[2] else None
                    changes = (
                        f"--config.model.name={model}",
                        f"--config.batch_size={batch}",
                        f"--config.method_group_size={group}",
                    )
                    method = "sgd" if way == WAYS[0] else "sam"
                    name = f"{network}, {kind}, {topology}, {way}"
                    made[name] = request(topology, changes, method)
    return made


@measure.benchmark(only=measure.Flag(str, "", "part of the cases' names"))
def main(args: Any) -> tuple[measure.Results, measure.Tables]:
    """Compiles what is missing, and prints the tables of all that is there."""
    processes.check_compiler()
    there = args.out and args.out.exists()
    known = files.from_json(args.out.read_bytes())["results"] if there else {}
    for name, wanted in cases().items():
        if name in known or args.only not in name:
            continue
        try:
            known[name] = processes.ask(wanted)
        except errors.UserError as error:
            known[name] = {"error": str(error)}
        measure.write(args.out, MODULE, args.argv, known)
        print(name, known[name].get("compile_seconds", known[name]), flush=True)
    return known, tables(known)


def tables(known: Mapping[str, Any]) -> dict[str, str]:
    """The tables of ``docs/rehearsal.md``, of what is known."""
    found = {"Calibration": calibration(known)}
    for network in NETWORKS:
        for kind in ("strong", "weak"):
            rows = [
                _row(topology, way, known, f"{network}, {kind}")
                for topology in SLICES
                for way in WAYS
                if f"{network}, {kind}, {topology}, {way}" in known
            ]
            columns = (
                *("slice", "step", "memory", "BatchNorm's and other all-reduces"),
                *("MB sent", "ms by the compiler", "ms by a roofline", "/ SGD"),
            )
            if rows:
                found[f"{network}, {kind} scaling"] = measure.markdown(columns, rows)
    return found


def _row(topology: str, way: str, known: Mapping[str, Any], of: str) -> list[str]:
    found = known[f"{of}, {topology}, {way}"]
    if "error" in found:
        return [topology, way, found["error"], *("",) * 5]
    if not found["fits"]:
        needed = report.gib(found["needed_bytes"])
        return [topology, way, f"{needed}: does not fit", *("",) * 5]
    base = known.get(f"{of}, {topology}, {WAYS[0]}", {})
    ratio = f"{seconds(found) / seconds(base):.2f}" if base.get("fits") else ""
    sent = sum(row["sent"] for row in found["collectives"])
    counts = [
        sum(
            row["count"]
            for row in found["collectives"]
            if (row["place"] == "BatchNorm") == is_norm
        )
        for is_norm in (True, False)
    ]
    return [
        *(topology, way, report.gib(found["memory"]["peak"])),
        *(f"{counts[0]}, {counts[1]}", f"{sent / 1e6:.0f}"),
        *(f"{1e3 * found['seconds'][name]:.1f}" for name in ("compiler", "roofline")),
        ratio,
    ]


def seconds(found: Mapping[str, Any]) -> float:
    """The larger of the two predictions."""
    return max(found["seconds"]["compiler"], found["seconds"]["roofline"])


def calibration(known: Mapping[str, Any]) -> str:
    """Published times over predicted ones, as Markdown."""
    rows = []
    for name, each in PUBLISHED.items():
        found = known.get(f"calibration, {name}", {})
        if found.get("fits"):
            predicted = seconds(found)
            rows.append(
                [
                    *(name, f"{1e3 * each.seconds:.1f}", f"{1e3 * predicted:.1f}"),
                    *(f"{each.seconds / predicted:.2f}", each.source),
                ]
            )
    columns = "step", "ms, published", "ms, predicted", "ratio", "source"
    return measure.markdown(columns, rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
