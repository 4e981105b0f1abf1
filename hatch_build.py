"""What pyproject.toml cannot say: the README as an index of packages shows it.

An index shows the README without the repository around it. With its address,

    SAM_JAX_REPOSITORY=https://HOST/OWNER/sam_jax python -m build

links and pictures are absolute, and the project has addresses. Without it, links become
text and pictures are left out.
"""

import os
import pathlib
import re

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAGES = {"Documentation": "docs/index.md", "Changelog": "CHANGELOG.md"}


def description(readme: str, files: str | None) -> str:
    """The README for readers without the repository.

    Args:
        readme: its text.
        files: address of the repository's files; None if it is not known.
    """

    def link(found: re.Match[str]) -> str:
        picture, text, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        if files is None:
            return "" if picture else text
        return f"{picture}[{text}]({files}/{target}{'?raw=true' if picture else ''})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^()\s]*)\)", link, readme)


class Hook(MetadataHookInterface):
    """Writes the description and the addresses."""

    def update(self, metadata: dict) -> None:
        """Adds ``readme`` and ``urls``."""
        repository = os.environ.get("SAM_JAX_REPOSITORY", "").rstrip("/") or None
        files = repository and f"{repository}/blob/v{metadata['version']}"
        readme = (pathlib.Path(self.root) / "README.md").read_text("utf-8")
        text = description(readme, files)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = (
            {"Source": repository}
            | {name: f"{files}/{page}" for name, page in PAGES.items()}
            if repository
            else {}
        )
