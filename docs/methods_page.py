"""The pages of the methods, from their docstrings: a list, and one page for each."""

import inspect
import pathlib
import re
import runpy
import textwrap
from typing import NamedTuple

import sam_jax
from docs import measured
from docs.docstrings import display, markdown
from sam_jax import exports, methods, schedules

ROOT = pathlib.Path(__file__).parents[1]
NUMBERS = ("No", "One", "Two", "Three", "Four")
COST = re.compile(rf"({'|'.join(NUMBERS)}) gradients? per update")
SECTIONS = (
    "Args",
    "Returns",
    "Raises",
    "Example",
    "References",
    "Differences from the authors' code",
)


class Incomplete(ValueError):
    """What a docstring or a fragment lacks, with the file."""


class Method(NamedTuple):
    """What a docstring says, as Markdown.

    Attributes:
        name: of the method.
        signature: its call.
        summary: one line.
        formulas: LaTeX, to be displayed one below the other.
        gradients: per update, as written.
        state: as written.
        lead: the paragraphs on cost and use.
        arguments: (name, meaning) of its own coefficients.
        example: doctest.
        references: paragraphs.
        differences: from the authors' code.
        fragment: (source, values) of its configuration fragment.
    """

    name: str
    signature: str
    summary: str
    formulas: list[str]
    gradients: str
    state: str
    lead: list[str]
    arguments: list[tuple[str, str]]
    example: str
    references: list[str]
    differences: str
    fragment: tuple[str, str]


def read(name: str) -> Method:
    """Reads the docstring of a method and its configuration fragment.

    Raises:
        Incomplete: if one of them lacks something.
    """
    factory = methods.factory(name)
    doc = inspect.getdoc(factory) or ""

    def require(there: object, what: str) -> None:
        if not there:
            raise Incomplete(f"sam_jax/methods/{name}.py: its docstring has no {what}")

    starts = [doc.find(f"\n{section}:\n") for section in SECTIONS]
    for section, start, after in zip(SECTIONS, starts, [-1, *starts], strict=False):
        require(start > after, f"section {section!r}, in its place among {SECTIONS}")
    body = {
        section: textwrap.dedent(doc[start + len(section) + 3 : end])
        for section, start, end in zip(
            SECTIONS, starts, [*starts[1:], len(doc)], strict=True
        )
    }
    summary, *rest = paragraphs(doc[: starts[0]])
    require(".. math::" in rest, "formula (`.. math::`)")
    math = rest.index(".. math::")
    # A displayed formula may have several paragraphs; text is not indented.
    after = [i for i in range(math + 1, len(rest)) if not rest[i].startswith(" ")]
    formulas = [display(x) for x in rest[math + 1 : after[0]]]
    lead = [markdown(x) for x in [*rest[:math], *rest[after[0] :]]]
    cost = next((x for x in lead if COST.match(x)), "")
    require(cost, "paragraph 'Two gradients per update; state: ...'")
    gradients, _, state = cost.partition(";")
    own = [p for p in arguments(body["Args"]) if p[0] not in ("eps", "mask")]
    fragment = ROOT / "configs" / "methods" / f"{name}.py"
    if not fragment.exists():
        raise Incomplete(f"configs/methods/{name}.py is missing")
    config = runpy.run_path(str(fragment))
    require("arxiv.org" in body["References"], "reference with a link to arXiv")
    values = ", ".join(f"{k}={v!r}" for k, v in config["get_config"]().items())
    return Method(
        name=name,
        signature=signature(name),
        summary=markdown(summary),
        formulas=formulas,
        gradients=number(gradients),
        state=state.partition(".")[0].strip(),
        lead=lead,
        arguments=own,
        example=body["Example"].strip(),
        references=[markdown(x) for x in paragraphs(body["References"])],
        differences=markdown(" ".join(body[SECTIONS[-1]].split())),
        fragment=(markdown(" ".join(config["__doc__"].split())), values),
    )


def signature(name: str) -> str:
    """The call with its own coefficients, such as ``vasso(rho=0.05, theta=0.9)``."""
    shown = []
    for parameter in inspect.signature(methods.factory(name)).parameters.values():
        if parameter.name in ("eps", "mask"):
            continue
        default = parameter.default
        if default is parameter.empty:
            shown.append(parameter.name)
        elif callable(default):
            shown.append(f"{parameter.name}={default.__name__}")
        else:
            shown.append(f"{parameter.name}={default!r}")
    return f"{name}({', '.join(shown)})"


def paragraphs(text: str) -> list[str]:
    """Blocks between empty lines; indented ones keep their indentation."""
    blocks = [block.strip("\n") for block in re.split(r"\n\s*\n", text)]
    return [
        block if block.startswith(" ") else " ".join(block.split())
        for block in blocks
        if block.strip()
    ]


def arguments(text: str) -> list[tuple[str, str]]:
    """Names and meanings of an Args section."""
    found = re.split(r"^(\w+): ", text, flags=re.MULTILINE)[1:]
    return [
        (name, cell(" ".join(meaning.split())))
        for name, meaning in zip(found[::2], found[1::2], strict=True)
    ]


def number(gradients: str) -> str:
    """The number of gradients, on average where the text says so."""
    average = re.search(r"so `([^`]+)` on average", gradients)
    return average[1] if average else str(NUMBERS.index(gradients.split()[0]))


def page(method: Method) -> str:
    """A method's page."""
    rows = "\n".join(f"| `{n}` | {text} |" for n, text in method.arguments)
    source, values = method.fragment
    costs = [x for x in method.lead if COST.match(x)]
    use = [x for x in method.lead if x.startswith("Use it")]
    others = [x for x in method.lead if x not in [*costs, *use]]
    parts = {
        "": [f"# {method.name}", method.summary, f"`sam_jax.{method.signature}`"],
        "Formula": [*method.formulas, *others],
        "When to use it": use,
        "Cost": [*costs, measured.cost(method.name)],
        "Published results": [measured.published(method.name)],
        "Our results": [measured.ours(method.name)],
        "Coefficients": [
            f"| coefficient | meaning |\n|---|---|\n{rows}",
            f"In a run card, `:{method.name}` after its name: `{values}`. {source}",
        ],
        "Example": [f"```python\n{method.example}\n```"],
        "References": method.references,
        "Differences from the authors' code": [method.differences],
    }
    lines = [line for title, x in parts.items() for line in (f"## {title}", *x)]
    return "\n\n".join(lines[1:]) + "\n"


def pages() -> dict[str, str]:
    """Place in the site -> Markdown of each method's page."""
    return {f"methods/{name}.md": page(read(name)) for name in names()}


def filled(index: str) -> str:
    """The list of methods, with its tables."""
    tables = {"methods": table(), "others": others()}
    return re.sub(r"<!-- table of (\w+).*?-->", lambda found: tables[found[1]], index)


def others() -> str:
    """A table of everything else that ``sam_jax`` exports."""
    rows = []
    for name in sorted(exports.MODULES.keys() - set(methods.names())):
        value = getattr(sam_jax, name)
        if callable(value):
            rows.append(f"| `{name}` | {first_line(value)} |")
    rows += [
        f"| `schedules.{name}` | {first_line(value)} |"
        for name, value in sorted(vars(schedules).items())
        if inspect.isfunction(value) and not name.startswith("_")
    ]
    return "\n".join(["| name | what it is |", "|---|---|", *rows])


def first_line(documented: object) -> str:
    """The first line of a docstring, for a cell."""
    return cell((inspect.getdoc(documented) or "").splitlines()[0]).rstrip(".")


def cell(text: str) -> str:
    """Markdown in which no bar of a formula ends the cell of a table."""

    def without_bars(formula: re.Match[str]) -> str:
        return formula[0].replace("\\|", r"\Vert ").replace("|", r"\vert ")

    return re.sub(r"\$[^$]+\$", without_bars, markdown(text))


def names() -> list[str]:
    """SAM first, then the others by name."""
    return ["sam", *(name for name in methods.names() if name != "sam")]


def table() -> str:
    """A row for each method."""
    head = "| method | what it is | paper | gradients | state |\n|---|---|---|---|---|"
    return "\n".join([head, *map(row, map(read, names()))])


def row(method: Method) -> str:
    """A method's row in it."""
    reference = next(x for x in method.references if "arxiv.org" in x)
    link = re.search(r"\[[^]]+\]\(https://arxiv[^)]+\)", reference)
    year = re.search(r"\b20\d\d\b", reference)
    assert link and year, method.name
    state = "–" if method.state.startswith("no state") else method.state
    return (
        f"| [`{method.name}`]({method.name}.md) "
        f"| {method.summary.rstrip('.')} | {cited(reference)} {year[0]}, {link[0]} "
        f"| {method.gradients} | {state.removeprefix('state: ')} |"
    )


def cited(reference: str) -> str:
    """The authors of a reference, as it is cited.

    Example:
        >>> cited('Yun, "Title", 2025'), cited('Li, Giannakis, "Title", 2023')
        ('Yun', 'Li and Giannakis')
        >>> cited('Du, Yan, Feng, "Title", ICLR 2022')
        'Du et al.'
    """
    authors = reference.partition(', "')[0].split(", ")
    return " and ".join(authors) if len(authors) < 3 else f"{authors[0]} et al."
