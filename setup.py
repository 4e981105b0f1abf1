"""What pyproject.toml cannot say: where the run cards go, and the README elsewhere.

An index of packages shows the README without the repository around it. With its
address,

    SAM_JAX_REPOSITORY=https://HOST/OWNER/sam_jax python -m build

links and pictures are absolute, without one they become plain text.
"""

import os
import pathlib
import re
import tomllib

import setuptools

ROOT = pathlib.Path(__file__).parent


def description(readme: str, files: str | None) -> str:
    """The README for readers without the repository.

    Args:
        readme: its text.
        files: address of the repository's files; None where it is not known.
    """

    def link(found: re.Match[str]) -> str:
        picture, text, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        if files is None:
            return "" if picture else text
        return f"{picture}[{text}]({files}/{target}{'?raw=true' if picture else ''})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^()\s]*)\)", link, readme)


def main() -> None:
    """Builds what is asked for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    repository = os.environ.get("SAM_JAX_REPOSITORY", "").rstrip("/") or None
    files = repository and f"{repository}/blob/v{project['version']}"
    pages = {"Documentation": "docs/methods.md", "Changelog": "CHANGELOG.md"}
    cards = {"sam_jax.configs": "configs", "sam_jax.configs.methods": "configs/methods"}
    setuptools.setup(
        packages=[*setuptools.find_packages(include=["sam_jax*"]), *cards],
        package_dir=cards,
        long_description=description((ROOT / "README.md").read_text("utf-8"), files),
        long_description_content_type="text/markdown",
        project_urls={"Source": repository}
        | {name: f"{files}/{page}" for name, page in pages.items()}
        if repository
        else {},
    )


if __name__ == "__main__":
    main()
