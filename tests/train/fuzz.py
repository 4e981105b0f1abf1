"""Every setting of every run card with many values: a run, or one sentence.

All of it, which takes minutes:

    python -m tests.train.fuzz
"""

import inspect
import itertools
import pathlib
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import NamedTuple

import jax

from sam_jax import errors, methods
from sam_jax.train import build, cards, coefficients, options, remarks, settings

ROOT = pathlib.Path(__file__).parents[2]
CARDS = sorted((ROOT / "configs").glob("*.py"))
# Data that a test does not have.
ABSENT = {
    "cifar10": build.DataSpec((32, 32, 3), 10, 45_000, 352),
    "cifar100": build.DataSpec((32, 32, 3), 100, 45_000, 352),
    "folder": build.DataSpec((32, 32, 3), 3, 200, 3),
    "fashion_mnist": build.DataSpec((28, 28, 1), 10, 54_000, 422),
}
# Nothing, words, both ends of what numbers there are, and other shapes.
VALUES = (
    *("None", "True", "no", "abc", "", "nan", "inf", "-inf", "-1", "0", "1", "2"),
    *("0.5", "1.5", "-0.5", "1e-45", "1e30", "3.5e38", "1e308", "1e999"),
    *(
        "2147483647",
        "2147483648",
        "4294967296",
        "99999999999999999999",
        "1" + "0" * 400,
    ),
    *("[1, 2]", "(1, 'x')", "{}", "{'name': 'cosine', 'value': 0.1}", "{'a': 1}"),
    *("'" + "9" * 30 + "'", "0x10", "lambda x: x", "\u00e4", "(" * 300),
)
# A network that is quick to trace, and nothing that is fetched.
SMALL = (
    *("--config.model.name=mlp", "--config.model.width=8", "--config.mesh.data=1"),
    *("--config.batch_size=32", "--config.data.download=False"),
)
SECONDS = 20.0  # that one case may take


class TooLongError(BaseException):
    """A case does not end; no `Exception`, which what it interrupts may handle."""


class Case(NamedTuple):
    """A command line.

    Attributes:
        card: of the run, with the method.
        changes: ``--config.key=value``; the last one counts.
    """

    card: str
    changes: tuple[str, ...]


def cases() -> Iterator[Case]:
    """Each leaf of each card, coefficient and option of an optimizer with `VALUES`."""
    for card, key, value in itertools.product(CARDS, leaves(), VALUES):
        yield Case(str(card), (*chosen(key), f"--config.{key}={value}"))
    for name in methods.names():
        for key, value in itertools.product(coefficients.parameters(name), VALUES):
            yield Case(f"{CARDS[0]}:{name}", (f"--config.method.{key}={value}",))
    for name, factory in sorted(options.optimizers().items()):
        _, *keys = inspect.signature(factory).parameters
        for key, value in itertools.product(keys, VALUES):
            change = f"--config.optimizer.{name}.{key}={value}"
            yield Case(str(CARDS[0]), (f"--config.optimizer.name={name}", change))


def leaves() -> list[str]:
    """Names of all settings, those of all choices too."""
    config = cards.configuration(str(CARDS[0]))
    groups = {key.rpartition(".")[0] for key in settings.flat(config)} - {""}
    return sorted({*settings.flat(config), *groups, "model.options", "not.there"})


def chosen(key: str) -> tuple[str, ...]:
    """What makes a setting count."""
    match key.split("."):
        case ["cadence" | "optimizer" as group, name, _]:
            return (f"--config.{group}.name={name}",)
        case ["schedule", "boundaries" | "factor"]:
            return ("--config.schedule.name=step",)
        case ["data", "sampling", "scores" | "uniform"]:
            return ("--config.data.sampling.name=importance",)
    return ()


def outcome(case: Case) -> build.Steps | str:
    """What comes of a case.

    Returns:
        The functions of a run, whose step and evaluation have been traced; or the
        sentence that refuses it.

    Raises:
        Exception: anything else is a fault.
        TooLongError: so is what takes more than `SECONDS`.
    """
    previous = signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return _traced(cards.load(case.card, *SMALL, *case.changes))
    except errors.UserError as error:
        message = str(error)
        assert message and message.isprintable() and len(message) < 2000, message
        return message
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _too_long(*_: object) -> None:
    raise TooLongError(f"more than {SECONDS:g} seconds")


def _traced(config: settings.Settings) -> build.Steps:
    if config.data.name in ABSENT:
        made = build.steps(config, ABSENT[config.data.name])
    else:
        made = build.build(config)
        assert all(remark.isprintable() for remark in remarks.of(made))
    made.trace()
    return made


def main() -> int:
    """All cases; prints those that fail."""
    failed = runs = number = 0
    for number, case in enumerate(cases(), 1):
        try:
            runs += not isinstance(outcome(case), str)
        except (Exception, TooLongError):
            failed += 1
            print(*case, traceback.format_exc().splitlines()[-1], sep="\n    ")
        if number % 1000 == 0:
            jax.clear_caches()
    print(f"{number} cases, {runs} run, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
