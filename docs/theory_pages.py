"""The pages of the laboratory: a list, and one page for each claim."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from experiments.benchmarks import measure
from experiments.theory import catalog, claims, mutations, report
from experiments.theory.pictures import symbols

RESULTS = pathlib.Path(report.__file__).parent / "results"
PICTURES = ("figure.svg", "thumbnail.png")
# Folders of papers, for the navigation.
TITLES = {
    "khanh": "Khanh et al. 2024",
    "si_yun": "Si and Yun 2023",
    "oikonomou": "Oikonomou and Loizou 2025",
    "beyond": "Beyond the papers",
}
INTRODUCTION = """\
# All claims

Each claim is a file that states a theorem, a counterexample or a figure, and runs the
library's own transformations against it in float64. The verdict is computed. FAIL
(known) marks a claim that does not hold as published: its page says why. LOOSE marks a
claim whose checks do not notice a change of the ascent.
"""


def pages() -> dict[str, str | pathlib.Path]:
    """Place -> Markdown, or the picture itself."""
    found: dict[str, str | pathlib.Path] = {}
    survived = mutations.load(RESULTS)
    rows = []
    for name in catalog.names():
        record = json.loads((RESULTS / name / "data.json").read_text())
        claim = catalog.load(name).CLAIM
        found[f"theory/{name}.md"] = page(name, claim, record, survived.get(name))
        for picture in PICTURES:
            found[f"theory/{name}/{picture}"] = RESULTS / name / picture
        rows.append((name, record))
    parts = [INTRODUCTION]
    for paper, title in catalog.PAPERS.items():
        cells = [_row(*x) for x in rows if x[0].startswith(f"{paper}/")]
        head = ("", "claim", "predicted", "measured", "verdict")
        parts += [f"## {title}", measure.markdown(head, cells)]
    tables = (RESULTS / "tables.md").read_text()
    tables = re.sub(r"\(\.\./(\w+/\w+)\.py\)", r"(\1.md)", tables)
    lists = {"theory/index.md": "\n\n".join(parts) + "\n", "theory/tables.md": tables}
    return lists | found


def _row(name: str, record: Mapping[str, Any]) -> list[str]:
    """A claim in the list; its first check stands for it."""
    title, _, predicted, measured, verdict, *_ = report.row(record)
    picture = f"[![]({name}/thumbnail.png)]({name}.md)"
    link = f"[{_text(title)}]({name}.md)".replace("|", "\\|")
    return [picture, link, _cell(predicted), _cell(measured), verdict]


def page(
    name: str,
    claim: claims.Claim,
    record: Mapping[str, Any],
    survived: list[str] | None,
) -> str:
    """A claim's page.

    Args:
        name: ``paper/claim``.
        claim: what is stated.
        record: its results.
        survived: the mutations that no check notices; None if none was tried.
    """
    place = name.partition("/")[2]
    keys = ("what", "predicted", "measured")
    rows = [
        [*(_cell(check[key]) for key in keys), "yes" if check["passed"] else "**no**"]
        for check in record["checks"]
    ]
    refuted = f"""
!!! warning "Known not to hold"

    {_text(claim.refuted)}
"""
    return f"""# {_text(claim.title)}

**{record["verdict"]}** · {claim.source} · {record["seconds"]:g} s ·
`experiments/theory/{name}.py`
{refuted if claim.refuted else ""}
{_text(claim.statement)}

![{_text(claim.title)}]({place}/figure.svg)

## What is run

{_text(claim.recipe)}

```sh
{record["command"]}
```

## Verdict

**PASS if** {_text(claim.criterion)}

{measure.markdown(["quantity", "predicted", "measured", "agree"], rows)}

## What would make it fail

Any check of the table that does not agree. To show that the checks depend on SAM's
ascent, the claim is also run with each change of the ascent:

{_mutations(claim, survived)}
"""


def _mutations(claim: claims.Claim, survived: list[str] | None) -> str:
    if survived is None:
        return "This has not been done for this claim yet."
    rows = []
    for name in mutations.FACTORS:
        reason = claim.survivors.get(name, "**no reason is known: LOOSE**")
        noticed = "no" if name in survived else "yes"
        rows.append([name, noticed, _cell(reason) if name in survived else ""])
    return measure.markdown(["ascent", "noticed by a check", "why not"], rows)


def _text(words: str) -> str:
    """A paragraph of a claim with its symbols; TeX stays as it is."""
    if "$" in words:
        return words
    return symbols(re.sub(r"\s+", " ", words))


def _cell(words: str) -> str:
    return symbols(words).replace("|", "\\|")
