"""Finished runs beside each other: what is read, grouped, averaged and written."""

import csv
import json
import re

import numpy as np
import pytest
from scipy import stats

from sam_jax.train import comparison, comparison_files, settings
from tests.train import runs
from tests.train.test_commands import one_line, said


@pytest.fixture
def ended(tmp_path):
    """``ended("a", seed=1, accuracy=0.9, rho=0.1)``: writes the folder of a run."""

    def make(name, seed=0, accuracy=0.9, rho=0.1, validation=None, **changes):
        method = {"name": "sam", "rho": rho} if rho is not None else {"name": "none"}
        tree = {"method": method, "seed": seed, "epochs": 2} | changes
        folder = tmp_path / name
        folder.mkdir()
        config = settings.to_json(settings.read(tree))
        (folder / "config.json").write_text(config)
        last = {"test": {"accuracy": accuracy, "loss": 1.0}}
        if validation is not None:
            last["validation"] = {"accuracy": validation, "loss": 1.0}
        results = {"last": last, "best": None, "seconds": 3.0, "skipped": 0}
        (folder / "results.json").write_text(json.dumps(results))
        rows = [
            {"step": epoch, "split": split, "epoch": epoch - 0.5, "accuracy": value}
            for epoch in (1, 2)
            for split, value in (("train", 0.5 * epoch), ("test", accuracy))
        ]
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / "metrics.jsonl").write_text(lines)
        return folder

    return make


def groups_of(*folders, **choice):
    every = (run for path in folders for run in comparison.read(path))
    return comparison.grouped(every, **choice)


def test_runs_of_one_setting_are_a_row_with_the_interval_of_their_mean(ended):
    accuracies = [0.9, 0.93, 0.95]
    folders = [ended(f"a{i}", i, accuracies[i]) for i in range(3)]
    folders += [ended("b", rho=0.2), ended("c", rho=None, mesh={"data": 2})]
    found = groups_of(*folders)
    assert [group.label for group in found] == ["sam(rho=0.1)", "sam(rho=0.2)", "sgd"]
    errors_of = 100 * (1 - np.array(accuracies))
    low, high = stats.t.interval(
        0.95, 2, loc=errors_of.mean(), scale=stats.sem(errors_of)
    )
    spread = found[0].spread("test error (%)")
    np.testing.assert_allclose(
        (spread.mean - spread.half, spread.mean + spread.half), (low, high)
    )
    assert spread.n == 3 and found[1].spread("test error (%)").half is None
    assert found[0].values("training accuracy (%)") == [100.0] * 3  # of epoch 2


def test_what_differs_tells_the_rows_apart(ended):
    changes = {"learning_rate": 0.3, "wandb": {"mode": "offline"}, "remat": True}
    found = groups_of(ended("a"), ended("b", **changes), ended("c", 1, **changes))
    assert [group.label for group in found] == [
        "sam(rho=0.1), learning_rate=0.1",
        "sam(rho=0.1), learning_rate=0.3",
    ]
    assert found[0].settings == {"learning_rate": 0.1}


def test_rows_of_other_networks_and_files_have_labels_of_their_own(ended):
    model = {"name": "vit_ti4"}
    found = groups_of(
        ended("a", model=model),
        ended("b", model=model | {"options": {"depth": 3}}),
    )
    assert [group.label for group in found] == [
        "sam(rho=0.1)",
        "sam(rho=0.1), model.options.depth=3",
    ]
    mine = (
        comparison.Run(name, {"method.name": f"{name}.py:sam", "seed": 0})
        for name in "ab"
    )
    assert [group.label for group in comparison.grouped(mine)] == [
        "sam, method.name=a.py:sam",
        "sam, method.name=b.py:sam",
    ]


def test_a_row_of_metrics_counts_by_its_updates(ended):
    folder = ended("a")
    rows = [
        {"step": step, "split": "train", "epoch": step / 8, "accuracy": value}
        for step, value in ((6, 0.5), (8, 0.9), (16, 0.7))
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in rows))
    (run,) = comparison.read(folder)
    assert run.curve("train", "accuracy") == pytest.approx({1: 0.6, 2: 0.7})


def test_the_files_say_the_same_and_are_read_again(ended, tmp_path, capsys):
    folders = [ended(f"a{i}", i, 0.9 + i / 100) for i in range(2)]
    folders.append(ended("b_1", 0, rho=None, validation=0.7))
    out = tmp_path / "new" / "out"
    code, shown, err = said(capsys, "compare", *folders, f"--out={out}", "--latex")
    assert (code, err) == (0, "")
    assert shown == (out / "table.tex").read_text()
    assert r"sam(rho=0.1) & 2 & 9.50 $\pm$ 6.35 & 100.00 $\pm$ 0.00" in shown
    table = (out / "table.md").read_text()
    assert "| sam(rho=0.1) | 2     | 9.50 ± 6.35    |" in table
    assert "selected (%)" not in table  # no run has such a number
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["seed"], row["method.rho"]) for row in rows] == [
        ("a0", "0", "0.1"),
        ("a1", "1", "0.1"),
        ("b_1", "0", ""),
    ]
    picture = (out / "comparison.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and picture.endswith(b"IEND\xaeB`\x82")
    again = said(capsys, "compare", out)
    assert again[1] == table
    assert "--out" in one_line(capsys, "compare", folders[0], f"--out={folders[1]}")
    # Other weights of the same settings may be added to what was compared.
    more = ended("a2", 2, 0.95)
    assert [group.seeds for group in groups_of(out, more)] == ["3", "1"]


def test_the_best_of_each_method_is_chosen_on_validation(ended, capsys):
    folders = [
        ended("a", 0, 0.99, validation=0.5),
        ended("b", 0, 0.80, rho=0.2, validation=0.9),
        ended("c", 0, 0.70, rho=None, validation=0.6),
        ended("e", 0, 0.70, validation=0.4, epochs=3),
    ]
    found = groups_of(*folders, tuned=True)
    assert [group.label for group in found] == [
        "sam(rho=0.2), epochs=2",
        "sgd, epochs=2",
        "sam(rho=0.1), epochs=3",
    ]
    assert "validation" in one_line(capsys, "compare", ended("d"), "--tuned")
    going = ended("f", 1, validation=0.5)
    (going / "results.json").unlink()
    folder = f"--out={going.parent / 'page.html'}"
    line = one_line(capsys, "report", folders[0], going, "--tuned", folder)
    assert "f is not finished: 1.5 of 2 epochs: a choice by validation" in line


def test_runs_that_cannot_be_compared(ended, tmp_path, capsys):
    good, same = ended("good"), ended("same")
    assert "same seed" in one_line(capsys, "compare", good, same)
    assert "same seed" in one_line(capsys, "compare", good, good)
    assert "not there" in one_line(capsys, "compare", tmp_path / "no")
    (tmp_path / "empty").mkdir()
    assert "not the folder of a run" in one_line(capsys, "compare", tmp_path / "empty")
    results = json.loads((same / "results.json").read_text())
    results["last"]["epoch"] = 1.0
    (same / "results.json").write_text(json.dumps(results))
    assert "not finished (1 of 2 epochs)" in one_line(capsys, "compare", same)
    (same / "results.json").unlink()
    line = one_line(capsys, "compare", good, same)
    assert "not finished" in line and f"sam-jax resume {same}" in line
    line = one_line(capsys, "compare", good, f"--out={good.parent}/./good")
    assert "one of the folders that are compared" in line
    assert "name too long" in one_line(capsys, "compare", "x" * 300)


def test_runs_on_different_images_have_no_difference(ended):
    place = {"name": "folder", "path": "/data/a"}
    here = [ended(f"a{seed}", seed, data=place) for seed in (0, 1)]
    there = [
        ended(f"b{seed}", seed, data=place | {"path": "/data/b"}) for seed in (0, 1)
    ]
    groups = groups_of(*here, *there)
    assert len(groups) == 2
    assert comparison.differences(groups, "test error (%)") == [None, None]


def test_a_run_has_the_name_of_the_link_to_it(ended):
    folder = ended("a")
    link = folder.with_name("sam_rho0.1_seed0")
    link.symlink_to(folder)
    assert comparison.read_run(link).name == "sam_rho0.1_seed0"


def test_labels_are_text_in_latex_and_markdown(ended):
    folders = [ended("a"), ended("b", model={"name": r"a\{$x^2$}~|b.py:Net"})]
    groups = groups_of(*folders)
    tex = comparison_files.latex(groups)
    name = r"model.name=a\textbackslash{}\{\$x\^{}2\$\}\textasciitilde{}$|$b.py:Net"
    assert name in tex
    *rows, _, _ = comparison_files.markdown(groups).splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


@pytest.mark.parametrize("name", ["config.json", "results.json", "metrics.jsonl"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"3",
        b'{"epochs": "x", "last": {"test": 1}}',
        b'{"data": 1, "last": {"test": {"accuracy": 0.5}, "epoch": "x"}}',
        b'{"method": {}, "last": {"test": {"accuracy": 0.5}}, "seconds": "Infinity"}',
        b'{"batch_size": "x", "last": {"test": {"accuracy": "NaN"}}}',
        b'"\xff"',
        b"\0",
    ],
)
def test_damaged_files_are_one_line(ended, capsys, name, content):
    folder = ended("a")
    content += b"\n{}\n" * (name == "metrics.jsonl")  # the last line may be cut
    (folder / name).write_bytes(content)
    line = one_line(capsys, "compare", folder)
    assert name in line
    if name == "results.json":
        assert line.endswith(f"delete it, and sam-jax resume {folder} makes it again")


@pytest.mark.parametrize(
    "change",
    [
        *({"format": 2}, {"groups": 1}, {"groups": [{}]}, {"settings": None}),
        {"settings": {"epochs": 3}},
        {"groups": [{"settings": {}, "runs": [{"name": "a", "seed": 0, "last": 3}]}]},
    ],
)
def test_results_of_something_else_are_refused(
    ended, tmp_path, capsys, change, monkeypatch
):
    monkeypatch.setattr(comparison_files, "draw", lambda *_: None)
    assert said(capsys, "compare", ended("a"), f"--out={tmp_path / 'x'}")[0] == 0
    path = tmp_path / "x" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert "results.json" in one_line(capsys, "compare", tmp_path / "x")
    line = one_line(capsys, "compare", ended("b"), f"--out={tmp_path / 'x'}")
    assert "results.json" in line and path.read_text().count("groups")


def test_results_that_say_no_epoch_are_of_the_last_one(ended):
    path = ended("a") / "results.json"
    found = json.loads(path.read_text())
    found["last"]["epoch"] = None
    path.write_text(json.dumps(found))
    assert comparison.read(path.parent)[0].error("last") == pytest.approx(10)


def test_a_run_that_failed_is_counted(ended):
    (good,) = comparison.read(ended("a"))
    bad = comparison.Run("b", {**good.settings, "seed": 1}, failure="diverged")
    (group,) = comparison.grouped([good, bad])
    assert group.seeds == "1 of 2, 1 failed" and group.failed == 1
    assert group.spread("test error (%)").n == 1
    assert "1 of 2, 1 failed" in comparison_files.markdown([group])


def test_settings_that_an_earlier_version_did_not_have_are_defaults(ended):
    before, now = ended("a"), ended("b", 1)
    tree = json.loads((before / "config.json").read_text())
    del tree["remat"], tree["data"]["resize"]
    (before / "config.json").write_text(json.dumps(tree))
    assert len(groups_of(before, now)) == 1


def test_records_of_an_earlier_version_are_of_the_same_rows(ended, tmp_path):
    now, path = ended("a"), tmp_path / "results.json"
    record = json.loads(comparison_files.to_text(groups_of(ended("b", 1))))
    del record["settings"]["data.imbalance"]
    path.write_text(json.dumps(record))
    assert len(groups_of(now, path)) == 1


def test_committed_results_are_read(capsys):
    folder = runs.ROOT / "experiments" / "training" / "results"
    found = {
        path.parent.name: groups_of(path) for path in folder.glob("*/results.json")
    }
    assert len(found) == 4
    (sam,) = [g for g in found["digits_noisy"] if g.label == "sam(rho=0.5)"]
    assert round(sam.spread("test error (%)").mean, 2) == 18.96
    _, shown, _ = said(capsys, "compare", folder / "digits_noisy")
    assert shown == (folder / "digits_noisy" / "table.md").read_text()


def test_comparing_imports_no_jax(ended, tmp_path):
    words = ["compare", str(ended("a")), f"--out={tmp_path / 'x'}"]
    program = (
        "import sys; from sam_jax import commands\n"
        f"assert commands.main({words!r}) == 0; print('jax' in sys.modules)"
    )
    done = runs.python(program)
    assert done.stdout.endswith("False\n"), done.stderr
