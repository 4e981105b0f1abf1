"""The report: one HTML page of a run, or of several side by side.

It needs no network, runs no program (it forbids its own, too), and draws with `charts`.
Nothing here imports JAX or runs code that a run folder names.
"""

import contextlib
import dataclasses
import pathlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import sam_jax
from sam_jax import errors, storage
from sam_jax.page import sections
from sam_jax.page.markup import Html, escaped
from sam_jax.page.seen import Seen
from sam_jax.page.style import STYLE
from sam_jax.train import comparison, examined, files, scores
from sam_jax.train.results import REPORT_FILE

if TYPE_CHECKING:
    from sam_jax import data

_FIRST = "<!doctype html><!-- a report of sam_jax -->"
_LAST = "</html>\n"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def text(
    groups: Sequence[comparison.Group],
    title: str,
    command: str,
    *,
    images: bool = True,
) -> str:
    """The page.

    Args:
        groups: of `comparison.grouped`.
        title: above it.
        command: that makes it again.
        images: show wrong predictions as images, which may not be everybody's to see.
    """
    seen = Seen.of(groups, images=images)
    shown = [
        (name, found)
        for name, section in sections.SECTIONS.items()
        if (found := section(seen))
    ]
    links = "".join(f'<a href="#{_anchor(name)}">{name}</a> ' for name, _ in shown)
    body = "".join(
        f'<section id="{_anchor(name)}"><h2>{name}</h2>{found}</section>'
        for name, found in shown
    )
    end = escaped(f"sam_jax {sam_jax.__version__}. Made by: {command}")
    return (
        f'{_FIRST}<html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(title)}</title><style>{STYLE}</style><main>"
        f"<h1>{escaped(title)}</h1>{sections.head(seen)}<nav>{links}</nav>{body}"
        f'<p class="soft"><small>{end}</small></p></main>{_LAST}'
    )


def _anchor(name: str) -> Html:
    return Html(name.lower().replace(" ", "-"))


def is_ours(path: pathlib.Path) -> bool:
    """Whether a file is a whole report."""
    content = files.read(path) if path.is_file() else b""
    return content.startswith(_FIRST.encode()) and content.endswith(_LAST.encode())


def write(
    path: pathlib.Path,
    groups: Sequence[comparison.Group],
    title: str,
    command: str,
    *,
    images: bool = True,
) -> None:
    """Writes the page to a file; see `text`."""
    found = text(groups, title, command, images=images)
    files.replace(path, found.encode(errors="replace"))  # a path need not be text


def place(runs: Sequence[str], out: str | None = None) -> pathlib.Path:
    """Where a report goes: the file that is given, in a single folder, or here."""
    only = storage.path(runs[0])
    inside = len(runs) == 1 and only.is_dir()
    path = storage.path(out or (only / REPORT_FILE if inside else REPORT_FILE))
    if path.is_dir() or (path.exists() and not is_ours(path)):
        raise errors.UserError(f"{path} exists and is not a report: give another --out")
    return path


class AtTheEnd(contextlib.AbstractContextManager["AtTheEnd"]):
    """Writes the report of a run that leaves its ``with`` by an error, or a signal.

    Of one that ends well, `write` does, once the results are there. No run fails for
    its report, and no error is hidden by it: what cannot be written is said.
    """

    def __init__(
        self, folder: pathlib.Path, how: str, warn: Callable[[str], None]
    ) -> None:
        self._folder, self._how, self._warn = folder, how, warn

    def examine(
        self,
        step: int,
        seen: scores.OfEach,
        means: Mapping[str, float],
        dataset: "data.Dataset",
    ) -> None:
        """Keeps the predictions of the last evaluation."""
        if self._how == "off":
            return
        with self._saying(examined.FILE):
            names = tuple(map(str, dataset.class_names))
            others = {k: v for k, v in means.items() if k not in ("loss", "accuracy")}
            found = dataclasses.replace(
                scores.of_predictions(seen, names), loss=means["loss"], metrics=others
            )
            images = examined.images(dataset) if self._how == "full" else None
            examined.write(self._folder, found, step, images)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self.write()

    def write(self, *, missing_only: bool = False) -> None:
        """Writes ``report.html`` of a run that was evaluated."""
        path = self._folder / REPORT_FILE
        if self._how == "off" or (missing_only and is_ours(path)):
            return
        with self._saying(REPORT_FILE), contextlib.suppress(comparison.NotEvaluated):
            groups = comparison.of_paths([self._folder], unfinished=True)
            command = shlex.join(["sam-jax", "report", str(self._folder)])
            write(path, groups, self._folder.resolve().name, command)

    @contextlib.contextmanager
    def _saying(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            said = errors.one_line(error) or type(error).__name__
            self._warn(f"{self._folder / name} could not be written: {said}")
