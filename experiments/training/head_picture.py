"""The picture at the head of the README: the loss around two minima, on equal axes.

python -m sam_jax sweep --config=digits_noisy_sam --set=method.name=sgd,sam \
        --seeds=1 --out=runs/quick_start
python -m experiments.training.head_picture runs/quick_start
"""

import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from sam_jax.train import comparison, figures, sharpness_files

PICTURE = pathlib.Path(__file__).parents[2] / "docs" / "images" / "landscape.png"


def draw(folders: Sequence[str], path: pathlib.Path) -> None:
    """Draws the planes of runs that were measured as the quick start does.

    Args:
        folders: of the runs, or of their sweep.
        path: of the PNG file.
    """
    runs = [run for g in comparison.of_paths(folders) for run in g.runs if run.folder]
    planes = {}
    for run in runs:
        assert run.folder
        found = sharpness_files.read(run.folder)
        error = 100 - 100 * (run.last or {})["test"]["accuracy"]
        title = f"{run.settings['method.name']}".upper().replace("NONE", "SGD")
        planes[f"{title}: test error {error:.0f} %"] = (found or {})["pictures"][
            "plane"
        ]
    every = np.concatenate([np.ravel(plane["losses"]) for plane in planes.values()])
    levels = np.geomspace(max(every.min(), 1e-2), np.quantile(every, 0.9), 13)
    figure = figures.empty((8.0, 3.7), "Training loss around the minimum", fontsize=11)
    panels = figure.subplots(1, len(planes), sharex=True, sharey=True)
    drawn = None
    for axes, (title, plane) in zip(panels, planes.items(), strict=True):
        x, y = np.meshgrid(*plane["coordinates"], indexing="ij")
        z = np.clip(plane["losses"], levels[0], None)
        drawn = axes.contourf(x, y, z, levels, cmap="cividis", extend="max")
        axes.contour(x, y, z, levels, colors="white", linewidths=0.4)
        axes.plot(0, 0, "P", color="white", markeredgecolor="black", markersize=9)
        axes.set(title=title, aspect="equal", xlabel="first random direction")
    panels[0].set_ylabel("second random direction")
    assert drawn
    bar = figure.colorbar(drawn, ax=list(panels), label="loss")
    bar.set_ticks(levels[::3], labels=[f"{level:.2g}" for level in levels[::3]])
    path.parent.mkdir(parents=True, exist_ok=True)
    figures.save(figure, path)
    Image.open(path).quantize(48).save(path, optimize=True)


if __name__ == "__main__":
    draw(sys.argv[1:], PICTURE)
