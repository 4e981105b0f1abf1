"""What mkdocs does beyond mkdocs.yml: pages made from code, links, mathematics.

``python -m mkdocs build`` calls the functions ``on_...``. Generated pages exist in the
site alone; each module of `MAKERS` returns those of one section, by their place in it.
"""

import os
import pathlib
import posixpath
import re
import sys
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import mathjax  # noqa: E402

from docs import (  # noqa: E402
    experiment_pages,
    methods_page,
    notebooks,
    reference_pages,
    theory_pages,
)

# Section of the site -> its generated pages: text, or the file that is shown as it is.
MAKERS = {
    "Tutorials": notebooks.pages,
    "Methods": methods_page.pages,
    "Theory": theory_pages.pages,
    "Experiments": experiment_pages.pages,
    "Reference": reference_pages.pages,
}
# Pages and pictures whose source is outside of docs/.
MOVED = {
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "changelog.md": ROOT / "CHANGELOG.md",
    "security.md": ROOT / "SECURITY.md",
    "images/peers.svg": ROOT / "experiments" / "benchmarks" / "results" / "peers.svg",
}
# Files of the repository -> the pages that show them.
SHOWN = {
    r"docs/(tutorials/\w+)\.ipynb": r"\1.md",
    r"sam_jax/methods/(\w+)\.py": r"methods/\1.md",
    r"experiments/theory/(?:results/)?(\w+/\w+)(?:\.py|/README\.md)": r"theory/\1.md",
    r"experiments/theory/results/README\.md": "theory/index.md",
    r"experiments/training/results/(\w+)/(?:table|sharpness)\.md": r"experiments/\1.md",
    r"experiments/training/results/(.*\.\w+)": r"experiments/\1",
    r"experiments/theory/results/(.*\.\w+)": r"theory/\1",
    r"experiments/benchmarks/results/(.*\.svg)": r"images/\1",
    r"(?:docs/)?(.*\.md)": r"\1",
    r"docs/(.*)": r"\1",
}
MATHJAX = pathlib.Path(mathjax.__file__).parent / "static" / "mathjax" / "es5"
SHIM = "https://unpkg.com/iframe-worker/shim"  # of the theme, for search in files
FONTS = "output/chtml/fonts/woff-v2"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#|/)([^()\s#]+)(#[^()\s]*)?\)")

_made: dict[str, str | pathlib.Path] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Makes the pages, and names them in their sections."""
    _made.clear()
    _made.update(MOVED)
    for section in config.nav or ():
        ((title, entries),) = section.items()
        if title in MAKERS:
            found = MAKERS[title]()
            _made.update(found)
            entries += _nested([uri for uri in found if uri.endswith(".md")])
    return config


def _nested(uris: list[str]) -> list[Any]:
    """Entries of the navigation: pages two folders deep stand below their folder's."""
    entries: list[Any] = []
    groups: dict[str, list[str]] = {}
    for uri in uris:
        folder = posixpath.dirname(uri)
        if "/" not in folder:
            entries.append(uri)
            continue
        if folder not in groups:
            groups[folder] = []
            title = theory_pages.TITLES[posixpath.basename(folder)]
            entries.append({title: groups[folder]})
        groups[folder].append(uri)
    return entries


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages and what shows formulas."""
    shown = [MATHJAX / "tex-chtml.js", *sorted((MATHJAX / FONTS).glob("*.woff"))]
    scripts = {f"assets/mathjax/{x.relative_to(MATHJAX)}": x for x in shown}
    for uri, made in {**_made, **scripts}.items():
        if isinstance(made, str):
            files.append(File.generated(config, uri, content=made))
        else:
            files.append(File.generated(config, uri, abs_src_path=str(made)))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Turns links to the repository into links to pages, or into text."""
    if page.file.src_uri == "methods/index.md":
        markdown = methods_page.filled(markdown)
    if page.file.abs_src_path is None:
        return markdown
    place = pathlib.Path(page.file.abs_src_path).parent
    here = posixpath.dirname(page.file.src_uri) or "."

    def link(found: re.Match[str]) -> str:
        picture, text, target, anchor = found.groups()
        file = pathlib.Path(os.path.normpath(place / target))
        uri = _shown(file, files)
        if uri:
            return f"{picture}[{text}]({posixpath.relpath(uri, here)}{anchor or ''})"
        inside = file.is_relative_to(ROOT) and file.exists()
        return text if inside and not picture else found[0]

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.M | re.S)
    return "".join(x if x.startswith("```") else _LINK.sub(link, x) for x in parts)


def _shown(file: pathlib.Path, files: Files) -> str | None:
    """The place in the site of a file of the repository."""
    if not file.is_relative_to(ROOT):
        return None
    path = file.relative_to(ROOT).as_posix()
    for pattern, uri in SHOWN.items():
        if re.fullmatch(pattern, path):
            place = re.sub(pattern, uri, path)
            for name in (place, place.lower()):
                if files.get_file_from_path(name):
                    return name
    return None


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Pages with formulas load MathJax, and none loads anything from elsewhere."""
    up = posixpath.relpath("assets", posixpath.dirname(page.file.dest_uri) or ".")
    output = output.replace(SHIM, f"{up}/worker.js")
    if 'class="arithmatex"' not in output:
        return output
    scripts = (
        f'<script src="{up}/mathjax.js"></script>'
        f'<script async src="{up}/mathjax/tex-chtml.js"></script>'
    )
    return output.replace("</body>", f"{scripts}</body>")
