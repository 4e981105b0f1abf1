"""What claims of the laboratory share: comparisons, pictures, runs."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.theory import claims, pictures, runs
from sam_jax.theory import finite_sums

# ── Comparisons ──────────────────────────────────────────────────────────────────────


def test_close():
    assert claims.close("x", 1.0099, 1.0, rtol=0.01).passed
    assert not claims.close("x", 1.0101, 1.0, rtol=0.01).passed
    assert claims.close("x", -1e-9, 0.0, atol=1e-8).passed
    assert not claims.close("x", float("nan"), 0.0, atol=1.0).passed
    assert not claims.close("x", [1.0, np.inf], [1.0, np.inf], rtol=1.0).passed
    check = claims.close("x", [1.0, 2.0, 3.0], [1.0, 2.5, 3.0], rtol=0.1)
    assert check == ("x (worst of 3)", "2.5 ± 10 %", "2", False)


@pytest.mark.parametrize(
    ("compare", "good", "bad"), [(claims.at_most, 1, 3), (claims.at_least, 3, 1)]
)
def test_one_sided(compare, good, bad):
    assert compare("x", good, 2).passed and compare("x", 2, 2).passed
    assert not compare("x", bad, 2).passed
    check = compare("x", [good, bad, good], [2, 2, 2])
    assert not check.passed and check.measured == str(bad)
    broken = compare("x", [good, float("nan")], 2)
    assert not broken.passed and broken.measured == "diverged"
    with pytest.raises(ValueError, match="nothing to compare"):
        compare("x", [], 2)


def test_divergence_above_a_bound_is_reported():
    check = claims.at_most("gap", float("inf"), 1.0)
    assert check == ("gap", "<= 1", "diverged", False)
    assert claims.says("verdict", "covered", "not covered") == (
        "verdict",
        "not covered",
        "covered",
        False,
    )


# ── What claims share ────────────────────────────────────────────────────────────────


def test_a_picture_shows_the_data_by_their_names():
    curves = np.arange(1.0, 91.0).reshape(3, 30)
    data = {"step": np.arange(30), "lam": (0.0, 0.5, 1.0), "gap": curves}
    data |= {"its_bound": 2 * curves, "floor": {"one": 3.0}, "last": curves[:, -1]}
    picture = pictures.draw(
        data,
        pictures.Panel("step", "gap", ("its_bound", "floor"), "title", "lam"),
        pictures.Panel("lam", "last", log="y", ylim=(1.0, 99.0), label="mean"),
        pictures.Panel("step", "gap", "last", of=(1,), log=""),
    )
    left, middle, right = picture.axes
    solid, dashed = left.lines[:3], left.lines[3:6]
    for line, bound, row in zip(solid, dashed, curves, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), row)
        np.testing.assert_array_equal(bound.get_ydata(), 2 * row)
        assert line.get_color() == bound.get_color() and bound.get_linestyle() == ":"
    labels = left.get_legend_handles_labels()[1]
    assert labels == ["lam = 0", "lam = 0.5", "lam = 1", "dotted: its bound", "one"]
    assert (left.get_xscale(), left.get_yscale()) == ("log", "log")
    assert (left.get_title(), left.get_ylabel()) == ("title", "f(x) - f*")
    assert (middle.get_xscale(), middle.get_ylabel()) == ("linear", "mean")
    assert middle.get_ylim() == (1.0, 99.0)
    np.testing.assert_array_equal(right.lines[0].get_ydata(), curves[1])
    assert list(right.lines[1].get_ydata()) == [60.0, 60.0], "a number is horizontal"


def test_words_of_a_picture_do_not_meet():
    """Long numbers leave room for each other, as long labels do in legends."""
    picture, (left, right) = pictures.panels(2, width=3.4)
    for name in "ab":
        left.plot([0, 1_000_000], [0, 1], label=name)
        right.plot([0, 1], [0, 1], label=f"{name}: importance sampling, as released")
    left.text(0.5, 0.5, "words")
    pictures.legends([left, right])
    pictures.finish(picture)
    assert len(left.get_xticks()) <= 5
    assert left.xaxis.get_major_formatter()(1e6) == "1,000,000"
    columns = [x.get_legend()._ncols for x in (left, right)]
    assert columns == [2, 1]
    pictures.thumbnail(picture)
    assert not left.texts and left.get_legend() is None and picture.axes == [left]


def test_the_member_of_a_traced_index():
    members = [finite_sums.parabolas([-1.0, c], start=c) for c in (2.0, 5.0)]

    def facts(i):
        member = runs.one_of(members, i)
        x, rows = jnp.array([3.0]), np.array([1])
        parts = member.component_values(x, rows)[0], member.gradient(x)[0]
        return *parts, member.gap(x), member.start[0], member.smoothness

    found = runs.each(facts, np.arange(2))
    expected = [(0.5, 2.5, 3.125, 2.0, 1.0), (2.0, 1.0, 0.5, 5.0, 1.0)]
    np.testing.assert_allclose(np.transpose(found), expected, rtol=1e-6)


def test_horizons_end_at_checkpoints():
    horizons = runs.horizons(10, 1000, 3, 4)
    assert list(horizons.ends) == [10, 100, 1000]
    assert list(horizons.checkpoints) == [1, 10, 100, 1000]
    values = np.arange(24).reshape(2, 3, 4)  # [.., run, checkpoint]
    np.testing.assert_array_equal(horizons.last(values), [[1, 6, 11], [13, 18, 23]])
    np.testing.assert_array_equal(runs.second_half(np.array([1.0, 3.0])), 5.0)
