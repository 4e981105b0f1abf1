"""What rematerialization, accumulation and groups do to the memory of a step.

    python -m experiments.benchmarks.memory --models=resnet18:16,wrn16_2,wrn40_1 \
        --out=experiments/benchmarks/results/memory.json

The trainer's SAM step on one device, as the compiler counts it: temporary memory (all
that is neither state nor batch: activations, gradients, perturbed weights) and
operations. A model is written ``name`` or ``name:width``; nothing is executed.
"""

import sys
from collections.abc import Mapping
from typing import Any

from experiments import commands
from experiments.benchmarks import measure, programs
from experiments.benchmarks.measure import Flag

PLAIN = "as it is"


@measure.benchmark(
    models=Flag(commands.several(str), ["resnet18:16"], "name:width,..."),
    method=Flag(str, "sam"),
    batch=Flag(commands.count, 64, "examples in a step"),
    image=Flag(commands.count, 32, "side in pixels"),
    parts=Flag(commands.count, 4, "chunks, or groups"),
)
def main(args: Any) -> tuple[measure.Results, measure.Tables]:
    """Counts the steps of every model."""
    m = args.batch // args.parts
    ways: dict[str, dict[str, Any]] = {
        PLAIN: {},
        "remat": {"remat": True},
        f"accumulation_steps={args.parts}": {"accumulation_steps": args.parts},
        f"method_group_size={m}": {"method_group_size": m},
        "both": {"remat": True, "accumulation_steps": args.parts},
    }
    images = programs.noise(args.batch, args.image)

    def counted(model: str, changes: dict[str, Any]) -> dict[str, float]:
        chosen = programs.settings(args.method, model, batch_size=args.batch, **changes)
        program = programs.Program(programs.run(chosen, images))
        return {
            "temporary": float(program.row["temporary_bytes"]),
            "state": float(program.row["shared_bytes"]),
            "flops": float(program.compiled.cost_analysis()["flops"]),
        }

    results = {
        model: {name: counted(model, changes) for name, changes in ways.items()}
        for model in args.models
    }
    return results, {"": table(results)}


def table(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The results as a Markdown table; operations of loops are counted once."""
    rows = [
        [
            model,
            name,
            f"{found['temporary'] / 2**20:.1f}",
            f"{found['temporary'] / ways[PLAIN]['temporary']:.2f}",
            # XLA counts the body of a loop once, whatever it repeats.
            "-" if "=" in name or name == "both" else f"{found['flops'] / 1e9:.1f}",
        ]
        for model, ways in results.items()
        for name, found in ways.items()
    ]
    return measure.markdown(["model", "step", "temporary MiB", "ratio", "GFLOP"], rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
