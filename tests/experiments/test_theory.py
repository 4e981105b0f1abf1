"""The laboratory: every claim in its short form, and what runs and reports them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent import futures
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from docs import theory_pages
from experiments.theory import __main__ as laboratory
from experiments.theory import (
    catalog,
    claims,
    mutations,
    pictures,
    report,
    runner,
    runs,
    tables,
)
from sam_jax import errors
from sam_jax.theory import finite_sums
from tests import tiers


@pytest.fixture(scope="module", autouse=True)
def quick_to_compile():
    """Not here, where programs take many steps."""


# ── The claims ───────────────────────────────────────────────────────────────────────


QUICK = ("khanh/two_cycle", "si_yun/valley", "oikonomou/lambda_schedules")


@pytest.mark.parametrize(
    "name", tiers.cases(QUICK, catalog.names(), "all experiments of the laboratory")
)
def test_claim(name, tmp_path):
    record, error = runner.run_one(name, quick=True, out=tmp_path)
    assert record is not None, error
    surprises = [check for check in record["checks"] if not check["passed"]]
    assert record["verdict"] == record["expected"], surprises
    written = {path.name for path in (tmp_path / name).iterdir()}
    assert written == {"figure.svg", "thumbnail.png", "data.json"}
    assert json.loads((tmp_path / name / "data.json").read_text())["data"]


@pytest.mark.parametrize("name", catalog.names())
def test_claim_is_stated_in_full(name):
    module = catalog.load(name)
    claim = module.CLAIM
    for part in (claim.title, claim.source, claim.statement, claim.recipe):
        assert len(part) > 3 and part == part.strip()
    assert claim.criterion and module.__doc__
    assert "\n" not in claim.title + claim.source and len(claim.title) <= 100
    authors = {"khanh": "Khanh", "si_yun": "Si and Yun", "oikonomou": "Oikonomou"}
    assert authors.get(name.split("/")[0], "ours").lower() in claim.source.lower()


def test_results_of_all_claims_are_there():
    for name in catalog.names():
        record = json.loads((laboratory.RESULTS / name / "data.json").read_text())
        claim = catalog.load(name).CLAIM
        assert not record["quick"], name
        assert record["code"] == catalog.code(name), f"{name} changed: run it again"
        assert record["title"] == claim.title
        assert record["verdict"] == claim.expected, name
    index = (laboratory.RESULTS / "README.md").read_text()
    for name in catalog.names():
        assert f"](../{name}.py)" in index


# ── A laboratory of our own ──────────────────────────────────────────────────────────


SURVIVORS = dict.fromkeys(mutations.FACTORS, "its reason")


def experiment(passed, refuted="", broken=False, survivors=()):
    """A claim as a module."""

    def run(quick):
        assert jax.config.jax_enable_x64
        if broken:
            raise RuntimeError("this experiment is broken")
        picture, (panel,) = pictures.panels()
        pictures.bound(panel, None, 1.0, "bound")
        pictures.legends([panel])
        value = 1.0 if passed else 3.0
        checks = [claims.at_most("a | b", value, 2.0), claims.close("one", 1.0, 1.0)]
        data = {"x": np.array([1 / 3, np.nan]), "n": np.int64(3), "s": ("a", None)}
        return claims.Outcome(checks, picture, data | {"quick": quick})

    text = dict.fromkeys(("source", "statement", "recipe", "criterion"), "text")
    claim = claims.Claim(
        title="A claim", refuted=refuted, survivors=dict(survivors), **text
    )
    return SimpleNamespace(CLAIM=claim, run=run)


class Inline(futures.Executor):
    """Runs what is submitted at once, in this process."""

    def __init__(self, *_, **__):
        pass

    def submit(self, function, /, *args, **kwargs):
        future = futures.Future()
        future.set_result(function(*args, **kwargs))
        return future


@pytest.fixture
def lab(monkeypatch):
    """``lab({name: experiment})`` puts these in the place of all claims."""

    def install(modules):
        monkeypatch.setattr(catalog, "names", lambda: list(modules))
        monkeypatch.setattr(catalog, "load", modules.__getitem__)
        monkeypatch.setattr(catalog, "code", "hash of {}".format)
        monkeypatch.setattr(futures, "ProcessPoolExecutor", Inline)

    return install


# ── Mutations ────────────────────────────────────────────────────────────────────────


def test_a_mutation_is_of_the_displacement():
    weights, tx = jnp.array([1.0, 2.0]), sam_jax.usam(0.1)

    def gradient(w):
        return 3 * w**2

    def direction():
        grads = gradient(weights)
        return tx.update(grads, tx.init(weights), weights, grad_fn=gradient)[0]

    usual = direction()
    for name, factor in mutations.FACTORS.items():
        with mutations.mutated(name):
            moved = weights + factor * 0.1 * gradient(weights)
            np.testing.assert_allclose(direction(), gradient(moved), rtol=1e-6)
    np.testing.assert_array_equal(direction(), usual)


def test_what_survives_is_declared():
    """Every claim was mutated."""
    found = mutations.load(laboratory.RESULTS)
    for name in catalog.names():
        declared = catalog.load(name).CLAIM.survivors
        assert all(reason.strip() for reason in declared.values())
        assert name in found, f"mutate {name}"
        assert sorted(found.get(name, [])) == sorted(declared), f"mutate {name} again"


@pytest.mark.slow("six runs of claims")
@pytest.mark.parametrize("name", ["khanh/two_cycle", "oikonomou/expected_residual"])
def test_a_mutated_claim_is_noticed(name):
    survived = [m for m in mutations.FACTORS if mutations.survived(name, m)]
    assert survived == list(catalog.load(name).CLAIM.survivors)


@pytest.mark.parametrize(
    ("survivors", "refuted", "code", "verdict"),
    [({}, "", 1, "LOOSE"), (SURVIVORS, "", 0, "PASS"), (SURVIVORS, "known", 0, "FAIL")],
)
def test_a_claim_that_anything_passes_is_loose(
    lab, survivors, refuted, code, verdict, tmp_path, capsys
):
    lab({"khanh/any": experiment(not refuted, refuted, survivors=survivors)})
    assert runner.run(["khanh"], True, tmp_path, 1) == 0
    assert laboratory.main(["mutate", "khanh", f"--out={tmp_path}"]) == code
    assert "survives reversed, removed, tripled" in capsys.readouterr().out
    [record] = report.index(tmp_path)
    assert record["verdict"] == verdict
    index = (tmp_path / "README.md").read_text()
    assert ("**LOOSE**" in index) == (not survivors)
    assert index.count("its reason") == len(survivors)


def test_a_claim_that_breaks_has_noticed(lab, tmp_path, capsys):
    lab({"khanh/breaks": experiment(passed=True, broken=True)})
    assert laboratory.main(["mutate", "all", f"--out={tmp_path}"]) == 0
    assert "khanh/breaks" in capsys.readouterr().out
    assert mutations.load(tmp_path) == {"khanh/breaks": []}


def test_the_papers_tables_link_to_claims_and_are_current():
    assert tables.names() <= set(catalog.names())
    page = (laboratory.RESULTS / "tables.md").read_text()
    assert "(not run)" not in page
    for name in tables.names():
        [*_, verdict] = re.findall(rf"\(\.\./{name}\.py\) \((\w+)\)", page)
        assert verdict == catalog.load(name).CLAIM.expected


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


# ── Running ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("module", "code", "says"),
    [
        (experiment(passed=True), 0, "PASS "),
        (experiment(passed=False), 1, "FAIL "),
        (experiment(passed=False, refuted="known"), 0, "FAIL (known)"),
        (experiment(passed=True, refuted="known"), 1, "PASS "),
        (experiment(passed=True, broken=True), 1, "this experiment is broken"),
    ],
)
def test_exit_code_tells_of_surprises(lab, module, code, says, tmp_path, capsys):
    lab({"khanh/good": experiment(passed=True), "khanh/other": module})
    argv = ["run", "all", f"--out={tmp_path}"]
    assert laboratory.main(argv) == code
    out = capsys.readouterr().out
    assert says in out
    assert ("not as expected: khanh/other" in out) == bool(code)
    # The good one was not taken along.
    assert (tmp_path / "khanh/good/data.json").exists()


def test_report(lab, tmp_path):
    lab({"khanh/fails": experiment(passed=False, refuted="It was 3.")})
    assert runner.run(["khanh"], True, tmp_path, 1) == 0
    record = json.loads((tmp_path / "khanh/fails/data.json").read_text())
    assert record["verdict"] == record["expected"] == "FAIL" and record["quick"]
    assert record["checks"][0]["passed"] is False
    data = {"x": [0.333333, None], "n": 3, "s": ["a", None], "quick": True}
    assert record["data"] == data
    claim = catalog.load("khanh/fails").CLAIM
    page = theory_pages.page("khanh/fails", claim, record, [])
    assert "It was 3." in page and "a \\| b" in page and "**no**" in page
    index = (tmp_path / "README.md").read_text()
    assert "0 of 1 claims pass" in index and "FAIL (known)" in index
    assert "](../khanh/fails.py)" in index
    assert "Si, Yun" not in index, "papers without results have no table"
    # What was there stays in the index when something else runs.
    lab({"khanh/fails": experiment(True), "khanh/more": experiment(True)})
    assert runner.run(["khanh/more"], True, tmp_path, 1) == 0
    found = [entry["name"] for entry in report.index(tmp_path)]
    assert found == ["khanh/fails", "khanh/more"]


def test_unknown_names(capsys):
    assert laboratory.main(["run", "khanh/two_cicle"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'khanh/two_cycle'?" in error and error.count("\n") == 1
    with pytest.raises(errors.UserError, match="--workers must be at least 1, got 0"):
        runner.run(["khanh/two_cycle"], True, None, 0)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--out=FILE"], "error: --out=FILE is not a folder .*: File exists"),
        (["--out=FILE/below"], "error: --out=FILE/below .*: Not a directory"),
        (["--out=/proc/results"], "error: --out=/proc/results is not a folder"),
        (["--workers=0", "--out=FILE"], "error: --workers must be at least 1, got 0"),
    ],
)
def test_nothing_runs_where_results_cannot_be_written(argv, message, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    argv = [word.replace("FILE", str(file)) for word in argv]
    assert laboratory.main(["run", "khanh/two_cycle", *argv]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.match(message.replace("FILE", str(file)), line)
    assert file.read_text() == "mine"


def process(out, *flags):
    """The laboratory in a session of its own, with a first claim that takes long."""
    command = [sys.executable, "-m", "experiments.theory", "run", "khanh", "--quick"]
    return subprocess.Popen(
        [*command, "--workers=1", f"--out={out}", *flags],
        cwd=laboratory.RESULTS.parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(pid):
    found = subprocess.run(
        ["pgrep", "-P", str(pid), "-f", "spawn_main"], capture_output=True, text=True
    )
    return [int(word) for word in found.stdout.split()]


def until(true, seconds=90):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.slow("starts the laboratory with its workers")
@pytest.mark.parametrize("how", ["interrupt", "kill", "kill a worker"])
def test_what_is_finished_survives(how, tmp_path):
    running = process(tmp_path)
    try:
        until(lambda: list(tmp_path.glob("khanh/*/data.json")))
        workers = children(running.pid)
        assert workers
        if how == "interrupt":
            os.killpg(running.pid, signal.SIGINT)
        elif how == "kill":
            running.kill()
        else:
            os.kill(workers[0], signal.SIGKILL)
        _, err = running.communicate(timeout=60)
        code = {"interrupt": 130, "kill": -signal.SIGKILL, "kill a worker": 1}
        assert running.returncode == code[how]
        assert "Traceback" not in err
        if how != "kill":
            assert "finished claims are kept" in err
        until(lambda: not any(map(alive, workers)), 20)
    finally:
        running.kill()
        running.communicate()
    kept = report.index(tmp_path)
    assert kept and all(entry["verdict"] == entry["expected"] for entry in kept)


def test_list(capsys):
    assert laboratory.main([]) == 0
    out = capsys.readouterr().out
    for name in catalog.names():
        assert re.search(rf"  {name} +\S", out)


def test_command_in_processes_of_its_own(tmp_path):
    command = [sys.executable, "-m", "experiments.theory", "run", "khanh/two_cycle"]
    done = subprocess.run(
        [*command, "--quick", f"--out={tmp_path}"],
        cwd=laboratory.RESULTS.parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"PASS +khanh/two_cycle +(\d+)/\1", done.stdout)
    assert (tmp_path / "khanh/two_cycle/figure.svg").stat().st_size > 10_000
