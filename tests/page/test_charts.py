"""The pictures of a report: where numbers are drawn, and what cannot be drawn."""

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sam_jax.page import charts

NUMBERS = st.floats(-1e12, 1e12) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0])


def numbers(svg):
    return [float(x) for x in re.findall(r"-?\d+\.?\d*", " ".join(svg))]


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=400), st.booleans())
@example([0.0, 5e-324], False)
@example([7.8e-134, 5e-324], False)
def test_any_numbers_are_drawn_inside_or_left_out(values, band):
    y = np.array(values)
    edges = (y - 1, y + 1) if band else (None, None)
    line = charts.Line("<a>", 3, np.arange(len(y), dtype=float), y, *edges)
    svg = charts.line_chart([line], "epoch", "about")
    assert bool(svg) == bool(np.isfinite(y).any())
    places = numbers(re.findall(r'points="([^"]*)"', svg))
    assert all(0 <= x <= charts._WIDTH for x in places[::2])
    assert all(0 <= x <= charts._HEIGHT for x in places[1::2])
    assert "<a>" not in svg and "nan" not in svg


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1, 1e6))
def test_ticks_are_round_and_inside(low, width):
    high = low + width
    found = charts._ticks(low, high)
    assert 1 <= len(found) <= 7
    assert low - 1e-6 * width <= found[0] and found[-1] <= high + 1e-6 * width


def test_a_line_is_where_its_numbers_are():
    line = charts.Line("a", 0, np.array([0.0, 5.0, 10.0]), np.array([0.0, 0.5, 1.0]))
    svg = charts.line_chart([line], "x", "about", bounds=(0, 1), log=False)
    (points,) = re.findall(r'class="line" points="([^"]*)"', svg)
    assert points == "52,226 235,118 418,10"
    log = charts.Line("a", 0, np.arange(3.0), np.array([1.0, 10.0, 100.0]))
    (points,) = re.findall(
        r'class="line" points="([^"]*)"', charts.line_chart([log], "", "")
    )
    assert [point.split(",")[1] for point in points.split()] == ["226", "118", "10"]


def test_a_constant_has_different_ticks():
    """Rounding of a constant perturbation norm is no variation to show."""
    y = 0.5 + 1e-7 * np.arange(5.0)
    svg = charts.line_chart([charts.Line("a", 0, np.arange(5.0), y)], "epoch", "")
    ticks = re.findall(r'class="tick left"[^>]*>([^<]*)<', svg)
    assert len(ticks) > 2 and len(set(ticks)) == len(ticks)


def test_many_points_are_their_means_and_their_range():
    x = np.arange(1600.0)
    svg = charts.line_chart([charts.Line("a", 0, x, np.tile([0.0, 1.0], 800))], "x", "")
    (points,) = re.findall(r'class="line" points="([^"]*)"', svg)
    assert {point.split(",")[1] for point in points.split()} == {"118"}
    assert len(points.split()) == 160 and svg.count("<polygon") == 1


@pytest.mark.parametrize("classes", [2, 20, 100])
def test_a_matrix_has_a_cell_for_every_count(classes):
    counts = np.diag(np.arange(classes) + 1)
    counts[0, 1] = 7
    svg = charts.matrix(counts, [str(i) for i in range(classes)], "about")
    cells = {
        kind: "".join(re.findall(rf'<path class="{kind} .*?d="(.*?)"', svg))
        for kind in ("right", "wrong")
    }
    assert cells["right"].count("M") == classes and cells["wrong"].count("M") == 1
    assert svg.count('class="cell') == (classes + 1 if classes <= 20 else 0)


def test_a_map_of_nothing_is_no_picture():
    places = [0.0, 1.0]
    assert charts.heat_map(np.full((2, 2), np.nan), places, places, "") == ""
    svg = charts.heat_map([[0, 1], [np.inf, 1]], places, places, "", [(0, 0), (1, 1)])
    assert svg.count('class="heat') == 2 and svg.count("<polyline") == 2
