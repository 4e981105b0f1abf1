"""What rematerialization, accumulation and groups do to the memory of a step.

    python -m experiments.benchmarks.memory --models=resnet18:16,wrn16_2,wrn40_1 \
        --out=experiments/benchmarks/results/memory.json

The trainer's SAM step on one device, as the compiler counts it: temporary memory (all
that is neither state nor batch: activations, gradients, perturbed weights) and
operations. A model is written ``name`` or ``name:width``; nothing is executed.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import commands
from experiments.benchmarks import measure
from sam_jax.train import build, settings
from sam_jax.train import config as config_lib

CARD = pathlib.Path(__file__).parents[2] / "configs" / "cifar10_sam.py"
PLAIN = "as it is"


@commands.ends
def main(argv: Sequence[str]) -> int:
    """Counts as the command line says, prints the table, writes the record.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code.
    """
    parser = measure.parser(__doc__)
    parser.add_argument(
        "--models",
        type=commands.several(str),
        default=["resnet18:16"],
        help="name:width,...",
    )
    parser.add_argument("--method", default="sam")
    parser.add_argument(
        "--batch", type=commands.count, default=64, help="examples in a step"
    )
    parser.add_argument(
        "--image", type=commands.count, default=32, help="side in pixels"
    )
    parser.add_argument(
        "--parts", type=commands.count, default=4, help="chunks, or groups"
    )
    args = parser.parse_args(argv)
    m = args.batch // args.parts
    ways = {
        PLAIN: {},
        "remat": {"remat": True},
        f"accumulation_steps={args.parts}": {"accumulation_steps": args.parts},
        f"method_group_size={m}": {"method_group_size": m},
        "both": {"remat": True, "accumulation_steps": args.parts},
    }
    results = {
        model: {
            name: counted(model, args.method, args.batch, args.image, settings)
            for name, settings in ways.items()
        }
        for model in args.models
    }
    print(table(results))
    measure.write(args.out, "experiments.benchmarks.memory", argv, results)
    return 0


def counted(
    model_name: str,
    method: str,
    batch_size: int,
    side: int,
    changes: Mapping[str, Any],
) -> dict[str, float]:
    """Compiles one step and reads the compiler's account of it.

    Args:
        model_name: ``name`` or ``name:width``.
        method: its name.
        batch_size: examples in a step.
        side: of the images, in pixels.
        changes: of the configuration, as its flattened keys.

    Returns:
        ``temporary`` and ``state`` in bytes, and ``flops``.

    Raises:
        UserError: for a model, method or setting that will not do.
    """
    config = config_lib.default_config()
    config.method = config_lib.load_method(method, CARD)
    config.schedule.name = "constant"
    config.model.name, _, width = model_name.partition(":")
    config.model.width = int(width) if width else None
    config.batch_size, config.mesh.data = batch_size, 1
    config.update_from_flattened_dict(dict(changes))
    spec = build.DataSpec((side, side, 3), 10, 50_000, 100)
    made = build.steps(settings.read(config), spec)
    train_step: Any = made.train_step
    compiled = train_step.lower(made.abstract_state(), made.abstract_batch()).compile()
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    return {
        "temporary": float(memory.temp_size_in_bytes),
        "state": float(memory.alias_size_in_bytes),
        "flops": float(cost["flops"]),
    }


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
