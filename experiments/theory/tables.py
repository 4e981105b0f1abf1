"""The papers' own tables, each cell with the claims that check it.

``tables.md`` has their text. There ``@paper/claim`` stands for a link to the claim with
its verdict, ``@1`` to ``@5`` for a convergence property in the words of
`conditions.PROPERTIES`.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sam_jax.theory import conditions

TEXT = pathlib.Path(__file__).with_suffix(".md").read_text()


def names() -> set[str]:
    """The claims that the tables link to.

    Example:
        >>> "khanh/two_cycle" in names()
        True
    """
    return set(re.findall(r"@(\w+/\w+)", TEXT))


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """All tables, linked from the folder of the results.

    Args:
        records: of the claims that were run; see `report.index`.
    """
    verdicts = {record["name"]: record["verdict"] for record in records}

    def meant(match: re.Match[str]) -> str:
        if (word := match[1]).isdigit():
            return conditions.PROPERTIES[int(word)].replace("|", "\\|")
        return f"[{word}](../{word}.py) ({verdicts.get(word, 'not run')})"

    return re.sub(r"@(\w+/\w+|\d)", meant, TEXT)
