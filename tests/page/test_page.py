"""The report: its numbers, what it says of what is missing, and that it is HTML."""

import html.parser
import json
import re

import numpy as np
import pytest
from scipy import stats

from sam_jax import errors, page
from sam_jax.page import charts, seen, style
from sam_jax.train import comparison, examined, files
from tests.page import made
from tests.train import runs
from tests.train.test_commands import one_line, said

VOID = {"meta", "img", "br", "!doctype"}
EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "cat & dog")


class Parsed(html.parser.HTMLParser):
    """Tags, their attributes, and texts; fails where tags do not close."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)

    @property
    def sections(self):
        return [a["id"] for tag, a in self.tags if tag == "section"]


def shown(*folders, **choice):
    groups = comparison.of_paths(folders, unfinished=True)
    return Parsed(page.text(groups, "title", "sam-jax report", **choice))


def several(root, methods=("none", "sam"), seeds=5, **changes):
    return [
        made.run(root / f"{method}{seed}", method, seed, **changes)
        for method in methods
        for seed in range(seeds)
    ]


def test_several_settings_over_seeds(tmp_path):
    folders = several(tmp_path, sharp=True)
    found = shown(*folders)
    assert found.sections == [
        *("results", "curves", "calibration", "confusion"),
        *("mistakes", "sharpness", "time", "settings"),
    ]
    errors = np.array(
        [100 * (1 - comparison.read_run(f).last["test"]["accuracy"]) for f in folders]
    ).reshape(2, 5)
    half = stats.t.ppf(0.975, 4) * stats.sem(errors[1])
    assert f"{errors[1].mean():.2f} ± {half:.2f}" in found.text
    assert "p < 0.001, n = 5" in found.text and "significant" in found.text
    assert stats.ttest_rel(*errors).pvalue < 0.001
    ece = [examined.read(folder)["ece"] for folder in folders[5:]]
    assert f"{np.mean(ece):.4f} ± " in found.text
    assert "largest eigenvalue of the Hessian" in found.text
    # Groups have one style in every picture, and bands where there are seeds.
    used = {
        a["class"] for _, a in found.tags if re.fullmatch(r"s\d", a.get("class", ""))
    }
    assert used == {"s0", "s1"}
    assert sum(tag == "polygon" for tag, _ in found.tags) >= 6


def test_the_head_has_what_all_runs_have(tmp_path):
    short, long = (made.run(tmp_path / str(n), epochs=n) for n in (3, 6))
    assert "digits, resnet18; 2 settings, 2 runs" in shown(short, long).text
    assert "6 epochs" in shown(long).text


def test_pictures_are_of_the_first_seed_that_has_some(tmp_path):
    first, second = several(tmp_path, methods=("sam",), seeds=2, sharp=True)
    path = first / "sharpness.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"pictures": {}}))
    found = shown(first, second)
    assert "loss along a direction" in found.text


def test_a_data_set_is_the_pages_also_of_runs_without_a_folder(tmp_path):
    (digits,) = comparison.read(made.run(tmp_path / "a"))
    recorded = comparison.Run("b", {"data.name": "cifar10", "seed": 0})
    with pytest.raises(errors.UserError, match="different data sets"):
        seen.check_data([digits, recorded])
    seen.check_data([digits, digits])


def test_few_seeds_are_not_called_significant(tmp_path):
    text = shown(*several(tmp_path, seeds=4)).text
    assert "n = 4" in text and "significant" not in text and "*" not in text


def test_a_page_needs_nothing_and_runs_nothing(tmp_path):
    folders = several(tmp_path, seeds=1, names=EVIL, shape=(32, 32, 3), data="<b>\"'&")
    found = shown(*folders)
    assert all(name in found.text for name in ("<b>\"'&", *EVIL))
    assert not {"script", "link", "iframe", "object", "b"} & {t for t, _ in found.tags}
    for tag, attributes in found.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for key in ("src", "href"):
            assert attributes.get(key, "#").startswith(("#", "data:image/png;base64,"))
    (policy,) = [
        a["content"] for t, a in found.tags if t == "meta" and "http-equiv" in a
    ]
    assert policy.startswith("default-src 'none'")
    assert "url(" not in style.STYLE and "@import" not in style.STYLE


def test_examples_are_left_out_where_they_are_not_to_be_seen(tmp_path):
    folder = made.run(tmp_path / "a")
    assert any(tag == "img" for tag, _ in shown(folder).tags)
    found = shown(folder, images=False)
    assert not any(tag == "img" for tag, _ in found.tags)
    assert "mistakes" in found.sections


@pytest.mark.parametrize("classes", [2, 20, 21, 100, 600])
def test_any_number_of_classes(tmp_path, classes):
    names = tuple(f"class {number}" for number in range(classes))
    found = shown(made.run(tmp_path / "a", names=names))
    assert "confusion" in found.sections and " → class " in found.text
    assert (sum(a.get("class") == "paper" for _, a in found.tags)) == (classes <= 500)
    assert ("more than 500 classes are left out" in found.text) == (classes > 500)


def test_what_is_no_image_is_a_table(tmp_path):
    text = ("bad", "good")
    changes = {"names": text, "shape": (20,), "dtype": "int32", "loss": "my_loss.py:fn"}
    found = shown(made.run(tmp_path / "a", **changes))
    assert not any(tag == "img" for tag, _ in found.tags)
    assert {"mistakes", "calibration"} <= set(found.sections)
    assert "The runs minimize my_loss.py:fn" in found.text


def test_runs_that_are_not_finished(tmp_path, capsys):
    going = made.run(tmp_path / "a", seed=1, done=2)
    found = shown(going)
    assert "a: not finished: 2 of 6 epochs" in found.text
    assert found.sections == ["curves", "time", "settings"]
    assert "1 of 2" in shown(going, made.run(tmp_path / "b")).text
    path = going / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(True)[:2]) + '{"step": 3')
    assert "no finished evaluation" in one_line(capsys, "report", going)
    assert not (going / "report.html").exists()


def test_differing_settings_stand_out(tmp_path):
    folders = [made.run(tmp_path / str(r), learning_rate=r) for r in (0.1, 0.3)]
    found = shown(*folders)
    marked = [
        attributes
        for _, attributes in found.tags
        if attributes.get("class") == "differs"
    ]
    assert marked and "sam(rho=0.1), learning_rate=0.3" in found.text


def test_what_is_missing_or_damaged_is_said(tmp_path, capsys):
    folder = made.run(tmp_path / "a", examined_too=False)
    assert "sam-jax report with --evaluate" in shown(folder).text
    code, _, err = said(capsys, "report", folder, "--evaluate")
    assert code == 0 and err.startswith(f"warning: {folder} is not evaluated: ")
    other = made.run(tmp_path / "b", seed=1)
    record = json.loads((other / examined.FILE).read_text())
    for content, words in (
        ("{", "is damaged"),
        (json.dumps(record | {"confusion": [[99, 0, 1]]}), "is damaged"),
        (json.dumps(record).replace('"confusion": [[', '"confusion": [[1e400, '), "is"),
        (json.dumps(record | {"format": 9}), "of a later version"),
        (json.dumps(record | {"step": 8}), "no predictions of the test set"),
    ):
        (other / examined.FILE).write_text(content)
        assert words in shown(other).text
    (other / examined.FILE).write_text(json.dumps(record))
    for content, words in (
        ("{", "is damaged"),
        ('{"measures": {}, "pictures": {}}', "is damaged"),
        ('{"format": 1, "measures": {"a": 3}, "pictures": {}}', "cannot be shown"),
    ):
        (other / "sharpness.json").write_text(content)
        found = shown(other)
        assert f"sharpness.json {words}" in found.text
        assert "calibration" in found.sections, "what is not damaged is shown"
    (other / "data.json").write_text("{")
    assert "data.json is damaged" in one_line(capsys, "report", other)


def test_losses_that_overflow_are_gaps_in_lines_and_planes(tmp_path):
    folder = made.run(tmp_path / "a", sharp=True)
    path = folder / "sharpness.json"
    whole = json.loads(path.read_text())
    del whole["pictures"]["trajectory"]  # its plane has every step as well
    path.write_text(files.to_json(whole))
    found = shown(folder)
    steps = {a["class"] for _, a in found.tags if "heat" in a.get("class", "")}
    assert len(steps) == 9 and "at step 60" in found.text
    for name in ("line", "plane"):
        losses = np.array(whole["pictures"][name]["losses"])
        losses[-1] = np.inf
        losses[0] = np.nan
        whole["pictures"][name]["losses"] = losses.tolist()
    whole["pictures"]["line"]["losses"][3] = -2.5  # of a loss of the user's
    path.write_text(files.to_json(whole))
    holed = shown(folder)
    assert {a["class"] for _, a in holed.tags if "heat" in a.get("class", "")} == steps
    assert "to inf" not in holed.text
    points = [
        sum(a["points"].count(",") for tag, a in x.tags if tag == "polyline")
        for x in (found, holed)
    ]
    assert points[1] == points[0] - 2


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = several(tmp_path, seeds=1)
    assert said(capsys, "report", one) == (0, f"{one / 'report.html'}\n", "")
    assert said(capsys, "report", one, two)[1] == "report.html\n"
    assert said(capsys, "report", one, two)[0] == 0, "one's own page is replaced"
    assert said(capsys, "report", one, "--out=other.html")[1] == "other.html\n"
    assert f"<h1>{one.name}</h1>" in (tmp_path / "other.html").read_text()
    (tmp_path / "mine.html").write_text("mine")
    assert "give another --out" in one_line(capsys, "report", one, "--out=mine.html")
    assert "not the folder of a run" in one_line(capsys, "report", tmp_path)
    (tmp_path / "c").mkdir()
    assert "not the folder of a run" in one_line(capsys, "report", tmp_path / "c")
    other = made.run(tmp_path / "d", seed=7, data="cifar10", shape=(32, 32, 3))
    line = one_line(capsys, "report", one, other)
    assert "different data sets" in line and "cifar10" in line
    renamed = made.run(tmp_path / "e", seed=8, names=tuple("abcdefghij"))
    assert "different data sets" in one_line(capsys, "report", one, renamed)
    no_place = tmp_path / "no" / "page.html"
    assert "cannot write" in one_line(
        capsys, "report", one, f"--out={no_place}", code=1
    )


def test_a_report_imports_no_jax(tmp_path):
    folder = made.run(tmp_path / "a")
    program = (
        "import sys; from sam_jax import commands\n"
        f"assert commands.main(['report', {str(folder)!r}]) == 0\n"
        "print({'jax', 'matplotlib'} & set(sys.modules))"
    )
    done = runs.python(program)
    assert done.stdout.endswith("set()\n"), done.stderr


def test_every_colour_is_seen_on_its_paper():
    """At least 3 to 1, as for graphics in WCAG 2.2; texts 4.5 to 1."""

    def luminance(color):
        digits = color * 2 if len(color) == 3 else color
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [
            v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts
        ]
        return np.dot(linear, (0.2126, 0.7152, 0.0722))

    for block in re.findall(r":root \{(.*?)\}", style.STYLE, re.DOTALL):
        colors = {k: luminance(v) for k, v in re.findall(r"--(\w+): #(\w+)", block)}
        for name, value in colors.items():
            low, high = sorted([value, colors["paper"]])
            contrast = (high + 0.05) / (low + 0.05)
            if name in ("ink", "soft"):
                assert contrast > 4.5, name
            elif name[0] == "c" or name in ("right", "wrong"):
                assert contrast > 2.6, (name, contrast)


def test_lines_differ_without_colour():
    forms = {
        re.sub(r"s\d", "", charts.swatch(number)) for number in range(charts.STYLES)
    }
    assert len(forms) == charts.STYLES
    one = comparison.Run("a", {"method.name": "sam", "seed": 0})
    groups = [comparison.Group(str(i), {}, [one]) for i in range(charts.STYLES)]
    assert sorted(seen.styles(groups)) == list(range(charts.STYLES))


def test_of_many_settings_the_first_and_the_best_have_curves(tmp_path):
    rates = [round(0.1 + i / 100, 2) for i in range(9)]
    folders = [made.run(tmp_path / str(r), "vasso", learning_rate=r) for r in rates]
    best = [made.run(tmp_path / m, m) for m in ("none", "sam")]
    groups = comparison.of_paths([*folders, *best])
    found = seen.styles(groups)
    assert found[0] is not None and found[-1] == 1, "SAM is the best"
    assert sum(style is None for style in found) == len(groups) - charts.STYLES
    assert len(set(found)) == charts.STYLES + 1
    assert "more rows have no curves" in shown(*folders, *best).text
