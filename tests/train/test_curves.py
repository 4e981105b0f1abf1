"""Pictures are drawn from every kind of history, and whole or not at all."""

import math
import os

import pytest
from matplotlib import axes, figure
from PIL import Image

from sam_jax import errors
from sam_jax.train import curves


def row(epoch, split="train", **metrics):
    return {"step": int(100 * epoch), "split": split, "epoch": float(epoch), **metrics}


def sam(epoch, **other):
    measured = {
        "loss": 2 / epoch,
        "perturbed_loss": 3 / epoch,
        "accuracy": 1 - 0.5 / epoch,
        "grad_norm": 1.0,
        "perturbation_norm": 0.05,
        "gradient_cosine": 0.9,
    }
    return row(epoch, **{**measured, **other})


def scores(epoch, split="test"):
    return row(epoch, split, loss=2.0 / epoch, accuracy=0.5)


HISTORIES = {
    "sam": [r for e in range(1, 6) for r in (sam(e), scores(e))],
    "one evaluation": [sam(1), scores(1), scores(1, "validation")],
    "no diagnostics": [row(e, loss=1.0, accuracy=0.5) for e in (1, 2)],
    "only training, no accuracy": [row(1, loss=1.0)],
    "diverged": [sam(1), sam(2, loss=math.nan, grad_norm=math.inf), sam(3)],
    "never finite": [row(1, loss=math.nan, accuracy=math.nan)],
    "perfect": [row(e, loss=0.0, accuracy=1.0) for e in (1, 2)],
    "perfect at the end": [
        row(1, loss=2.0, accuracy=0.0),
        row(2, loss=0.01, accuracy=0.99),
        row(3, loss=0.0, accuracy=1.0),
    ],
    "very long": [sam(1 + e / 50) for e in range(5000)],
    "before training": [scores(1) | {"epoch": 0.0}],
    "nothing": [],
}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws a history and returns its axes, by the name on their y axis."""
    figures = []
    save = figure.Figure.savefig

    def spy(self, *args, **kwargs):
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(figure.Figure, "savefig", spy)

    def draw(history) -> dict[str, axes.Axes]:
        curves.draw_curves(history, tmp_path / "curves.png", "title")
        return {panel.get_ylabel(): panel for panel in figures[-1].axes}

    return draw


def lines(panel):
    return {line.get_label(): line for line in panel.get_lines()}


@pytest.mark.parametrize("name", HISTORIES)
def test_every_history_is_drawn_without_a_warning(name, tmp_path):
    path = tmp_path / "curves.png"
    curves.draw_curves(HISTORIES[name], path, "a title with $ and _")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        width, height = picture.size
    assert width > 2 * height > 1000
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_error_is_in_percent_of_every_split(drawn):
    history = [row(1, loss=1.0, accuracy=0.75, true_accuracy=0.9), scores(1)]
    panel = lines(drawn(history)["error (%)"])
    assert set(panel) == {"train", "train, true labels", "test (last 50)"}
    assert panel["train"].get_xydata().tolist() == [[1.0, 25.0]]
    assert panel["train, true labels"].get_ydata()[0] == pytest.approx(10)


def test_a_split_has_the_same_color_in_every_panel(drawn):
    history = [r for s in ("test", "validation") for r in (sam(1), scores(1, s))]
    panels = drawn(history)
    loss, error = lines(panels["loss"]), lines(panels["error (%)"])
    for a, b in (
        ("train", "train"),
        ("test (last 2)", "test (last 50)"),
        ("validation (last 2)", "validation (last 50)"),
    ):
        assert loss[a].get_color() == error[b].get_color()
    colors = [line.get_color() for line in loss.values()]
    assert len(set(colors)) == len(colors) == 4


def test_diagnostics_of_the_method(drawn):
    panels = drawn(HISTORIES["sam"])
    assert set(lines(panels["norm"])) == {"gradient norm", "perturbation norm"}
    assert set(lines(panels["cosine of the two gradients"])) == {"cosine (right)"}
    legend = panels["norm"].get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == 3


def test_the_learning_rate_where_nothing_was_measured(drawn):
    panels = drawn([row(1, loss=1.0, learning_rate=0.1)])
    assert "norm" not in panels
    assert lines(panels["learning rate"])["learning rate"].get_ydata() == [0.1]


@pytest.mark.parametrize(("last", "scale"), [(0.5, "linear"), (0.05, "log")])
def test_an_axis_is_logarithmic_if_it_spans_a_factor_of_ten(drawn, last, scale):
    panels = drawn([row(1, loss=1.0), row(2, loss=last)])
    assert panels["loss"].get_yscale() == scale


def test_what_is_not_finite_is_marked_and_left_out(drawn):
    panel = lines(drawn(HISTORIES["diverged"])["loss"])
    assert panel["train"].get_xdata().tolist() == [1, 3]
    assert list(panel["not finite"].get_xdata()) == [2, 2]


def test_a_very_long_run_is_drawn_as_few_points_with_their_range(drawn):
    history = [sam(1 + e / 50, loss=float(e % 2)) for e in range(5000)]
    panel = drawn(history)["loss"]
    line = lines(panel)["train"]
    assert len(line.get_ydata()) < 1000
    assert line.get_ydata().mean() == pytest.approx(0.5, abs=0.02)
    assert panel.collections[0].get_datalim(panel.transData).height == 1


def test_an_older_picture_stays_if_drawing_fails(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")

    def full(number):
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.WriteError, match=r"cannot write .*png \(no space left"):
        curves.draw_curves(HISTORIES["sam"], path, "title")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
