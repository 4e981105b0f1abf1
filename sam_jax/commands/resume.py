"""``sam-jax resume``: continues a run from its folder alone."""

from collections.abc import Sequence

from sam_jax import commands, errors, storage
from sam_jax.commands import train


@commands.ends
def main(arguments: Sequence[str]) -> int:
    """Continues a run; ends the process as ``python -m sam_jax.main`` does."""
    made = commands.parser(
        "resume",
        "Continues a run with the settings that its folder holds. Further flags of "
        "sam-jax train follow after --, such as -- --process_id=1.",
        "sam-jax resume runs/cifar --epochs=300",
    )
    made.add_argument("run", metavar="RUN", help="folder of the run (its --workdir)")
    made.add_argument(
        "--epochs",
        metavar="N",
        help="more than it was planned with, also of a finished run; what that does to "
        "its schedule is said",
    )
    commands.add_own_code(made)
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    given = made.parse_args(words[:end])
    if not storage.path(given.run).exists():
        raise errors.UserError(f"{given.run} is not there: give the --workdir of a run")
    flags = [f"--workdir={given.run}", *words[end + 1 :]]
    if given.epochs is not None:
        flags.append(f"--config.epochs={given.epochs}")
    if given.own_code:
        from sam_jax.train import workdir

        own = workdir.own_code(storage.path(given.run))
        flags += [f"--{key}={text}" for key, text in own.items()]
    return train.main(flags)
