"""The reference: what each public module has, from its docstrings."""

from sam_jax import exports, methods

MODULES = {
    "schedules": "Schedules of the papers",
    "testing": "The contract of methods",
}


def pages() -> dict[str, str]:
    """Place -> Markdown, for mkdocstrings to fill in."""
    return {"reference/library.md": library()}


def library() -> str:
    """What `sam_jax` exports besides methods."""
    lines = ["# The library", ""]
    for name in sorted(exports.MODULES.keys() - set(methods.names())):
        module = exports.MODULES[name]
        if module != "sam_jax":
            lines.append(f"::: {module}.{name}\n")
    return "\n".join(lines)
