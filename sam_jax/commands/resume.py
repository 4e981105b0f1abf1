"""``sam-jax resume``: continues a run from its folder alone."""

from collections.abc import Sequence

from sam_jax import commands
from sam_jax.commands import train


def main(arguments: Sequence[str]) -> int:
    """Continues a run; ends the process as ``python -m sam_jax.main`` does."""
    made = commands.parser(
        "resume",
        "Continues a run with the settings that its folder holds.",
        "sam-jax resume runs/cifar --epochs=300",
    )
    made.add_argument(
        "--epochs",
        metavar="N",
        help="more than it was planned with, also of a finished run; what that does to "
        "its schedule is said",
    )
    made.add_argument("run", metavar="RUN", help="folder of the run (its --workdir)")
    made.add_argument(
        "flags",
        metavar="FLAG",
        nargs="*",
        default=[],  # argparse calls it required else
        help="further flags of sam-jax train, after --, such as -- --process_id=1",
    )
    given = made.parse_args(arguments)
    more = [] if given.epochs is None else [f"--config.epochs={given.epochs}"]
    return train.main([f"--workdir={given.run}", *more, *given.flags])
