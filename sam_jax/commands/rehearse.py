"""``sam-jax rehearse``: what a run will do on TPUs that this machine does not have."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from sam_jax import commands, storage


def _numbers(text: str) -> tuple[int, ...]:
    """Three whole numbers with commas between them."""
    found = tuple(commands.count(word) for word in text.split(","))
    if len(found) != 3:
        raise argparse.ArgumentTypeError(f"must be three numbers, got {text!r}")
    return found


def _parser() -> argparse.ArgumentParser:
    made = commands.parser(
        "rehearse",
        "Compiles the train step with the compiler for TPUs, which needs none: does it "
        "fit, what does it send, how fast should it be. No data are read. Settings: "
        "--config.NAME=VALUE.",
        "sam-jax rehearse --config=imagenet_resnet50_sam --topology=v5e:2x4,v5e:8x8",
    )
    made.add_argument("--config", metavar="CARD[:METHOD]", help="run card")
    made.add_argument(
        "--topology",
        required=True,
        help="TPU slices, such as v5e:4x4, v5litepod-16, or v5e:16x16*2 for two of "
        "them; several with commas",
    )
    made.add_argument(
        "--per_chip",
        type=commands.count,
        help="examples a chip, in place of config.batch_size: weak scaling",
    )
    made.add_argument(
        "--largest",
        action="store_true",
        help="also look for the largest batch that fits, which compiles about 6 times",
    )
    made.add_argument(
        "--effort",
        type=float,
        default=-1.0,
        help="of the compiler, from -1 (quick) to 0 (as in a run, minutes)",
    )
    made.add_argument(
        "--image", type=_numbers, help="height,width,channels of unknown data"
    )
    made.add_argument("--classes", type=commands.count, help="classes of unknown data")
    made.add_argument(
        "--examples", type=commands.count, help="training examples of unknown data"
    )
    made.add_argument("--out", help="also a folder of table, JSON and picture")
    return made


@commands.ends
def main(arguments: Sequence[str]) -> int:
    """Rehearses on all slices and prints the table."""
    given, changes = commands.with_settings(_parser(), arguments)

    from sam_jax.rehearsal import processes, report, topologies
    from sam_jax.train import cards, comparison_files

    names = [topologies.read(text).name for text in given.topology.split(",")]
    if not -1 <= given.effort <= 1:
        return commands.say(f"--effort must be in [-1, 1], got {given.effort}", 2)
    processes.check_compiler()
    config = cards.load(given.config, *changes)
    out = given.out and storage.path(given.out)
    if out:
        comparison_files.check_folder(out)
    wanted = {
        "card": given.config,
        "changes": changes,
        "per_chip": given.per_chip,
        "shapes": {
            "image": given.image,
            "classes": given.classes,
            "examples": given.examples,
        },
        "effort": given.effort,
    }
    live = sys.stderr.isatty()

    def say(text: str) -> None:
        print(f"\r{text}\x1b[K" if live else text, file=sys.stderr, flush=True)

    def waiting(text: str, seconds: float) -> None:
        if live:
            print(f"\r{text}: {seconds:.0f} s\x1b[K", end="", file=sys.stderr)

    results = list(
        processes.rehearsals(
            wanted, names, find_largest=given.largest, say=say, waiting=waiting
        )
    )
    method = config.method.name if config.method.name != "none" else "sgd"
    about = f"{config.model.name} with {method} on {config.data.name}"
    if out:
        command = shlex.join(["sam-jax", "rehearse", *arguments])
        report.write(out, results, command, about)
    print(f"{about}. {report.PREDICTED}\n\n{report.table(results)}")
    return 2 if all("refused" in result for result in results) else 0
