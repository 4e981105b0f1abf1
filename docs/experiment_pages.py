"""The pages of training experiments: tables and pictures as they were written."""

import pathlib

RESULTS = pathlib.Path(__file__).parents[1] / "experiments" / "training" / "results"


def pages() -> dict[str, str | pathlib.Path]:
    """Place -> Markdown, or the picture itself."""
    found: dict[str, str | pathlib.Path] = {}
    for table in sorted(RESULTS.glob("*/table.md")):
        name, text = table.parent.name, table.read_text()
        title = f"# {name.replace('_', ' ').capitalize()}\n\n"
        text = text if text.startswith("# ") else title + text
        pictures = sorted(table.parent.glob("*.png"))
        shown = "".join(f"\n\n![{x.stem} of {name}]({name}/{x.name})" for x in pictures)
        found[f"experiments/{name}.md"] = text + shown
        found |= {f"experiments/{name}/{x.name}": x for x in pictures}
    return found
