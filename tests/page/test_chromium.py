"""Pages in a browser: nothing sticks out, nothing overlaps, nothing complains."""

import html
import json
import re
import shutil
import subprocess

import pytest

from sam_jax import page
from sam_jax.train import comparison
from tests.page import made
from tests.page.test_page import EVIL, several

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (400, 1400)
LOOK = """
const found = {};
for (const frame of document.querySelectorAll('iframe')) {
  const page = frame.contentDocument, root = page.documentElement, wrong = [];
  if (root.scrollWidth > root.clientWidth) wrong.push('wider than the page');
  for (const svg of page.querySelectorAll('svg[role=img]')) {
    const name = svg.getAttribute('aria-label'), edge = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll('text:not(.up)')].map(
      text => [text.textContent, text.getBoundingClientRect()]);
    for (const [text, box] of boxes) {
      if (box.left < edge.left - 1 || box.right > edge.right + 1 ||
          box.top < edge.top - 1 || box.bottom > edge.bottom + 1)
        wrong.push(`${name}: '${text}' is cut off`);
      for (const [other, b] of boxes)
        if (other !== text && box.left + 1 < b.right && b.left + 1 < box.right &&
            box.top + 2 < b.bottom && b.top + 2 < box.bottom)
          wrong.push(`${name}: '${text}' lies over '${other}'`);
    }
  }
  for (const image of page.images)
    if (!image.naturalWidth) wrong.push('an image that does not show');
  if (page.querySelectorAll('section').length < 3) wrong.push('few sections');
  found[frame.name] = wrong;
}
document.title = JSON.stringify(found);
"""


def pages(root):
    """Name -> page."""
    names = tuple(f"a class of some length {number}" for number in range(100))
    rates = [made.run(root / f"r{r}", learning_rate=r, remat=True) for r in (0.1, 0.3)]
    whole = several(root / "several", ("none", "sam", "gsam"), 3, sharp=True)
    text = {"names": ("bad", "good"), "shape": (20,), "dtype": "int32"}
    runs = {
        "several": whole,
        "one": whole[3:4],
        "going": [made.run(root / "going", done=2)],
        "hundred": [made.run(root / "hundred", names=names, shape=(32, 32, 3))],
        "evil": [made.run(root / "evil", names=EVIL)],
        "text": [made.run(root / "text", **text)],
        "long labels": [*rates, made.run(root / "v", "vasso", clip_norm=1.0)],
        "twenty": [
            made.run(
                root / "twenty", names=("自転車と自動車と飛行機", "W" * 20, *names[:18])
            )
        ],
    }
    return {
        name: page.text(comparison.of_paths(folders, unfinished=True), name, "command")
        for name, folders in runs.items()
    }


@pytest.mark.slow("a browser")
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")
def test_pages_in_a_browser(tmp_path):
    frames = "".join(
        f'<iframe name="{name} at {width}" style="width: {width}px; height: 900px" '
        f'srcdoc="{html.escape(text)}"></iframe>'
        for name, text in pages(tmp_path / "runs").items()
        for width in WIDTHS
    )
    script = f"<script>addEventListener('load', () => {{{LOOK}}})</script>"
    (tmp_path / "all.html").write_text(f"<title></title>{frames}{script}")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, f"file://{tmp_path / 'all.html'}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    (title,) = re.findall("<title>({.*?})</title>", done.stdout)
    found = json.loads(html.unescape(title))
    assert len(found) == 8 * len(WIDTHS)
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
