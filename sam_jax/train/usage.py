"""What ``--help`` shows of the trainer: flags, run cards, methods, settings."""

import ast
import textwrap
from collections.abc import Iterator, Mapping

from sam_jax import methods
from sam_jax.train import config, settings, typed

_TEXT = """\
usage: {program} --config=CARD[:METHOD] [FLAG ...]
           [--config.NAME=VALUE ...]

Trains as a run card says. The same command with the same --workdir continues,
and so does --workdir alone; with --config.epochs=N also a finished run.

flags:
{flags}

run cards, by name; one of your own by its path:
{cards}

methods:
{methods}

settings, with the defaults that a card starts from (a method's coefficients
are settings too, such as --config.method.rho=0.1; configs/methods has them):
{settings}

Example:
  {program} --config=cifar10_sam:vasso --config.epochs=100
"""


def text(program: str, flags: Mapping[str, tuple[object, str]]) -> str:
    r"""The help of a command that trains; no card is run.

    Example:
        >>> shown = text("sam-jax train", {"workdir": (None, "Folder of the run.")})
        >>> print(shown[shown.index("flags:") :].partition("\n\n")[0])
        flags:
          --workdir=  Folder of the run.
    """
    listed = {
        f"--{name}={'' if default is None else default}": meaning
        for name, (default, meaning) in flags.items()
    }
    found = sorted(config.CARDS.glob("*.py"))
    cards = {path.stem: ast.parse(path.read_bytes()) for path in found}
    titles = {
        name: (ast.get_docstring(tree) or "").partition("\n")[0]
        for name, tree in cards.items()
    }
    names = textwrap.fill(
        ", ".join((*methods.names(), "sgd")), 78, break_on_hyphens=False
    )
    return _TEXT.format(
        program=program,
        flags="\n".join(_rows(listed)),
        cards="\n".join(_rows(titles)),
        methods=textwrap.indent(names, "  "),
        settings=defaults(),
    )


def defaults() -> str:
    """The settings and what a card starts from, one a line."""
    flat = settings.flat(typed.plain(settings.Settings()))
    return "\n".join(f"  --config.{name}={value}" for name, value in flat.items())


def _rows(meanings: Mapping[str, str]) -> Iterator[str]:
    """Names, and what they mean beside them, in 80 columns."""
    width = min(20, max(map(len, meanings))) + 4
    for name, meaning in meanings.items():
        first = f"  {name}".ljust(width)
        yield from [first] if len(first) > width else []
        left = "" if len(first) > width else first
        indent = " " * width
        yield textwrap.fill(
            meaning, 80, initial_indent=left or indent, subsequent_indent=indent
        )
