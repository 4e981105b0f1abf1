"""The laboratory: three papers' theory as checked claims.

    python -m experiments.theory                      # the list of claims
    python -m experiments.theory run khanh/two_cycle  # one claim
    python -m experiments.theory run si_yun           # one paper
    python -m experiments.theory run all --quick      # all, in their short form
    python -m experiments.theory mutate all           # do they notice a wrong ascent?

    # which theorems cover a training run, and why the others do not
    python -m experiments.theory check --config=configs/cifar10_sam.py

Each claim writes ``data.json`` and ``figure.png``, in full also ``figure.svg`` and
``thumbnail.png``, to its folder below ``--out``; ``README.md`` there is the table of
all claims. The exit code is 1 if a verdict is not the expected one, or a claim survives
a mutation that it does not declare.
"""

import os
import pathlib
import signal
import sys
from collections.abc import Sequence

from experiments import commands
from experiments.theory import catalog, check, runner
from sam_jax.train import files

RESULTS = pathlib.Path(__file__).parent / "results"
QUICK_RESULTS = pathlib.Path("runs/theory_quick")  # not over the full ones


@commands.ends
def main(argv: Sequence[str]) -> int:
    """Runs the command line.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code: 0 all as expected, 1 an unexpected result, 2 a user error.
    """
    parser = commands.parser(
        "Three papers' theory as checked claims.", prog="python -m experiments.theory"
    )
    verbs = parser.add_subparsers(dest="command", metavar="{list,run,mutate,check}")
    verbs.add_parser("list", help="list the claims (default)", allow_abbrev=False)
    for verb, what in (("run", "run claims"), ("mutate", "run with a mutated ascent")):
        verb_parser = verbs.add_parser(verb, help=what, allow_abbrev=False)
        verb_parser.add_argument("names", nargs="+", help="claims, papers, or all")
        verb_parser.add_argument("--out", type=commands.folder, help="of results")
        workers = os.cpu_count() or 1
        verb_parser.add_argument("--workers", type=commands.count, default=workers)
        if verb == "run":
            verb_parser.add_argument(
                "--quick", action="store_true", help="the short form"
            )
    check_parser = verbs.add_parser(
        "check", help="which theorems cover a run card", allow_abbrev=False
    )
    check_parser.add_argument("--config", metavar="CARD", help="CARD.py[:METHOD]")
    args, rest = parser.parse_known_args(argv)
    if rest and args.command != "check":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # Not at once: the workers are ended, and the finished claims get their index.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if args.command == "check":
            return check.check(args.config, rest)
        if args.command == "run":
            out = args.out or (QUICK_RESULTS if args.quick else RESULTS)
            files.make_folder(out, "--out")
            return runner.run(args.names, args.quick, out, args.workers)
        if args.command == "mutate":
            return runner.mutate(args.names, args.out or RESULTS, args.workers)
        return list_claims()
    except KeyboardInterrupt:
        print("\nstopped; finished claims are kept", file=sys.stderr)
        return 130


def list_claims() -> int:
    """Prints all claims with their titles."""
    for paper, title in catalog.PAPERS.items():
        print(f"\n{title}")
        for name in catalog.select([paper]):
            print(f"  {name:38} {catalog.load(name).CLAIM.title}")
    print("\npython -m experiments.theory run NAME ... [--quick] [--out=FOLDER]")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
