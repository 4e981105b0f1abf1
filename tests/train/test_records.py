"""Whatever happens to the files of a run: the same end, or one sentence."""

import json
import shutil
import tempfile
import time

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st

from sam_jax import errors
from sam_jax.train import (
    boards,
    loaded,
    loop,
    metrics,
    results,
    settings,
    workdir,
)
from tests.train import runs
from tests.train.ended import go_on, refused, warnings

# ── Every file, damaged anywhere ─────────────────────────────────────────────────────


def flipped(data, at):
    return (
        data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :] if at < len(data) else data
    )


CHANGES = {
    "flipped": flipped,
    "cut": lambda data, at: data[:at],
    "without the beginning": lambda data, at: data[at:],
    "zeros": lambda data, at: (
        data[:at] + bytes(min(64, len(data) - at)) + data[at + 64 :]
    ),
    "half twice": lambda data, at: data[:at] + data,
    "more": lambda data, at: data[:at] + b"\n3\n[" + data[at:],
}
INSTEAD = {
    **{"nothing": b"", "a number": b"3", "an object": b"{}", "null": b"null"},
    **{"no text": b"\xff\xfe", "too deep": b"[" * 100_000},
}
damages = st.one_of(
    st.tuples(st.sampled_from(sorted(CHANGES)), st.floats(0, 1)),
    st.tuples(st.just("instead"), st.sampled_from([*INSTEAD, "no file", "a folder"])),
)


def damaged(path, kind, how):
    data = path.read_bytes()
    path.unlink()
    if kind != "instead":
        path.write_bytes(CHANGES[kind](data, round(how * len(data))))
    elif how == "a folder":
        path.mkdir()
    elif how in INSTEAD:
        path.write_bytes(INSTEAD[how])


def check_any_damage(both, capsys, folder, number, damage):
    with tempfile.TemporaryDirectory() as place:
        copy = both.copy(folder, place)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        damaged(files[number % len(files)], *damage)
        try:
            go_on(both, copy, capsys)
        except errors.UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000


fuzz = given(
    folder=st.sampled_from(["stopped", "ended"]),
    number=st.integers(0, 59),
    damage=damages,
)
relaxed = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@fuzz
@of_hypothesis(max_examples=15, derandomize=True, **relaxed)
def test_any_damage_is_mended_or_one_sentence(both, capsys, folder, number, damage):
    check_any_damage(both, capsys, folder, number, damage)


@pytest.mark.slow("more damages")
@fuzz
@of_hypothesis(max_examples=100, **relaxed)
def test_many_damages_are_mended_or_one_sentence(both, capsys, folder, number, damage):
    check_any_damage(both, capsys, folder, number, damage)


# ── Metrics that are not those of the checkpoint ─────────────────────────────────────

LOST = {
    "emptied": lambda lines: [],
    "half": lambda lines: lines[: len(lines) // 2],
    "best removed": lambda lines: [x for x in lines if b'"validation"' not in x],
    "first half twice": lambda lines: lines[:4] + lines,
    "another number": lambda lines: [
        line.replace(b'"epoch": 0', b'"epoch": 9') for line in lines
    ],
}


@pytest.mark.parametrize("how", [*LOST, "deleted"])
def test_rows_that_are_lost_are_said_and_results_are_whole(both, how, tmp_path, capsys):
    folder = both.copy("stopped", tmp_path)
    path = folder / metrics.METRICS_FILE
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"".join(LOST[how](path.read_bytes().splitlines(True))))
    _, shown = go_on(both, folder, capsys)
    (line,) = warnings(shown)
    assert f"{path} has not all rows up to step 6" in line
    rows = [(row["step"], row["split"]) for row in metrics.read_history(path)]
    assert len(rows) == len(set(rows)) and rows[-1][0] == 12


def test_what_follows_the_checkpoint_does_no_harm(both, tmp_path, capsys):
    folder = both.copy("stopped", tmp_path)
    path = folder / metrics.METRICS_FILE
    before = path.read_bytes()
    path.write_bytes(before + b"\0" * 99 + b"\n" + b"[" * 100_000 + b"\n3\n")
    _, shown = go_on(both, folder, capsys)
    assert path.read_bytes().startswith(before) and not warnings(shown)
    assert runs.comparable(metrics.read_history(path)) == runs.comparable(
        metrics.read_history(both.ended / metrics.METRICS_FILE)
    )


WRONG = (b"3", b"{}", b"null", b'{"step": "x"}', b"[" * 100_000, b"", b"\0" * 9)
WRONG += (
    b'{"step": NaN, "split": "test"}',
    b'{"step": 1, "split": "test", "loss": []}',
)


@pytest.mark.parametrize("line", WRONG)
def test_a_line_of_another_shape_is_named(both, line, tmp_path):
    folder = both.copy("stopped", tmp_path)
    path = folder / metrics.METRICS_FILE
    path.write_bytes(line + b"\n" + path.read_bytes())
    assert f"{path}, line 1, is damaged" in refused(both, folder)


# ── A finished run has what it shows ─────────────────────────────────────────────────


@pytest.mark.parametrize("file", ["report.html", "results.json", "events.out.*"])
def test_what_a_finished_run_shows_is_made_again(both, file, tmp_path, capsys):
    folder = both.copy("ended", tmp_path)
    (path,) = folder.glob(file)
    path.unlink()
    _, shown = go_on(both, folder, capsys)
    assert "This run is finished" in shown and not warnings(shown)
    assert len(list(folder.glob(file))) == 1
    before = sorted(folder.iterdir())
    go_on(both, folder, capsys)
    assert sorted(folder.iterdir()) == before, "nothing is missing any more"


def test_events_that_are_made_again_have_all_rows(both, tmp_path, monkeypatch):
    folder, written = both.copy("ended", tmp_path), []
    monkeypatch.setattr(boards.TensorBoard, "has_events", lambda workdir: False)
    write = boards.TensorBoard.write

    def spy(self, step, split, values):
        written.append((step, split))
        write(self, step, split, values)

    monkeypatch.setattr(boards.TensorBoard, "write", spy)
    loop.train_and_evaluate(both.config, folder)
    rows = metrics.read_history(folder / metrics.METRICS_FILE)
    assert written == [(row["step"], row["split"]) for row in rows]


def test_writers_of_a_finished_run_are_closed_again(both, tmp_path, monkeypatch):
    """As a kill between the last checkpoint and the results would leave them open."""
    closed = []
    close = metrics.TensorBoard.close

    def spy(self):
        closed.append(self)
        close(self)

    monkeypatch.setattr(metrics.TensorBoard, "close", spy)
    folder = both.copy("ended", tmp_path)
    loop.train_and_evaluate(both.config, folder)
    assert closed == []
    (folder / "results.json").unlink()
    loop.train_and_evaluate(both.config, folder)
    assert len(closed) == 1


def test_a_finished_run_without_checkpoints_is_not_begun_anew(both, tmp_path):
    folder = both.copy("ended", tmp_path)
    shutil.rmtree(folder / "checkpoints")
    assert "results of a finished run, but no checkpoint" in refused(both, folder)
    assert (folder / "results.json").exists()


def test_metrics_without_a_checkpoint_are_begun_anew_with_a_line(
    both, tmp_path, capsys
):
    folder = both.copy("stopped", tmp_path)
    shutil.rmtree(folder / "checkpoints")
    _, shown = go_on(both, folder, capsys)
    (line,) = warnings(shown)
    assert "no checkpoint to continue from" in line and "metrics.jsonl" in line


# ── Checkpoints ──────────────────────────────────────────────────────────────────────


def test_the_last_one_damaged_falls_back_to_the_one_before(both, tmp_path, capsys):
    folder = both.copy("stopped", tmp_path)
    runs.damage(folder / "checkpoints" / "6")
    _, shown = go_on(both, folder, capsys)
    (line,) = warnings(shown)
    assert "checkpoints/6 is damaged" in line and "continues from step 4" in line
    assert "resumed      after step 4" in shown or "after step 4" in shown
    assert runs.comparable(
        metrics.read_history(folder / "metrics.jsonl")
    ) == runs.comparable(metrics.read_history(both.ended / "metrics.jsonl"))


def test_the_best_one_damaged_is_said_and_its_scores_stay(both, tmp_path, capsys):
    folder = both.copy("ended", tmp_path)
    best = both.results["best"]["step"]
    assert best < 12, "the last is not the best here"
    runs.damage(folder / "checkpoints" / str(best))
    found, shown = go_on(both, folder, capsys)
    damaged, lost = warnings(shown)
    assert f"checkpoints/{best} is damaged" in damaged
    assert f"best on validation, of step {best}, are lost: their scores stay" in lost
    assert found["best"] == both.results["best"]
    with pytest.raises(errors.UserError, match=f"best step, {best}, are lost: take"):
        loaded.load_run(folder, config=both.config)


def test_the_best_one_lost_on_the_way_is_chosen_anew(both, tmp_path, capsys):
    folder = both.copy("stopped", tmp_path)
    shutil.rmtree(folder / "checkpoints" / "4")
    found, shown = go_on(both, folder, capsys)
    (line,) = warnings(shown)
    assert "of step 4, are lost: the best is chosen again" in line
    assert found["best"]["step"] in runs.checkpoints(folder)


# ── Versions ─────────────────────────────────────────────────────────────────────────


def test_a_folder_without_a_setting_that_has_its_default_goes_on(both, tmp_path):
    path = tmp_path / workdir.CONFIG_FILE
    path.write_text(settings.to_json(both.config))
    stored = json.loads(path.read_text())
    defaults = json.loads(settings.to_json(settings.read({})))
    for key in stored.keys() & defaults.keys():
        if stored[key] == defaults[key]:
            path.write_text(json.dumps({k: x for k, x in stored.items() if k != key}))
            with workdir.claimed(tmp_path, both.config):
                assert json.loads(path.read_text()) == stored
    path.write_text(json.dumps(stored | {"checkpoint_every_epochs": 3}))
    with workdir.claimed(tmp_path, both.config):
        assert json.loads(path.read_text()) == stored


def test_a_folder_of_a_later_version_is_refused(both, tmp_path):
    folder = both.copy("stopped", tmp_path)
    path = folder / workdir.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"spin": 1}))
    message = refused(both, folder)
    assert "by another version" in message and "config.spin" in message


def test_a_run_of_a_version_without_scores_in_its_checkpoints(both, tmp_path):
    """They are then read from the history."""
    progress = {"seconds": 1.0, "skipped": 0, "last": None, "plans": []}
    best = both.results["best"]
    progress["best"] = {"step": best["step"], "accuracy": 0.5}
    folder = both.copy("ended", tmp_path)
    found = results.collect(folder, progress)
    assert (found["last"], found["best"]) == (both.results["last"], best)


# ── Folders and files that others take away ──────────────────────────────────────────


@pytest.mark.parametrize("how", ["renamed", "deleted", "without metrics"])
def test_a_folder_that_vanishes_ends_the_run(both, how, tmp_path, disturb):
    folder = tmp_path / "run"

    def vanish():
        while not (folder / "checkpoints" / "4").exists():
            time.sleep(0.01)
        if how == "without metrics":
            (folder / "metrics.jsonl").unlink()
        else:
            folder.rename(tmp_path / "moved")
        if how == "deleted":
            shutil.rmtree(tmp_path / "moved", ignore_errors=True)

    disturb(7, vanish)
    message = refused(both, folder)
    assert "metrics.jsonl was deleted, renamed or replaced" in message
    left = {path.name for path in tmp_path.iterdir()}
    expected = {"renamed": {"moved"}, "deleted": set(), "without metrics": {"run"}}
    assert left == expected[how]
    if how == "without metrics":
        disturb()
        assert loop.train_and_evaluate(both.config, folder)["last"]["step"] == 12


def test_a_folder_that_another_run_takes_the_place_of(
    both, tmp_path, monkeypatch, disturb
):
    """It ends, and leaves the checkpoints of the other run as they are."""
    folder, content = tmp_path / "run", {}

    def there():
        files = (folder / "checkpoints").rglob("*")
        return {path: path.stat().st_mtime_ns for path in files}

    def replaced():
        while not (folder / "checkpoints" / "4").exists():
            time.sleep(0.01)
        folder.rename(tmp_path / "moved")
        both.copy("stopped", tmp_path).rename(folder)
        (folder / "checkpoints" / ".open-0").touch()
        content.update(there())

    disturb(7, replaced)
    monkeypatch.setattr(metrics.JsonLines, "_check_there", lambda lines: None)
    message = refused(both, folder)
    assert f"{folder / 'checkpoints'} was deleted or renamed" in message
    assert content == there()
    assert not (folder / "results.json").exists()


@pytest.mark.parametrize("file", ["metrics.jsonl", "results.json", "report.html"])
def test_a_folder_in_the_place_of_a_file_is_said_at_the_start(both, file, tmp_path):
    folder = both.copy("stopped", tmp_path)
    (folder / file).unlink(missing_ok=True)
    (folder / file).mkdir()
    assert f"{folder / file} is a folder" in refused(both, folder)


def test_blank_names_are_refused(both, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("", " "):
        assert "--workdir is blank" in refused(both, name)
    assert list(tmp_path.iterdir()) == []
