"""The reference: what each public module has, from its docstrings."""

from sam_jax import exports, methods

# Page -> its title, and what it shows.
PAGES = {
    "schedules": ("Schedules", ["sam_jax.schedules"]),
    "sharpness": ("Sharpness", ["sam_jax.sharpness"]),
    "testing": ("Testing a method", ["sam_jax.testing"]),
    "contrib": ("Contrib", ["sam_jax.contrib"]),
    "train": (
        "The trainer",
        [
            "sam_jax.train.loop.train_and_evaluate",
            "sam_jax.train.loaded",
            "sam_jax.train.settings",
        ],
    ),
    "data": ("Data", ["sam_jax.data"]),
    "models": ("Models", ["sam_jax.models"]),
    "theory": (
        "Theory",
        [
            "sam_jax.theory.problems",
            "sam_jax.theory.sampling",
            "sam_jax.theory.finite_sums",
            "sam_jax.theory.descent",
            "sam_jax.theory.step_sizes",
            "sam_jax.theory.conditions",
            "sam_jax.theory.families",
            "sam_jax.theory.orders",
        ],
    ),
}


def pages() -> dict[str, str]:
    """Place -> Markdown, for mkdocstrings to fill in."""
    own = sorted(exports.MODULES.keys() - set(methods.names()))
    library = [f"{exports.MODULES[name]}.{name}" for name in own]
    library = [name for name in library if name.count(".") > 1]
    shown = {"library": ("The library", library)} | PAGES
    return {f"reference/{place}.md": _page(*x) for place, x in shown.items()}


def _page(title: str, names: list[str]) -> str:
    return "\n\n".join([f"# {title}", *(f"::: {name}" for name in names)]) + "\n"
