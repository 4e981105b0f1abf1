"""Texts, tables and figures of a report."""

import html
from collections.abc import Iterable, Sequence


class Html(str):
    """Text that is HTML already; all other text is escaped."""


def escaped(value: object) -> Html:
    """A value as HTML.

    Example:
        >>> print(escaped("<script>"), escaped(Html("<b>")))
        &lt;script&gt; <b>
    """
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    kind: str = "",
    differs: Sequence[bool] = (),
) -> Html:
    """A table that scrolls by itself where it is wider than the page.

    Args:
        head: of the columns.
        rows: cells.
        kind: ``"words"`` aligns all to the left.
        differs: which rows stand out.
    """
    lines = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td>{escaped(cell)}</td>" for cell in row)
        marked = ' class="differs"' if differs and differs[number] else ""
        lines.append(f"<tr{marked}>{cells}</tr>")
    titles = "".join(f"<th>{escaped(cell)}</th>" for cell in head)
    body = f"<thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return Html(f'<div class="scroll"><table class="{kind}">{body}</table></div>')


def figure(title: object, picture: str, kind: str = "") -> Html:
    """A picture below its title; nothing where there is no picture.

    Args:
        title: of the picture.
        picture: HTML.
        kind: ``"wide"`` takes two columns of a `grid` on wide screens.
    """
    if not picture:
        return Html("")
    caption = f"<figcaption>{escaped(title)}</figcaption>"
    return Html(f'<figure class="{kind}">{caption}{picture}</figure>')


def grid(figures: Iterable[str]) -> Html:
    """Figures side by side, as many as the page is wide."""
    found = "".join(figures)
    return Html(f'<div class="grid">{found}</div>' if found else "")


def paragraph(value: object, kind: str = "") -> Html:
    """A paragraph."""
    return Html(f'<p class="{kind}">{escaped(value)}</p>')
