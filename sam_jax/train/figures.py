"""What pictures in files have in common: colours, an empty figure, and a whole file."""

import io
import logging
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sam_jax import errors
from sam_jax.train import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008, "Color Universal Design"): colour-blind readers tell them apart.
COLORS = ("#555555", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Readers of grey prints tell lines apart by these.
LINES = ("-", (0, (5, 1.5)), "-.", (0, (7, 1.5, 1.5, 1.5, 1.5, 1.5)), (0, (2.5, 1)))
MARKS = "osD^vPX"
WIDTH = 2.0  # of a line, in points
# A method has the same colour in every picture.
OWN = {"none": 0, "sgd": 0, "gd": 0, "sam": 1, "m-sam": 1, "usam": 2, "unified_sam": 2}
OWN |= {"n-sam": 2, "vasso": 3, "looksam": 4, "asam": 5, "gsam": 6, "f-sam": 6}


def slots(names: Sequence[str]) -> list[int]:
    """The places in `COLORS` of lines by their names: a method's own, or a free one.

    Example:
        >>> slots(["SAM", "SGD, learning_rate=0.3", "sam", "other"])
        [1, 0, 2, 3]
    """
    found: dict[int, int] = {}
    for i, name in enumerate(names):
        own = OWN.get(re.split("[(,]", name)[0].lower())
        if own is not None and own not in found.values():
            found[i] = own
    order = [*range(2, len(COLORS)), 0, 1]
    free = [slot for slot in order if slot not in found.values()]
    for i in range(len(names)):
        if i not in found:
            found[i] = free.pop(0) if free else i % len(COLORS)
    return [found[i] for i in range(len(names))]


def empty(size: tuple[float, float], title: str, **style: Any) -> "Figure":
    """A figure with a title, of a size in inches; ``style`` is of the title.

    It is an object of its own: pyplot keeps figures and a backend in global variables.
    """
    # That it looks for fonts, for seconds, is no news of the run.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with errors.needing("train"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, parse_math=False, **style)
    return figure


def light(svg: str) -> str:
    """A vector picture of Matplotlib's, lighter: in one line, without metadata.

    Points are kept to the hundredth.

    Example:
        >>> light('<svg x="1.23456"> <metadata> x </metadata>  <t>1.23456</t> </svg>')
        '<svg x="1.23"> <t>1.23456</t> </svg>'
    """
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)
    return " ".join(svg.split())


def save(figure: "Figure", path: pathlib.Path, *suffixes: str) -> None:
    """Writes a picture; what is there stays until the new one is complete.

    Args:
        figure: the picture.
        path: of the file.
        *suffixes: in which forms it is written, ``".png"`` and ``".svg"``; in that of
            the path where there are none.

    Raises:
        WriteError: if it cannot be written.
    """
    from matplotlib import rc_context

    for suffix in suffixes or (path.suffix,):
        about: dict[str, Any] = {"metadata": {"Date": None}} if suffix == ".svg" else {}
        drawn = io.BytesIO()
        # Words stay words, and the same picture the same bytes.
        with rc_context(
            {
                "svg.fonttype": "none",
                "path.simplify_threshold": 0.5,
                "svg.hashsalt": "sam_jax",
            }
        ):
            figure.savefig(drawn, format=suffix[1:], dpi=150, **about)
        content = drawn.getvalue()
        if suffix == ".svg":
            content = light(content.decode()).encode()
        files.replace(path.with_suffix(suffix), content)
