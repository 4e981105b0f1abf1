"""The tutorials: percent-format sources, executed as notebooks.

    python -m docs.notebooks                    # all: executes, writes docs/tutorials
    python -m docs.notebooks valley ten_lines   # some of them
    python -m docs.notebooks --out=DIR          # leaves the committed ones alone

`docs/tutorials/NAME.py` is the source, which linters and type checkers read;
`NAME.ipynb` beside it has the outputs. `pages` turns those into Markdown for the site,
without executing anything. With SAM_JAX_REPOSITORY=https://github.com/OWNER/REPOSITORY
every page has a button that opens its notebook in Colab.
"""

import argparse
import os
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import sam_jax
from sam_jax.train import figures

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "tutorials"
NAMES = (  # in the order of the site
    *("ten_lines", "choosing_rho", "own_images", "fine_tuning_text", "label_noise"),
    *("flat_or_sharp", "own_method", "devices", "valley"),
)
# One style for the pictures of all: SGD is drawn first, dashed and grey, then SAM.
_STYLE = f"""
from cycler import cycler
c.InlineBackend.figure_formats = ["svg"]
c.InlineBackend.print_figure_kwargs = dict(metadata=dict(Date=None))
c.InlineBackend.rc = {{
    "axes.prop_cycle": cycler(
        color={figures.COLORS[:6]}, linestyle=["--", "-", "-.", ":", "-", "--"]
    ),
    "axes.grid": True, "axes.spines.right": False, "axes.spines.top": False,
    "figure.figsize": (6.4, 3.6), "figure.constrained_layout.use": True,
    "figure.facecolor": "white", "font.size": 11, "grid.color": "#dddddd",
    "image.cmap": "cividis", "legend.frameon": False, "lines.linewidth": 2,
    "svg.fonttype": "none", "svg.hashsalt": "sam_jax",
}}
"""


def source(name: str) -> Any:
    """The notebook as it is written, without outputs.

    Args:
        name: of the tutorial.
    """
    import jupytext

    made = jupytext.read(FOLDER / f"{name}.py", fmt="py:percent")
    made.metadata = {
        "kernelspec": {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
    }
    for number, cell in enumerate(made.cells):
        cell["id"] = f"cell-{number}"
    return made


def executed(name: str, folder: pathlib.Path, path: str = str(ROOT)) -> Any:
    """The notebook with its outputs; its assertions hold.

    Args:
        name: of the tutorial.
        folder: where it runs, and leaves its files.
        path: PYTHONPATH of its kernel.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    import nbclient

    notebook = source(name)
    with tempfile.TemporaryDirectory() as ipython:
        profile = pathlib.Path(ipython) / "profile_default"
        profile.mkdir()
        (profile / "ipython_kernel_config.py").write_text(_STYLE)
        client = nbclient.NotebookClient(
            notebook,
            timeout=900,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            skip_cells_with_tag="skip-execution",
            record_timing=False,
            coalesce_streams=True,
        )
        unwanted = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "MPLBACKEND")
        kept = {k: v for k, v in os.environ.items() if k not in unwanted}
        search = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        new = {"PYTHONPATH": path, "PATH": search, "IPYTHONDIR": ipython}
        client.execute(env=kept | {"JAX_PLATFORMS": "cpu", "NO_COLOR": "1"} | new)
    for cell in notebook.cells:
        outputs = [x for x in cell.get("outputs", ()) if x.get("name") != "stderr"]
        if "outputs" in cell:
            cell.outputs = outputs
        for output in outputs:
            if svg := output.get("data", {}).get("image/svg+xml"):
                output.data["image/svg+xml"] = figures.light(svg[svg.index("<svg") :])
    return notebook


def pages() -> dict[str, str]:
    """The pages of the site and their pictures, by their places in it."""
    import nbformat

    found: dict[str, str] = {}
    for name in NAMES:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        text, pictures = markdown(name, notebook)
        found |= {f"tutorials/{file}": svg for file, svg in pictures.items()}
        found[f"tutorials/{name}.md"] = text
    return found


def markdown(name: str, notebook: Any) -> tuple[str, dict[str, str]]:
    """A page, and its pictures, SVG, by the names of their files.

    Args:
        name: of the tutorial.
        notebook: with its outputs.
    """
    parts: list[str] = []
    pictures: dict[str, str] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", cell.source))
            if len(parts) == 1:
                parts.append(buttons(name))
            continue
        first, _, rest = cell.source.partition("\n")
        shell = first == "%%bash"
        parts.append(_fenced(rest, "sh") if shell else _fenced(cell.source, "python"))
        printed = ""
        for output in cell.outputs:
            shown = output.get("data", {})
            if svg := shown.get("image/svg+xml"):
                file = f"{name}_{len(pictures) + 1}.svg"
                pictures[file] = svg
                parts.append(f"![{first.lstrip('# ')}]({file})")
            else:
                printed += output.get("text") or shown.get("text/plain", "") + "\n"
        if printed.strip():
            parts.append(_fenced(printed))
    return "\n\n".join(parts) + "\n", pictures


def buttons(name: str) -> str:
    """The line with the links to the notebook.

    Example:
        >>> buttons("valley").endswith("[Download the notebook](valley.ipynb)")
        True
    """
    here = f"[Download the notebook]({name}.ipynb)"
    repository = os.environ.get("SAM_JAX_REPOSITORY", "").rstrip("/")
    github = "https://github.com/"
    if not repository.startswith(github):
        return here
    there = f"{repository.removeprefix(github)}/blob/v{sam_jax.__version__}"
    colab = "https://colab.research.google.com/github"
    return f"[Open in Colab]({colab}/{there}/docs/tutorials/{name}.ipynb) · {here}"


def _fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def main(arguments: Sequence[str] | None = None) -> None:
    """Executes tutorials and writes their notebooks."""
    made = argparse.ArgumentParser(
        description="Executes the tutorials.", allow_abbrev=False
    )
    made.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    made.add_argument("--out", type=pathlib.Path, default=FOLDER)
    given = made.parse_args(arguments)
    if unknown := set(given.names) - set(NAMES):
        made.error(f"no tutorial {', '.join(unknown)}; there are {', '.join(NAMES)}")
    import nbformat

    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.names or NAMES:
        clock = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(name, pathlib.Path(folder))
        nbformat.write(notebook, given.out / f"{name}.ipynb")
        print(f"{name}: {time.monotonic() - clock:.0f} s", flush=True)


if __name__ == "__main__":
    main()
