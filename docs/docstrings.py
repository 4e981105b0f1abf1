"""Markdown from the docstrings' reStructuredText, for pages and for mkdocstrings."""

import re
import textwrap
from typing import Any

import griffe


def markdown(text: str) -> str:
    """Markdown of a paragraph: formulas, links, code."""
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text)
    text = re.sub(r"(?<!`)`([^`<]+?)\s*<([^>]+)>`_", r"[\1](\2)", text)
    return text.replace("``", "`")


def display(formula: str) -> str:
    """A displayed formula; aligned lines say so, which Sphinx does by itself."""
    formula = textwrap.dedent(formula).strip()
    if "&=" in formula and r"\begin{" not in formula:
        formula = "\\begin{aligned}\n" + formula + "\n\\end{aligned}"
    return f"$$\n{formula}\n$$"


def whole(text: str) -> str:
    """Markdown of a whole docstring, displayed formulas too."""

    def formulas(found: re.Match[str]) -> str:
        return "\n\n".join(map(display, re.split(r"\n *\n", found[1].strip("\n"))))

    text = re.sub(r"^\.\. math::\n((?:\n+ +.*)+)", formulas, text, flags=re.M)
    text = re.sub(r"^Example:$", "Examples:", markdown(text), flags=re.M)
    return re.sub(r"::$", ":", text, flags=re.M)


class Markdown(griffe.Extension):
    """mkdocstrings reads docstrings as Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = whole(obj.docstring.value)
