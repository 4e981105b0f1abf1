"""``sam-jax export``: a trained network as one file."""

from collections.abc import Sequence

from sam_jax import commands


@commands.ends
def main(arguments: Sequence[str]) -> int:
    """Writes the file."""
    made = commands.parser(
        "export",
        "Writes a trained network to one file, which others read without this package: "
        "safetensors, npz and flax have the weights, timm has them as that library "
        "calls them, jax.export has the whole program.",
        "sam-jax export runs/cifar --to=safetensors --out=cifar.safetensors",
    )
    commands.add_run(made)
    made.add_argument(
        "--to", required=True, help="safetensors, npz, flax, timm or jax.export"
    )
    made.add_argument("--out", required=True, help="the file, a new one")
    given = made.parse_args(arguments)
    commands.start_jax(given.run)

    from sam_jax.train import export, loaded

    run = loaded.load_run(given.run, given.step, own_code=given.own_code)
    export.export(run, given.to, given.out)
    print(f"{given.out}: {given.to}, of {given.run}, step {run.step}")
    return 0
