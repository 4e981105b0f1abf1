"""The pages of training experiments: tables and pictures as they were written."""

import pathlib

RESULTS = pathlib.Path(__file__).parents[1] / "experiments" / "training" / "results"
# Of tables whose file has none.
TITLES = {
    "digits_noisy": "SGD and SAM on digits, 40 % wrong labels",
    "fashion_mnist": "SGD and SAM on Fashion-MNIST",
    "sharpness_cifar10_small": "Sharpness on 2,000 images of CIFAR-10",
    "sharpness_digits_noisy": "Sharpness on digits, 40 % wrong labels",
    "survey_digits_noisy": "All methods on digits, 40 % wrong labels",
    "survey_fashion_mnist": "All methods on Fashion-MNIST",
    "widths": "The best radius over the width",
}


def pages() -> dict[str, str | pathlib.Path]:
    """Place -> Markdown, or the picture itself."""
    found: dict[str, str | pathlib.Path] = {}
    for table in sorted(RESULTS.glob("*/table.md")):
        name, text = table.parent.name, table.read_text()
        text = text if text.startswith("# ") else f"# {TITLES[name]}\n\n{text}"
        pictures = sorted(table.parent.glob("*.png"))
        shown = "".join(f"\n\n![{x.stem} of {name}]({name}/{x.name})" for x in pictures)
        if (more := table.with_name("sharpness.md")).is_file():
            shown += "\n\n#" + more.read_text()
        found[f"experiments/{name}.md"] = text + shown
        found |= {f"experiments/{name}/{x.name}": x for x in pictures}
    return found
