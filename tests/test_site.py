"""The documentation site: strict, whole without a network, readable at any width."""

import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse
from html import parser

import pytest

pytest.importorskip("mkdocs")

ROOT = pathlib.Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (400, 1400)
HEAVIEST = 2e6  # bytes
# One page of each kind.
KINDS = ("index", "library", "recipes", "results", "changelog", "methods/index")
KINDS += ("methods/bsam", "theory/index", "theory/khanh/two_cycle")
KINDS += ("theory/si_yun/stochastic_bias", "experiments/small_stage1")
KINDS += (
    "reference/library",
    "reference/theory",
    "tutorials/label_noise",
    "index?q=vasso",
)


class Page(parser.HTMLParser):
    """What a page refers to and what can be referred to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.resources, self.ids = [], [], {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found.get("id"), found.get("name")} - {None}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "icon"):
            self.resources.append(found["href"])
        elif "src" in found:
            self.resources.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; warnings are errors."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "-d", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def inside(place, link):
    """The file of a link, and its anchor; None where it leaves the site."""
    address = urllib.parse.urlsplit(link)
    if address.scheme or address.netloc:
        return None, ""
    path = urllib.parse.unquote(address.path)
    return (place.parent / path).resolve() if path else place, address.fragment


@pytest.mark.slow("builds the whole site")
def test_pages_are_whole_light_and_linked(site):
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    del pages[site / "404.html"]  # which a server shows, in any folder
    assert len(pages) > 100
    wrong = []
    for path, page in pages.items():
        weight = path.stat().st_size
        for resource in set(page.resources):
            file, _ = inside(path, resource)
            if file is None or not file.is_file():
                wrong.append(f"{path}: {resource} is not in the site")
            else:
                weight += file.stat().st_size
        if re.search(r"\.\. math::\s|</code>_|:\w+:<code", path.read_text()):
            wrong.append(f"{path}: markup of a docstring is shown as it is")
        if weight > HEAVIEST:
            wrong.append(f"{path}: {weight / 1e6:.1f} MB")
        for link in set(page.links):
            file, anchor = inside(path, link)
            anchors = pages[file].ids if file in pages else {anchor}
            if file and not (file.exists() and urllib.parse.unquote(anchor) in anchors):
                wrong.append(f"{path}: {link} leads nowhere")
    assert not wrong, "\n".join(wrong)
    for style in site.rglob("*.css"):
        assert not re.search(
            r"(?:url\(|@import\s*)['\"]?(?:https?:)?//", style.read_text()
        )


@pytest.mark.slow("builds the whole site")
def test_what_a_function_returns_is_one_text(site):
    """A docstring's second line is no second result."""
    text = (site / "reference" / "library.html").read_text()
    words = " ".join(re.sub("<[^>]+>", " ", html.unescape(text)).split())
    assert "without those that are None or not measured" in words


LOOK = """
const found = {};
for (const frame of document.querySelectorAll('iframe')) {
  const inner = frame.contentDocument, root = inner.documentElement, wrong = [];
  if (root.scrollWidth > root.clientWidth) wrong.push('wider than the page');
  for (const image of inner.images)
    if (!image.naturalWidth) wrong.push(image.src + ' does not show');
  for (const error of inner.querySelectorAll('mjx-merror'))
    wrong.push('TeX: ' + error.textContent);
  if (frame.src.includes('?q=') && !inner.querySelector('.md-search-result__item'))
    wrong.push('the search finds nothing');
  if (inner.querySelector('.arithmatex') && !inner.querySelector('mjx-container'))
    wrong.push('no formula shows');
  found[frame.name] = wrong;
}
document.title = JSON.stringify(found);
"""


def looked(site, names, folder):
    """Page and width -> what is wrong there, in a browser; its console is silent."""
    frames = "".join(
        f'<iframe name="{name} at {width}" style="width: {width}px; height: 900px" '
        f'src="{site}/{name.partition("?")[0]}.html?{name.partition("?")[2]}"></iframe>'
        for name in names
        for width in WIDTHS
    )
    page = folder / "all.html"  # after the formulas, which come after the pages
    script = f"onload = () => setTimeout(() => {{{LOOK}}}, 20000)"
    page.write_text(f"<title></title>{frames}<script>{script}</script>")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"]
    command += ["--allow-file-access-from-files", "--virtual-time-budget=30000"]
    done = subprocess.run(
        [*command, f"file://{page}"], capture_output=True, text=True, timeout=600
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    (title,) = re.findall("<title>({.*?})</title>", done.stdout)
    return json.loads(html.unescape(title))


@pytest.mark.slow("a browser")
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")
def test_pages_in_a_browser(site, tmp_path):
    found = looked(site, KINDS, tmp_path)
    assert len(found) == len(KINDS) * len(WIDTHS)
    assert {page: wrong for page, wrong in found.items() if wrong} == {}
