"""The command line ``sam-jax VERB``: each verb is a thin file around one function.

A verb is a module of this package with ``main(arguments) -> exit code``. JAX is
imported only once the arguments are known to be good.
"""

import argparse
import collections
import contextlib
import errno
import functools
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn, ParamSpec

import sam_jax
from sam_jax import errors
from sam_jax.train import environment, interrupt

P = ParamSpec("P")

VERBS: Mapping[str, str] = MappingProxyType(
    {
        "train": "train a network as a run card says, or continue",
        "resume": "continue a run from its folder alone",
        "evaluate": "accuracy, loss, calibration and scores of each class",
        "sharpness": "how sharp the loss of runs is: eigenvalues, worst case, pictures",
        "predict": "a table of predictions for image files",
        "compare": "a table of finished runs, with their spread over seeds",
        "sweep": "all combinations of some settings, over seeds, and their table",
        "report": "one page of runs: results, curves, calibration, mistakes",
        "export": "a trained network as one file, for other programs",
        "rehearse": "what a run will do on TPUs that need not be there",
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb.

    Args:
        arguments: the command line after the program's name; that of this process by
            default.

    Returns:
        The exit code: 0 done, 2 a mistake of the user, 1 a file cannot be written, 130
        after Ctrl-C, 141 where nobody reads the output any more.

    Example:
        >>> main(["--version"])
        sam_jax 0.1.0
        0
    """
    if arguments is None:  # this is the process of the command
        interrupt.listen()
        with quiet_pipe():
            return main(sys.argv[1:])
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help"):
        print(_help())
        return 0
    if verb == "--version":
        print(f"sam_jax {sam_jax.__version__}")
        return 0
    if verb not in VERBS:
        return say(errors.unknown("verb", verb, VERBS), 2)
    return importlib.import_module(f"{__name__}.{verb}").main(rest)


def parser(verb: str, description: str, example: str) -> argparse.ArgumentParser:
    """A command line whose mistakes are one line.

    Returns:
        The parser, without arguments; its help shows the defaults.
    """
    return Parser(
        prog=f"sam-jax {verb}",
        description=description,
        epilog=f"Example:\n  {example}",
    )


def add_run(made: argparse.ArgumentParser) -> None:
    """Adds the arguments of `load_run`."""
    made.add_argument("run", metavar="RUN", help="the run (its --workdir)")
    add_step(made)


def add_step(made: argparse.ArgumentParser, default: str = "best") -> None:
    """Adds the choice of weights, and the permission to run the run's code."""
    made.add_argument(
        "--step",
        type=lambda text: int(text) if text.isdecimal() else text,
        default=default,
        help="which weights: best on validation, last, or the number of a kept step",
    )
    add_own_code(made)


def add_data_dir(made: argparse.ArgumentParser) -> None:
    """Adds the place of the data."""
    made.add_argument(
        "--data_dir",
        help="where the data are, if they have moved: your images, or those of TFDS",
    )


def add_own_code(made: argparse.ArgumentParser) -> None:
    """Adds the permission to run the files that a run's settings name."""
    made.add_argument(
        "--own_code",
        action="store_true",
        help="run the files that the run's settings name, such as my_net.py:MyNet",
    )


def with_settings(
    made: argparse.ArgumentParser, argv: Sequence[str], *repeated: str
) -> tuple[argparse.Namespace, list[str]]:
    """Parses flags, and settings of a run card among them.

    Returns:
        The flags' values, and the settings, ``--config.key=value``.
    """
    given = [word.partition("=")[0] for word in argv if word.startswith("--")]
    for name, times in collections.Counter(given).items():
        if times > 1 and name not in repeated:
            raise errors.UserError(f"{name} is given {times} times: give it once")
    args, rest = made.parse_known_args(argv)
    for word in rest:
        if not (word.startswith("--config.") and "=" in word):
            message = errors.unknown("flag", word, [f"--{flag}" for flag in vars(args)])
            raise errors.UserError(f"{message}, and settings, --config.name=value")
    return args, rest


def count(text: str) -> int:
    """An integer of at least 1, such as a number of runs.

    Example:
        >>> count("3")
        3
    """
    decimal = text.isascii() and text.isdecimal() and len(text) < 10
    if not decimal or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def add_runs(made: argparse.ArgumentParser) -> None:
    """Adds the runs to compare."""
    made.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="folders of runs, of sweeps and of earlier comparisons",
    )
    add_tuned(made)


def add_tuned(made: argparse.ArgumentParser) -> None:
    """Adds the choice among coefficients."""
    made.add_argument(
        "--tuned",
        action="store_true",
        help="of each method only the coefficients that are best on validation",
    )


def add_latex(made: argparse.ArgumentParser) -> None:
    """Adds the other form of the table."""
    made.add_argument("--latex", action="store_true", help="the table for LaTeX")


def ends(main: Callable[P, int]) -> Callable[P, int]:
    """Decorates the main function of a command: what its user can fix is one line.

    Returns:
        The same, which ends with 2 after a mistake of the user, 1 where a file cannot
        be written, and 130 after Ctrl-C.
    """

    @functools.wraps(main)
    def run(*args: P.args, **keywords: P.kwargs) -> int:
        try:
            return main(*args, **keywords)
        except errors.UserError as error:
            return say(error, 1 if isinstance(error, errors.WriteError) else 2)
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.EACCES):
                raise  # in code of the user's, or in ours
            return say(f"{error.filename}: {error.strerror}", 2)
        except KeyboardInterrupt:
            return say("interrupted", 130)

    return run


def start_jax(run: str | os.PathLike[str] | None) -> None:
    """Imports JAX, quietly, as a run has it, with the programs of earlier starts."""
    environment.set_up(run)
    import jax

    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/sam_jax/xla")
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(cache))


@contextlib.contextmanager
def quiet_pipe() -> Iterator[None]:
    """Ends the process quietly if the reader of its output leaves, as ``head`` does."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        sys.exit(nobody_reads())


def nobody_reads() -> int:
    """Throws away what the output has not taken; returns the code of such an end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + 13  # as if SIGPIPE had ended it


def say(message: object, code: int) -> int:
    """Prints an error on one line, whatever is in a path; returns the code."""
    print("error:", *str(message).splitlines(), file=sys.stderr)
    return code


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {line}" for verb, line in VERBS.items()]
    return "\n".join(
        [
            "usage: sam-jax VERB ...        (or: python -m sam_jax VERB ...)",
            "",
            "Sharpness-aware minimization (SAM) for JAX.",
            "",
            *lines,
            "",
            "sam-jax VERB --help shows the settings of a verb and an example.",
        ]
    )


class _Help(
    argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter
):
    """Defaults after each argument, the example as it is written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        known = action.default not in (None, False, argparse.SUPPRESS)
        return super()._get_help_string(action) if known else action.help


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are one line; ``--seed`` is no ``--seeds``."""

    def __init__(self, **settings: Any) -> None:
        defaults = {"formatter_class": _Help, "allow_abbrev": False}
        super().__init__(**(defaults | settings))

    def error(self, message: str) -> NoReturn:
        """Ends with one line."""
        self.exit(2, f"error: {message}; {self.prog} --help shows what there is\n")
