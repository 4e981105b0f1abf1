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
    tables,
)
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
    assert written == {"figure.png", "data.json"}
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


def test_the_folder_of_results_is_there_before_the_first_one(tmp_path, monkeypatch):
    found = []

    def run(names, quick, out, workers):
        found.append(out.is_dir())
        return 0

    monkeypatch.setattr(laboratory, "QUICK_RESULTS", tmp_path / "a" / "b")
    monkeypatch.setattr(runner, "run", run)
    assert laboratory.main(["run", "all", "--quick"]) == 0 and found == [True]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--out=FILE"], "error: argument --out: .* got 'FILE' .*File exists"),
        (["--out=FILE/below"], "error: argument --out: .*Not a directory"),
        (["--out=/proc/results"], "error: argument --out: must be a folder"),
        (["--workers=0"], "error: argument --workers: must be .* got '?0"),
    ],
)
def test_nothing_runs_where_results_cannot_be_written(argv, message, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    argv = [word.replace("FILE", str(file)) for word in argv]
    with pytest.raises(SystemExit) as ended:
        laboratory.main(["run", "khanh/two_cycle", *argv])
    assert ended.value.code == 2
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
    assert (tmp_path / "khanh/two_cycle/figure.png").stat().st_size > 10_000
