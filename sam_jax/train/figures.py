"""What pictures in files have in common: colours, an empty figure, and a whole file."""

import io
import logging
import pathlib
from typing import TYPE_CHECKING, Any

from sam_jax import errors
from sam_jax.train import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008, "Color Universal Design"): colour-blind readers tell them apart.
COLORS = ("#555555", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


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


def save(figure: "Figure", path: pathlib.Path) -> None:
    """Writes a picture as PNG; one that is there stays until the new one is complete.

    Raises:
        WriteError: if it cannot be written.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150)
    files.replace(path, drawn.getvalue())
